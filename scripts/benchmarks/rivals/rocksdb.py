"""RocksDB: a key for each message. One process only: it is a library that locks its directory."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.contender import Contender, Receiver, Sender, rival_line, rival_number, rival_payload


class _Store:
    def __init__(self, path: Path, strict: bool) -> None:
        import rocksdict

        self._rocksdict = rocksdict
        self.database = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
        self.how = rocksdict.WriteOptions()
        self.how.sync = strict

    def batch(self) -> Any:
        return self._rocksdict.WriteBatch(raw_mode=True)


def _key(channel: str, sequence: int) -> bytes:
    return channel.encode() + b"/" + sequence.to_bytes(8, "big")


class _Sender(Sender):
    def __init__(self, path: Path, strict: bool) -> None:
        self._store = _Store(path, strict)
        self._sequence = 0

    def send(self, channel: str, number: int) -> None:
        self._sequence += 1
        self._store.database.put(_key(channel, self._sequence), rival_line(number), self._store.how)

    def send_many(self, channel: str, first: int, count: int) -> None:
        batch = self._store.batch()
        for number in range(first, first + count):
            self._sequence += 1
            batch.put(_key(channel, self._sequence), rival_line(number))
        self._store.database.write(batch, self._store.how)

    def close(self) -> None:
        self._store.database.close()


class _Receiver(Receiver):
    def __init__(self, path: Path, strict: bool, channel: str) -> None:
        self._store = _Store(path, strict)
        self._channel = channel

    def take(self, count: int, handle: Callable[[Any], object]) -> None:
        rows = self._store.database.items(from_key=_key(self._channel, 0))
        for taken, (key, line) in enumerate(rows, 1):
            handle(line)
            if taken % 1000 == 0 or taken == count:
                self._store.database.put(b"offset/" + self._channel.encode(), key, self._store.how)
            if taken == count:
                return

    def number(self, message: Any) -> int:
        return rival_number(message)

    def payload(self, message: Any) -> Any:
        return rival_payload(message)

    def close(self) -> None:
        self._store.database.close()


class RocksDB(Contender):
    """`sync` in the write options when strict."""

    key = "rocksdb"
    label = "RocksDB"
    shared = False
    receives = False

    def absent(self) -> str | None:
        return None if find_spec("rocksdict") else "the Python package rocksdict is not installed"

    def start(self, place: Path, strict: bool) -> None:
        self._path = place / "rocks"
        self._strict = strict

    def sender(self, channels: list[str]) -> Sender:
        return _Sender(self._path, self._strict)

    def receiver(self, channel: str) -> Receiver:
        return _Receiver(self._path, self._strict, channel)
