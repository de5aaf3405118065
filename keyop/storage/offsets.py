"""What offset files say. Writing them is the writer's business alone."""

from __future__ import annotations

import os
import re
from binascii import crc_hqx
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from keyop.storage import disk

OFFSET_SUFFIX = ".offset"
OFFSET_FILE_BYTES = 37
"""Of one of ours: 20 digits, 16 blanks, newline."""
MAX_OFFSET = 2**63 - 1

_READ_BYTES = 4096
_LOOKS = 3
_OURS = re.compile(rb"([0-9]{20})([ \t]{16})\n")
_GO = re.compile(rb"[+-]?[0-9]+")
_BLANKS_OF_BITS = str.maketrans("01", " \t")
_BITS_OF_BLANKS = bytes.maketrans(b" \t", b"01")


class ParsedOffset(NamedTuple):
    """What an offset file says."""

    value: int
    """Global offset in bytes; 0 if damaged."""
    ours: bool
    """Whether the file has the length of ours, and so its check."""
    damaged: str | None
    """Why the file counts as 0, None if it does not. A damaged file never frees a segment."""


def _check_of(digits: bytes) -> int:
    # CRC-16/IBM-3740, also called CCITT-FALSE: polynomial 0x1021, initial value 0xFFFF, most significant bit first.
    return crc_hqx(digits, 0xFFFF)


def format_offset(offset: int) -> bytes:
    """The 37 bytes of an offset file. The CRC-16 of the digits is spelled in blanks, which Go trims.

    Raises ValueError if `offset` is not within 0 and 2**63 - 1.
    """
    if not 0 <= offset <= MAX_OFFSET:
        raise ValueError(f"not an offset: {offset}")
    digits = b"%020d" % offset
    return digits + f"{_check_of(digits):016b}".translate(_BLANKS_OF_BITS).encode() + b"\n"


def parse_offset(data: bytes) -> ParsedOffset:
    """Read the content of an offset file, ours (by its length) or Go's."""
    if len(data) == OFFSET_FILE_BYTES:
        return _parse_ours(data)
    text = data.strip()
    if _GO.fullmatch(text) is None:
        return ParsedOffset(0, False, f"not a number: {data[:40]!r}" if text else "empty")
    # A few thousand digits are an error of int() of its own.
    value = int(text) if len(text) <= 100 else MAX_OFFSET + 1
    if value > MAX_OFFSET:
        return ParsedOffset(0, False, f"beyond {MAX_OFFSET}: {data[:40]!r}")
    if value < 0:
        return ParsedOffset(0, False, f"below 0: {value}")
    return ParsedOffset(value, False, None)


def _parse_ours(data: bytes) -> ParsedOffset:
    match = _OURS.fullmatch(data)
    if match is None:
        return ParsedOffset(0, True, f"not 20 digits, 16 blanks and a newline: {data!r}")
    digits, blanks = match.groups()
    if int(blanks.translate(_BITS_OF_BLANKS), 2) != _check_of(digits):
        return ParsedOffset(0, True, f"its check does not fit its digits {digits.decode()}")
    value = int(digits)
    return ParsedOffset(value, True, None) if value <= MAX_OFFSET else ParsedOffset(0, True, f"beyond {MAX_OFFSET}")


def read_offset(path: Path) -> ParsedOffset | None:
    """Read an offset file; None if there is none. Whatever else is wrong with it is in the result, never raised."""
    try:
        return load_offset(path)
    except OSError as error:
        return ParsedOffset(0, False, f"cannot be read: {error.strerror}")


def load_offset(path: Path) -> ParsedOffset | None:
    """As `read_offset`, for who would take a wrong step if it counted as 0.

    Raises `OSError` where a failing disk or the want of descriptors is at fault: another time it can be read.
    """
    try:
        found = parse_offset(read_start(path))
        for _ in range(_LOOKS - 1):
            if not (found.ours and found.damaged):
                break
            # The writer overwrites it in place, and a look may catch both halves.
            found = parse_offset(read_start(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in disk.WAIT_ERRNOS:
            raise
        return ParsedOffset(0, False, f"cannot be read: {error.strerror}")
    return found


def read_start(path: Path) -> bytes:
    """What a small file says. Raises OSError."""
    # Not to hang on a named pipe.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.pread(fd, _READ_BYTES, 0)
    finally:
        os.close(fd)


def list_offsets(
    directory: Path, read: Callable[[Path], ParsedOffset | None] = read_offset
) -> list[tuple[str, ParsedOffset]]:
    """Every offset file of one channel, sorted: (its name without `.offset`, what it says). Names follow no rule here.

    ``read`` may be `load_offset`. Raises OSError if the directory is there and cannot be listed: then nothing is known
    of who needs what.
    """
    found = []
    for name in list_names(directory):
        if name.endswith(OFFSET_SUFFIX):
            parsed = read(directory / name)
            if parsed is not None:
                found.append((name.removesuffix(OFFSET_SUFFIX), parsed))
    return found


def list_names(directory: Path) -> list[str]:
    """What lies in one channel's folder of offsets, sorted; [] if there is none. Raises OSError as `list_offsets`."""
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
