"""What one process has counted, read off its port."""

from __future__ import annotations

from keyop.inspection import presence
from keyop.inspection.presence import AttachedProcess
from keyop.ipc import layout
from keyop.ipc.port import Port
from keyop.ipc.word import distance
from keyop.metrics.totals import Count, Key
from keyop.names import PEER_PREFIXES

Counts = dict[tuple[str, Key], Count]
"""By what has counted, and series."""


def count_in(port: Port, process: AttachedProcess, counted: Counts) -> None:
    """Add the counters and times of a process. A slot that is used again counts anew: it is a source of its own."""
    for slot in presence.slots_of(port):
        first, second = (name.decode(errors="replace") for name in slot.names())
        source = f"{process.port} {slot.index}"
        if slot.granted and not second.startswith(PEER_PREFIXES):
            labels = (first, second)
            for name, total in slot.counters().items():
                counted[source, Key(f"keyop_subscriber_{name}", labels)] = total
            counted[source, Key("keyop_delivery_age_seconds", labels)] = slot.times(layout.AGES)
            counted[source, Key("keyop_handler_seconds", labels)] = slot.times(layout.HANDLER_TIMES)
        elif slot.is_published:
            counted[source, Key("keyop_publish_to_disk_seconds", (first,))] = slot.times(layout.PUBLISH_TIMES)
        elif slot.is_peer:
            labels = (process.role, first or second)
            stored = slot.peer()
            counted[source, Key("keyop_peer_sent", labels)] = stored["sent"] or 0
            counted[source, Key("keyop_peer_received", labels)] = stored["received"] or 0
            counted[source, Key("keyop_peer_round_trip_seconds", labels)] = slot.times(layout.ROUND_TRIPS)


def ring_fill(port: Port) -> float:
    """How much of its ring waits for the writer, 0 to 1."""
    words = port.words
    used = distance(words[layout.HEAD], words[layout.COMMITTED])
    return min(1.0, max(0, used) / layout.RING_SIZE_BYTES)
