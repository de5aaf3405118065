"""Rules: which operation of the layer fails, and how."""

from __future__ import annotations

import errno
import os
import threading
import time
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

OPERATIONS = (
    *("open", "open_to_write", "create", "read", "write", "extend", "truncate", "sync", "sync_directory"),
    *("mkdir", "unlink", "rmdir", "rename", "list", "stat", "attributes"),
)
"""By these names rules speak of operations. A write that makes its file longer is "extend" as well as "write"."""

CHANGES = ("open_to_write", "create", "write", "truncate", "sync", "sync_directory", "mkdir", "unlink", "rmdir")
CHANGES = (*CHANGES, "rename", "attributes")
"""Everything that a read-only file system refuses."""

GROWS = ("create", "extend", "mkdir", "rename")
"""Everything that a full disk refuses: bytes that have their blocks can be written again."""


@dataclass
class Rule:
    """One fault. Of several that match, the first that still has something to do acts, after the waits of those before.

    ``paths`` are patterns of paths below the mount, in which ``*`` stands for slashes as well.
    """

    operations: tuple[str, ...]
    paths: tuple[str, ...] = ("*",)
    errno: str = ""
    """Name of the error; none: the rule only waits, or cuts a write short."""
    times: int | None = None
    """How often; for ever without."""
    skip: int = 0
    """So many matching operations pass before the first one fails."""
    every_other: bool = False
    """Of those that would fail only the first, the third, the fifth do."""
    drop: bool = False
    """A failing sync drops the pages: the next one succeeds without them, and they can be read until `evict`."""
    short: bool = False
    """A write writes half, at least a byte."""
    wait_s: float = 0.0
    """The operation takes so long."""

    def __post_init__(self) -> None:
        self.operations, self.paths = tuple(self.operations), tuple(self.paths)
        unknown = set(self.operations) - set(OPERATIONS)
        if unknown or (self.errno and not hasattr(errno, self.errno)):
            raise ValueError(f"no such operation or error: {self}")

    def as_json(self) -> dict[str, Any]:
        """As `Rule(**...)` takes it."""
        return asdict(self)

    def matches(self, operations: tuple[str, ...], paths: tuple[str, ...]) -> bool:
        """Whether it speaks of this operation."""
        return any(name in self.operations for name in operations) and any(
            fnmatchcase(path, pattern) for path in paths for pattern in self.paths
        )


@dataclass
class _Counted:
    rule: Rule
    passed: int = 0
    let_pass: bool = False
    hits: int = 0


@dataclass
class Verdict:
    """What happens to one operation."""

    errno: int = 0
    drop: bool = False
    short: bool = False

    def check(self) -> None:
        """Raise the error, if there is one."""
        if self.errno:
            raise OSError(self.errno, os.strerror(self.errno))


@dataclass
class Rulebook:
    """The rules in force, and how often each was applied. Any thread may use it."""

    _rules: list[_Counted] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _edition: int = 0

    def replace(self, rules: list[Rule]) -> None:
        """From here on these; an operation that waits by an old one goes on."""
        with self._changed:
            self._rules = [_Counted(rule) for rule in rules]
            self._edition += 1
            self._changed.notify_all()

    def hits(self) -> list[int]:
        """How often each rule was applied."""
        with self._changed:
            return [counted.hits for counted in self._rules]

    def wait_for_hits(self, count: int, within_s: float) -> bool:
        """Wait until all rules together were applied so often; whether they were."""
        with self._changed:
            return self._changed.wait_for(lambda: sum(item.hits for item in self._rules) >= count, within_s)

    def judge(self, operations: tuple[str, ...], *paths: str) -> Verdict:
        """What happens to an operation; waits if it is to take long."""
        if not self._rules:
            return Verdict()
        with self._changed:
            for counted in self._rules:
                rule = counted.rule
                if not rule.matches(operations, paths) or (rule.times is not None and counted.hits >= rule.times):
                    continue
                if counted.passed < rule.skip:
                    counted.passed += 1
                    continue
                if rule.every_other:
                    counted.let_pass = not counted.let_pass
                    if not counted.let_pass:
                        continue
                counted.hits += 1
                self._changed.notify_all()
                if rule.wait_s:
                    self._wait(rule.wait_s)
                if rule.errno or rule.short:
                    return Verdict(getattr(errno, rule.errno) if rule.errno else 0, rule.drop, rule.short)
        return Verdict()

    def _wait(self, seconds: float) -> None:
        edition = self._edition
        end = time.monotonic() + seconds
        while self._edition == edition and (left := end - time.monotonic()) > 0:
            self._changed.wait(left)
