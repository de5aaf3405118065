"""One record: an envelope as hub and client see it, who need its id, channel and route and never its payload."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

from keyop.federation.head import EMPTY_HEAD, Head, read_head
from keyop.federation.members import TEXTS, Member, members_of
from keyop.messages.json_text import NotAnObject

_VERSION = 1


class Fault(enum.Enum):
    """Why a record is not kept."""

    UNREADABLE = "unreadable"
    """Not an envelope: not JSON, no object, a key of the wrong type."""
    OTHER_VERSION = "other version"
    """An envelope of another version. It has id and channel if those are texts there, too."""
    TOO_BIG = "too_big"
    """Longer than this side accepts."""


class Record(NamedTuple):
    """One record of a frame, or one line of a segment."""

    line: bytes
    """The envelope's bytes without a newline; none inside of it either. Empty if the fault is TOO_BIG."""
    head: Head
    """What is known of it."""
    fault: Fault | None = None
    """None: it is good."""
    detail: str = ""
    """What is wrong, for log and audit."""


def read_record(line: bytes, max_bytes: int) -> Record:
    """Read one line; never raises. Payloads are not decoded, but they are checked for being JSON."""
    if b"\n" in line:
        # Between two tokens any blank will do, and on disk a newline would end the line.
        line = line.replace(b"\n", b" ")
    try:
        head = read_head(line)
    except Exception:  # whatever the usual way stumbles over, the slow one decides
        record = _read_slowly(line)
    else:
        record = Record(line, head)
    if len(line) > max_bytes:
        return Record(b"", record.head, Fault.TOO_BIG, f"reason=too_big bytes={len(line)}")
    return record


def _read_slowly(line: bytes) -> Record:
    try:
        members = members_of(line)
    except NotAnObject as error:
        return Record(line, EMPTY_HEAD, Fault.UNREADABLE, f"not a JSON object: {error}")
    return _judge(line, members)


def _judge(line: bytes, members: list[Member]) -> Record:
    version: Any = None
    fields: dict[str, Any] = {}
    wrong = ""
    for name, value, *_ in members:
        if value is None:
            continue
        if name == "v":
            version = value
        elif name == "route":
            if isinstance(value, list) and all(item is None or isinstance(item, str) for item in value):
                fields[name] = tuple(item or "" for item in value)
            else:
                wrong = name
        elif name in TEXTS:
            if isinstance(value, str):
                fields[name] = value
            else:
                wrong = name
    head = Head(1, **fields)
    if version is not None and type(version) is not int:
        return Record(line, head, Fault.UNREADABLE, "the value of v is not an integer")
    if version != _VERSION:
        return Record(line, head, Fault.OTHER_VERSION, "v is missing" if version is None else f"v is {version!s:.40}")
    if wrong:
        return Record(line, head, Fault.UNREADABLE, f"the value of {wrong} has the wrong type")
    return Record(line, head)
