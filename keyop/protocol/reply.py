"""The codes by which the writer answers a transaction, and the exception that each becomes."""

from __future__ import annotations

from keyop.errors import KeyopError, OffsetDamaged, PublishError, PublishRefused, SubscriberBusy

OK = 0
STALE_CURSOR = 1
BUSY = 2
NOT_A_DIRECTORY = 3
NO_PERMISSION = 4
NAME_TOO_LONG = 5
MALFORMED = 6
SPILL_DAMAGED = 7
OFFSET_DAMAGED = 8
NOT_HELD = 9
OTHER = 10

_TEXTS: dict[int, tuple[type[KeyopError], str]] = {
    STALE_CURSOR: (PublishRefused, "the offset moved meanwhile (now {value}): another process took over"),
    NOT_A_DIRECTORY: (PublishRefused, "channel {channel!r}: channels/{channel} is not a directory; move it away"),
    NO_PERMISSION: (
        PublishRefused,
        "channel {channel!r}: the writer may not write to channels/{channel}",
    ),
    NAME_TOO_LONG: (PublishRefused, "channel {channel!r}: the file system takes no name of this length"),
    MALFORMED: (PublishError, "the writer could not read the transaction; please report this"),
    SPILL_DAMAGED: (PublishRefused, "the spill file of a large transaction was damaged before the writer read it"),
    OFFSET_DAMAGED: (
        OffsetDamaged,
        "the offset file of an exactly-once subscriber of {channel!r} fails its check; "
        "`keyop offsets set {channel} ID WHERE` says where it goes on",
    ),
    NOT_HELD: (PublishRefused, "this process does not hold the subscription any more"),
    OTHER: (PublishRefused, "channel {channel!r}: the system refused it (errno {value})"),
}


def refusal(code: int, value: int, channel: str) -> KeyopError:
    """The exception for a reply other than `OK`."""
    if code == BUSY:
        return SubscriberBusy(_busy_text(value, channel))
    kind, text = _TEXTS.get(code, _TEXTS[OTHER])
    return kind(text.format(value=value, channel=channel))


def busy(pid: int, part: int, parts: int) -> int:
    """The value of `BUSY`: who holds what."""
    return pid | part << 32 | parts << 48


def _busy_text(value: int, channel: str) -> str:
    pid, part, parts = value & 0xFFFF_FFFF, value >> 32 & 0xFFFF, value >> 48
    if parts <= 1:
        return (
            f"a live process (pid {pid}) handles channel {channel!r} under this subscriber id; "
            "choose another id, or stop that process"
        )
    return (
        f"a live process (pid {pid}) handles part {part + 1} of {parts} of channel {channel!r} under this subscriber "
        f"id; take another part of {parts}, or stop all of them before dividing the work otherwise"
    )
