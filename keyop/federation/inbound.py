"""What a peer sends: each record is looked at, and what is good is committed before the batch is acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Collection, Iterator
from enum import Enum
from itertools import islice

from keyop.attachment.acknowledgements import Acknowledgements
from keyop.attachment.attachment import Attachment
from keyop.errors import ChannelNameError, PublishTimeout
from keyop.federation.audit import MAX_ID, Audit
from keyop.federation.known_ids import KnownIds
from keyop.federation.record import Fault, Record
from keyop.federation.route import Link
from keyop.federation.session import Batch
from keyop.names import check_publish_channel
from keyop.protocol import entry, inbound
from keyop.storage.segments import MAX_LINE_BYTES

# A transaction that goes through the ring as it is; a single longer line makes a longer one.
TRANSACTION_BYTES = 120 * 1024
# So many records are looked at before others on the loop have their turn.
_PIECE = 512
# Names of channels that need no second look.
_NAMES_KEPT = 1_024
# A ring that stays full is tried again and again: a thread that waits in it has to come back when this process stops.
_PATIENCE_S = 2.0


class Outcome(Enum):
    """What became of a record."""

    COMMITTED = "committed"
    DUPLICATE = "duplicate"
    """A message of this id stands in the channel already."""
    LOOP = "loop_dropped"
    """This host stands in its route: it has been here."""
    VIOLATION = "policy_violation"
    """A channel that the peer may not publish to, a bad name, an empty id, a record that is too long."""
    UNREADABLE = "unreadable"
    """Not an envelope, or one of another version that is not passed on."""


class Inbound:
    """The receiving half of one connection."""

    def __init__(
        self,
        attachment: Attachment,
        acknowledgements: Acknowledgements,
        link: Link,
        known: KnownIds,
        audit: Audit,
        *,
        allowed: Collection[str] | None,
    ) -> None:
        """``allowed``: the channels that the peer may publish to, None for any."""
        self._attachment = attachment
        self._acknowledgements = acknowledgements
        self._link = link
        self._known = known
        self._audit = audit
        self.allowed = allowed
        """The channels that the peer may publish to, None for any; may be changed while it is connected."""
        self._peer = link.peer_name
        self._well_named: set[str] = set()
        self.outcomes: Counter[Outcome] = Counter()
        """How many records had which outcome."""

    async def hand_over(self, batch: Batch) -> Handed:
        """Give what is good of a batch to the writer.

        Raises `KeyopError` and `OSError` if it could not be given: no acknowledgement, the peer sends it again.
        """
        handed = Handed(self)
        try:
            records = batch.records()
            while piece := list(islice(records, _PIECE)):
                by_channel: dict[str, list[Record]] = {}
                for record in piece:
                    if self._is_good(record):
                        by_channel.setdefault(record.head.channel, []).append(record)
                for channel, good in by_channel.items():
                    for transaction, ids in self._transactions(channel, *await self._new(channel, good)):
                        handed.under_way.append((await self._send(transaction), channel, ids))
                await asyncio.sleep(0)
        except BaseException:
            handed.abandon()
            raise
        return handed

    async def _new(self, channel: str, records: list[Record]) -> tuple[list[Record], list[int]]:
        """Those records that the channel does not hold yet, and the hashes of their ids."""
        ids = [record.head.id.encode("utf-8", "surrogatepass") for record in records]
        hashes = [inbound.id_hash(id) for id in ids]
        known = await self._known.known(channel, ids, hashes)
        if not known:
            return records, hashes
        self.outcomes[Outcome.DUPLICATE] += sum(hash in known for hash in hashes)
        new = [(record, hash) for record, hash in zip(records, hashes, strict=True) if hash not in known]
        return [record for record, _ in new], [hash for _, hash in new]

    # ---- what is not taken

    def _is_good(self, record: Record) -> bool:
        head = record.head
        if record.fault is Fault.TOO_BIG:
            return self._refuse(record, record.detail)
        if record.fault is Fault.UNREADABLE or (record.fault is Fault.OTHER_VERSION and not self._link.any_version):
            self.outcomes[Outcome.UNREADABLE] += 1
            return False
        if head.channel not in self._well_named:
            try:
                check_publish_channel(head.channel)
            except ChannelNameError as error:
                return self._refuse(record, f"reason=channel_name {error}")
            if len(self._well_named) < _NAMES_KEPT:
                self._well_named.add(head.channel)
        if self.allowed is not None and head.channel not in self.allowed:
            return self._refuse(record, "")
        if not head.id:
            return self._refuse(record, "reason=no_id")
        if self._link.is_loop(record):
            self.outcomes[Outcome.LOOP] += 1
            self._drop("loop_dropped", record, "")
            return False
        return True

    def _refuse(self, record: Record, detail: str) -> bool:
        self.outcomes[Outcome.VIOLATION] += 1
        self._drop("policy_violation", record, detail)
        return False

    def _drop(self, event: str, record: Record, detail: str) -> None:
        head = record.head
        self._audit.event(
            event,
            message_id=head.id[:MAX_ID],
            channel=head.channel[:300],
            direction="inbound",
            peer=self._peer,
            detail=detail,
        )

    # ---- what is

    def _transactions(
        self, channel: str, records: list[Record], hashes: list[int]
    ) -> Iterator[tuple[bytes, list[str]]]:
        """(transaction, the ids of its records), each small enough for the ring."""
        name = channel.encode()
        lines: list[bytes] = []
        first = length = 0
        for number, record in enumerate(records):
            line = self._link.taken_over(record) + b"\n"
            if len(line) > MAX_LINE_BYTES:  # its route has become as long as a message
                self._refuse(record, f"reason=too_big bytes={len(line)}")
                line = b""
            if lines and (not line or length + len(line) > TRANSACTION_BYTES):
                yield _transaction(name, lines, hashes[first:number]), _ids(records[first:number])
                lines, length = [], 0
            if not lines:
                first = number
            if line:
                lines.append(line)
                length += len(line) + inbound.LINE_BYTES
        if lines:
            yield _transaction(name, lines, hashes[first:]), _ids(records[first:])

    async def _send(self, transaction: bytes) -> int:
        while True:
            try:
                return await self._acknowledgements.send(transaction, time.monotonic() + _PATIENCE_S)
            except PublishTimeout:
                continue  # nothing of it was handed over

    async def committed(self, position: int, channel: str, ids: list[str]) -> int:
        """Wait for a transaction; how many of its messages were new. Raises `KeyopError`."""
        await self._acknowledgements.committed(position)
        # The writer leaves out what another connection brought at the same moment, and tells how many only.
        known = sum(self._attachment.replies.of(position, channel))
        self.outcomes[Outcome.DUPLICATE] += known
        self.outcomes[Outcome.COMMITTED] += len(ids) - known
        self._audit.forwarded("inbound", self._peer, [(channel, id) for id in ids])
        return len(ids) - known

    def forget(self, position: int) -> None:
        """Nobody will ask what became of a transaction."""
        self._attachment.replies.expected.discard(position)


class Handed:
    """A batch that the writer has been given."""

    def __init__(self, inbound: Inbound) -> None:
        self.under_way: deque[tuple[int, str, list[str]]] = deque()
        """Its transactions: position in the ring, channel, ids of the messages."""
        self._inbound = inbound

    async def committed(self) -> int:
        """Return when all of it is committed and synced; how many messages were new.

        Raises `KeyopError` if it could not be committed.
        """
        new = 0
        try:
            while self.under_way:
                new += await self._inbound.committed(*self.under_way[0])
                self.under_way.popleft()
        finally:
            self.abandon()
        return new

    def abandon(self) -> None:
        """The connection is gone: whether it is committed does not matter any more."""
        while self.under_way:
            self._inbound.forget(self.under_way.popleft()[0])


def _ids(records: list[Record]) -> list[str]:
    return [record.head.id for record in records]


def _transaction(channel: bytes, lines: list[bytes], hashes: list[int]) -> bytes:
    packed = inbound.pack(lines, hashes)
    return entry.TRANSACTION.pack(entry.SYNC) + entry.encode(entry.INBOUND, channel, data=packed)
