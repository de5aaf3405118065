"""The names of a peer's positions: ``subscribers/{channel}/fed-{peer}.offset`` and ``fedout-{hub}.offset``.

They are the Go program's names, so that either program goes on where the other one stopped.
"""

from __future__ import annotations

import json
import os
import re
from _blake2 import blake2b  # `hashlib` would load OpenSSL's, too
from pathlib import Path

HUB_PREFIX = "fed-"
CLIENT_PREFIX = "fedout-"
# What a file name may have, less its ending.
_MAX_ID_BYTES = 248
_HASH_BYTES = 8
_foreign = re.compile(rb"[^A-Za-z0-9._-]")


def sanitised(name: str) -> str:
    """A peer's name as part of a file's name: every byte that is not A-Z a-z 0-9 . _ - becomes ``_``."""
    return _foreign.sub(b"_", _raw(name)).decode()


class PositionNames:
    """Gives each peer a name of its own, also where two names are the same once sanitised."""

    def __init__(self, run: Path, prefix: str) -> None:
        """``run``: the directory ``run/``, where the owners of the names are noted. One process has a prefix."""
        self.prefix = prefix
        self._path = run / f"{prefix}names.json"
        self._owners = self._read()

    def _read(self) -> dict[str, str]:
        try:
            owners = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return {id: raw for id, raw in owners.items() if isinstance(raw, str)} if isinstance(owners, dict) else {}

    def id_of(self, name: str) -> str:
        """The subscriber id of a peer's positions. Raises `OSError` if its owner cannot be noted."""
        id = _cut(self.prefix + sanitised(name), name)
        if self._owners.get(id, name) != name:
            # Another one that looks the same came first.
            id = _cut(f"{self.prefix}{sanitised(name)}-{_hash(name)}", name)
        if id not in self._owners:
            self._write({**self._owners, id: name})
        return id

    def forget(self, id: str) -> None:
        """Its files are gone: the name is free. Raises `OSError`."""
        if id in self._owners:
            self._write({other: name for other, name in self._owners.items() if other != id})

    def _write(self, owners: dict[str, str]) -> None:
        """Synced: if a power cut took it, of two names that look the same either might get the other's position."""
        draft = self._path.with_name(f".{self._path.name}.new")
        with draft.open("w") as file:
            file.write(json.dumps(owners, indent=1, sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        self._owners = owners


def _cut(id: str, name: str) -> str:
    if len(id) <= _MAX_ID_BYTES:
        return id
    return f"{id[: _MAX_ID_BYTES - 2 * _HASH_BYTES - 1]}-{_hash(name)}"


def _hash(name: str) -> str:
    return blake2b(_raw(name), digest_size=_HASH_BYTES).hexdigest()


def _raw(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
