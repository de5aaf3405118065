"""The names of a peer's positions: ``subscribers/{channel}/fed-{peer}.offset`` and ``fedout-{hub}.offset``.

They are the Go program's names, so that either program goes on where the other one stopped.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from zlib import crc32

HUB_PREFIX = "fed-"
CLIENT_PREFIX = "fedout-"
# What a file name may have, less its ending.
_MAX_ID_BYTES = 248
_HASH_DIGITS = 16
_foreign = re.compile(rb"[^A-Za-z0-9._-]")


def sanitised(name: str) -> str:
    """A peer's name as part of a file's name: every byte that is not A-Z a-z 0-9 . _ - becomes ``_``."""
    return _foreign.sub(b"_", name.encode("utf-8", "surrogateescape")).decode()


class PositionNames:
    """Gives each peer a name of its own, also where two names are the same once sanitised."""

    def __init__(self, run: Path, prefix: str) -> None:
        """``run``: the directory ``run/``, where the owners of the names are noted. One process has a prefix."""
        self._prefix = prefix
        self._path = run / f"{prefix}names.json"
        self._owners: dict[str, str] = self._read()

    def _read(self) -> dict[str, str]:
        try:
            owners = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return {id: raw for id, raw in owners.items() if isinstance(raw, str)} if isinstance(owners, dict) else {}

    def id_of(self, name: str) -> str:
        """The subscriber id of a peer's positions. Raises `OSError` if its owner cannot be noted."""
        plain = _shortened(self._prefix + sanitised(name), name)
        owner = self._owners.get(plain, name)
        id = plain if owner == name else _shortened(f"{self._prefix}{sanitised(name)}-{_hash(name)}", name)
        if self._owners.get(id) != name:
            self._note(id, name)
        return id

    def _note(self, id: str, name: str) -> None:
        self._owners[id] = name
        draft = self._path.with_name(f".{self._path.name}.new")
        draft.write_text(json.dumps(self._owners, indent=1, sort_keys=True) + "\n")
        draft.replace(self._path)


def _shortened(id: str, name: str) -> str:
    if len(id) <= _MAX_ID_BYTES:
        return id
    return f"{id[: _MAX_ID_BYTES - _HASH_DIGITS - 1]}-{_hash(name)}"


def _hash(name: str) -> str:
    raw = name.encode("utf-8", "surrogateescape")
    return f"{crc32(raw):08x}{crc32(raw[::-1]):08x}"
