"""What lies where in shared memory: the one place that says so.

All words are ``u32`` in the machine's byte order, aligned, and each is written by exactly one process (Python has no
compare-and-swap). They are stored through ``memoryview.cast("I")``, never with ``struct.pack_into``, which zeroes the
destination first, so that another process can read 0. Numbers below are word indices unless they end in ``_BYTES``.

Every object begins with MAGIC, VERSION, PLATFORM, SIZE and the directory's id, so that an object of another layout,
word size, libc or directory is recognised and refused.

**Board**, made and written by the writer alone: header, then a hash table of channels.

**Port**, one per attached process, made by it. The process writes the first group of words, the slots and the ring;
the writer writes the group that begins at COMMITTED.

A 64-bit value is three words ``lo, hi, lo ^ hi ^ CHECK``; a reader believes it when the third fits.
"""

from __future__ import annotations

import os
import struct
import zlib

MASK = 0xFFFF_FFFF
CHECK = 0x6B65_796F

VERSION_NUMBER = 2
BOARD_MAGIC = 0x4B45_5942
PORT_MAGIC = 0x4B45_5950
SLOTS_MAGIC = 0x4B45_5953

# The pointer size and the C library: a semaphore of another one cannot be used.
_IS_GLIBC = "CS_GNU_LIBC_VERSION" in os.confstr_names
PLATFORM_NUMBER = struct.calcsize("P") | (zlib.crc32(b"glibc" if _IS_GLIBC else b"other") & 0xFFFF) << 8

# Every object
MAGIC, VERSION, PLATFORM, SIZE, DIRECTORY_LO, DIRECTORY_HI, PID = range(7)

# Board
INCARNATION, STATE, SYNC_INTERVAL_MS, WRITER_ASLEEP, TABLE_SLOTS, STALL_ERRNO, AT_REST = range(7, 14)
BOARD_COUNTERS = 16  # 64-bit values, three words each, in the order of COUNTERS
COUNTERS = ("frames", "syncs", "refused", "evicted_bytes", "checkpoints", "duplicates", "audit_dropped")
BOARD_COMMIT_TIMES = 64  # a histogram: group commits that were synced, from the look at the rings to the answers
BOARD_SYNC_TIMES = 96  # a histogram: syncs of the journal
BOARD_HEADER_BYTES = 512
CHANNEL_WORDS = 8  # hash lo, hi; end lo, hi, check; records since the start lo, hi, check

# A histogram of times: counts by size, then the sum in nanoseconds as a 64-bit value. Count 0 is of what took less than
# 2**HISTOGRAM_SHIFT ns, each further one of what took up to twice as long, the last one of all that took longer.
HISTOGRAM_SHIFT = 13
HISTOGRAM_COUNTS = 29
HISTOGRAM_WORDS = HISTOGRAM_COUNTS + 3

# States of the board
STARTING, OPEN, STALLED, CLOSING, GONE = range(1, 6)
STATE_NAMES = {STARTING: "starting", OPEN: "open", STALLED: "stalled", CLOSING: "closing", GONE: "gone"}

# Port: the process's words
RING_LO, RING_HI, ROLE, SLOT_PAGES = range(7, 11)
HEAD, COMMIT_ASLEEP, DATA_ASLEEP, REPLIES_TAKEN, DETACHED = range(16, 21)
# Port: the writer's words, on cache lines of their own
COMMITTED, REPLIES_WRITTEN, POISONED, LOST = range(32, 36)  # the last: cursors that were taken from it
REPLIES = 48  # REPLY_SLOTS of position, code, lo, hi, check
REPLY_WORDS = 8
REPLY_SLOTS = 16
REPLIES_A_RECORD = 4  # at most: `open` answers offset, moves, attempts and their offset

# Port: slots of subscriptions, then the ring
SLOTS_BYTES = 1024
SLOT_BYTES = 1024
SLOTS_A_PAGE = 64
MOST_SLOT_PAGES = 1023  # beyond the first: a damaged number of pages must not keep a writer busy for minutes
RING_SIZE_BYTES = 256 * 1024
RING_BYTES = 65 * 1024
PORT_SIZE_BYTES = RING_BYTES + RING_SIZE_BYTES
# A further page of slots: an object of its own, header and slots
SLOT_PAGE_SIZE_BYTES = SLOTS_BYTES + SLOTS_A_PAGE * SLOT_BYTES

# Slot, all written by the process
SLOT_IN_USE, SLOT_PART, SLOT_PARTS, SLOT_FLAGS, SLOT_CHECK = range(5)  # the last: CRC-32 of the three and the names
# Values of SLOT_IN_USE; 0 is free
SLOT_ASKED, SLOT_GRANTED, SLOT_PEER, SLOT_LEAVING, SLOT_PUBLISHED = range(1, 6)
SLOT_CURSOR_BYTES = (32, 64)  # two copies of moves, offset, attempts, CRC-32; the valid one with more moves
SLOT_COUNTERS = 24  # words: 64-bit values, three words each, in the order of SLOT_COUNTER_NAMES
SLOT_COUNTER_NAMES = ("handled", "failed", "dead_lettered", "deferred", "damaged", "skipped_bytes")
SLOT_NAMES_BYTES = 256  # u16 length of the channel, u16 length of the id, channel, id
# Histograms. Of a subscription: from publish to handler, and of the handler. Of a peer: round trips. Of a channel that
# this process publishes to: from publish to disk.
SLOT_TIMES = (192, 224)
AGES, HANDLER_TIMES = 0, 1
ROUND_TRIPS = PUBLISH_TIMES = 0

# A slot of a peer of hub or client: the names are the peer's and its address, and at SLOT_COUNTERS stand values in the
# order of SLOT_PEER_VALUES, UNKNOWN where there is none. Ages are as of the last store, which is half a second ago.
PEER_AWAY, PEER_CONNECTED, PEER_REFUSED = 1, 2, 3
PEER_STATE_NAMES = {PEER_AWAY: "away", PEER_CONNECTED: "connected", PEER_REFUSED: "refused"}
SLOT_PEER_VALUES = (
    "state",
    "since_ms",  # how long it is in this state
    "round_trip_us",  # of the last batch: network, and the peer's disk
    "behind_bytes",  # of its channels, not acknowledged by it
    "sent",  # messages that it has acknowledged
    "sent_per_min",
    "sent_ago_ms",
    "waiting_bytes",  # came from it, and are not committed yet
    "received",  # messages that it has brought
    "received_per_min",
    "received_ago_ms",
)
UNKNOWN = 0xFFFF_FFFF_FFFF_FFFF
# ROLE of a port
ROLE_HUB, ROLE_CLIENT = 1, 2
ROLE_NAMES = {ROLE_HUB: "hub", ROLE_CLIENT: "client"}
