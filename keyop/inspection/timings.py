"""How long things took, as the ports of processes tell: by subscription, by channel, by peer."""

from __future__ import annotations

from dataclasses import dataclass, field

from keyop.inspection import presence
from keyop.ipc import layout
from keyop.ipc.histogram import Distribution
from keyop.ipc.port import Port


@dataclass(frozen=True, slots=True)
class Timings:
    """Of one process, since it began, or opened the subscription."""

    ages: dict[tuple[str, str], Distribution] = field(default_factory=dict)
    """By channel and id: from publish to the first run of the handler."""
    handler_times: dict[tuple[str, str], Distribution] = field(default_factory=dict)
    """By channel and id: of each attempt."""
    publish_times: dict[str, Distribution] = field(default_factory=dict)
    """By channel: from publish to disk."""
    round_trips: dict[tuple[str, str], Distribution] = field(default_factory=dict)
    """By name and address of a peer: of batches."""


def timings_of(port: Port) -> Timings:
    """Look through the slots of a port."""
    timings = Timings()
    for slot in presence.slots_of(port):
        first, second = (name.decode(errors="replace") for name in slot.names())
        if slot.granted:
            timings.ages[first, second] = slot.times(layout.AGES)
            timings.handler_times[first, second] = slot.times(layout.HANDLER_TIMES)
        elif slot.is_peer:
            timings.round_trips[first, second] = slot.times(layout.ROUND_TRIPS)
        elif slot.is_published:
            timings.publish_times[first] = slot.times(layout.PUBLISH_TIMES)
    return timings
