"""One look a second, for all browsers: whole, and as what has changed since the look before."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from keyop.live.sampler import Sampler
from keyop.live.snapshot import Snapshot, View

_log = logging.getLogger("keyop.dashboard")

_KEYS: dict[str, Callable[[Any], str]] = {
    "channels": lambda row: str(row.channel),
    "subscribers": lambda row: f"{row.channel}/{row.id}",
    "peers": lambda row: f"{row.role} {row.name} {row.address}",
    "processes": lambda row: f"{row.role} {row.pid} {row.work}",
}


class Picture:
    """One look, in the two forms that browsers are sent. Each is made once, if somebody needs it."""

    def __init__(self, number: int, before: Snapshot | None, snapshot: Snapshot) -> None:
        self.number = number
        self._before = before
        self._snapshot = snapshot

    @cached_property
    def whole(self) -> str:
        """For who has not seen the one before."""
        snapshot = self._snapshot
        found = snapshot.to_json()
        for table, key in _KEYS.items():
            for row, view in zip(found[table], getattr(snapshot, table), strict=True):
                row["key"] = key(view)
        return _encode({"full": found})

    @cached_property
    def changes(self) -> str:
        """For who has."""
        before, snapshot = self._before, self._snapshot
        assert before is not None
        found: dict[str, Any] = {
            "taken_unix_s": snapshot.taken_unix_s,
            "elapsed_s": snapshot.elapsed_s,
            "trouble": snapshot.trouble,
            "writer": snapshot.writer.to_json(),
        }
        for table, key in _KEYS.items():
            found[table] = _table_changes(getattr(before, table), getattr(snapshot, table), key)
        return _encode({"changed": found})


def _table_changes(before: Sequence[View], after: Sequence[View], key: Callable[[Any], str]) -> dict[str, Any]:
    old = {key(row): row for row in before}
    rows = []
    for row in after:
        name = key(row)
        known = old.pop(name, None)
        if known is row:
            continue
        now = _without_history(row)
        if known is None or now != _without_history(known):
            rows.append({"key": name, **now})
    return {"rows": rows, "gone": list(old)}


def _without_history(row: View) -> dict[str, Any]:
    """The browser adds each look's rate itself."""
    found = row.to_json()
    found.pop("history", None)
    return found


def _encode(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


class Pictures:
    """Looks as long as somebody looks on; nobody looking costs nothing."""

    def __init__(self, new_sampler: Callable[[], Sampler], interval_s: float) -> None:
        self._new_sampler = new_sampler
        self._interval_s = interval_s
        self._viewers = 0
        self._latest: Picture | None = None
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    def enter(self) -> None:
        """Somebody looks on."""
        self._viewers += 1
        if self._task is None or self._task.done():
            self._latest = None
            self._task = asyncio.create_task(self._look_on())

    def leave(self) -> None:
        """Somebody has gone."""
        self._viewers -= 1

    async def after(self, number: int) -> Picture:
        """The newest picture, as soon as it is not this one. Who is slow misses those in between."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._latest is not None and self._latest.number != number)
            assert self._latest is not None
            return self._latest

    async def _look_on(self) -> None:
        sampler = self._new_sampler()
        snapshot: Snapshot | None = None
        number = 0
        loop = asyncio.get_running_loop()
        try:
            while self._viewers:
                next_s = loop.time() + self._interval_s
                before = snapshot
                try:
                    snapshot = await asyncio.to_thread(sampler.look)
                except Exception:  # the next one may succeed, and everybody waits for it
                    _log.exception("a look failed")
                else:
                    number += 1
                    async with self._changed:
                        self._latest = Picture(number, before, snapshot)
                        self._changed.notify_all()
                await asyncio.sleep(max(0.0, next_s - loop.time()))
        finally:
            sampler.close()

    async def close(self) -> None:
        """No more looks."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
