"""Faults in every place where one matters: which operation fails how, and what the writer does meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torturing.faults.rules import CHANGES, GROWS, Rule
from torturing.workload import Plan

JOURNAL = ("data/journal/?.journal",)
SEGMENTS = ("data/channels/*.jsonl",)
OFFSETS = ("data/subscribers/*",)
SPILLS = ("data/journal/spill/*",)
RUN = ("data/run/*",)


_PLAN = Plan()


@dataclass(frozen=True)
class Fault:
    """One fault under the whole workload, in strict and in periodic mode."""

    name: str
    rules: tuple[Rule, ...]
    stalls: str = ""
    """What the writer says it waits for, until the fault goes away; nothing: it goes on meanwhile."""
    early: bool = False
    """The fault is there before the first process attaches."""
    evict: bool = False
    """The cache is dropped while the fault lasts: what a failed sync lost reads as the device has it."""
    plan: Plan = _PLAN
    hits: int = 1
    """So many operations have to fail before it goes away."""

    @property
    def passes(self) -> bool:
        """Whether the disk is well again by itself."""
        return all(rule.times is not None or rule.every_other or rule.short for rule in self.rules)

    @property
    def all_along(self) -> bool:
        """Whether one can work with it, from the beginning to the end."""
        return all(rule.every_other or rule.short for rule in self.rules)

    def in_mode(self, sync_interval_ms: int) -> Plan:
        """The plan with the mode in it."""
        return replace(self.plan, sync_interval_ms=sync_interval_ms)


def _fault(name: str, operations: tuple[str, ...], paths: tuple[str, ...], errno: str, **more: object) -> Fault:
    about_rule = {
        key: more.pop(key) for key in ("times", "skip", "every_other", "drop", "short", "wait_s") if key in more
    }
    return Fault(name, (Rule(operations, paths, errno, **about_rule),), **more)  # type: ignore[arg-type]


_BIG = Plan(big=0.2)
# No checkpoint comes for a while: what was acknowledged stands in the journal alone.
_ROOMY = Plan(journal_mb=1)
# Not what `keyop status` reads: that is another process.
_NO_DESCRIPTORS = ("data/channels/*", "data/subscribers/*", "data/journal/spill/*")
# The files of the journal begin with 1 MiB and double while they fill quickly.
_GROWING = Plan(journal_mb=4, segment_mb=1, big=0.3, pause_s=0)

FAULTS = (
    # ---- the journal
    _fault("journal-write-eio", ("write",), JOURNAL, "EIO", stalls="journal"),
    _fault("journal-write-eio-once", ("write",), JOURNAL, "EIO", times=1),
    _fault("journal-write-short", ("write",), JOURNAL, "", short=True, hits=20),
    Fault(
        "journal-write-short-then-eio",
        (Rule(("write",), JOURNAL, short=True, times=1), Rule(("write",), JOURNAL, "EIO")),
        stalls="journal",
        hits=2,
    ),
    _fault("journal-sync-eio-once", ("sync",), JOURNAL, "EIO", times=1),
    _fault("journal-sync-drops-once", ("sync",), JOURNAL, "EIO", times=1, drop=True),
    _fault("journal-sync-drops-once-roomy", ("sync",), JOURNAL, "EIO", times=1, drop=True, plan=_ROOMY),
    _fault("journal-sync-drops", ("sync",), JOURNAL, "EIO", drop=True, stalls="journal"),
    _fault("journal-sync-drops-evicted", ("sync",), JOURNAL, "EIO", drop=True, stalls="journal", evict=True),
    _fault("journal-sync-enospc", ("sync",), JOURNAL, "ENOSPC", drop=True, stalls="journal"),
    _fault("journal-growth-enospc", ("extend",), JOURNAL, "ENOSPC", plan=_GROWING),
    _fault("journal-growth-sync", ("sync",), JOURNAL, "EIO", times=3, drop=True, plan=_GROWING, hits=3),
    # ---- segments
    _fault("segment-write-eio", ("write",), SEGMENTS, "EIO", stalls="segment"),
    _fault("segment-write-enospc", ("extend",), SEGMENTS, "ENOSPC", stalls="segment"),
    _fault("segment-write-short", ("write",), SEGMENTS, "", short=True, hits=20),
    Fault(
        "segment-write-short-then-enospc",
        (Rule(("write",), SEGMENTS, short=True, times=1), Rule(("extend",), SEGMENTS, "ENOSPC")),
        stalls="segment",
        hits=2,
    ),
    _fault("segment-sync-eio-once", ("sync",), SEGMENTS, "EIO", times=1),
    _fault("segment-sync-drops-once", ("sync",), SEGMENTS, "EIO", times=1, drop=True),
    _fault("segment-sync-drops", ("sync",), SEGMENTS, "EIO", drop=True, stalls="checkpoint"),
    _fault("segment-sync-drops-evicted", ("sync",), SEGMENTS, "EIO", drop=True, stalls="checkpoint", evict=True),
    _fault("segment-create-enospc", ("create",), SEGMENTS, "ENOSPC", stalls="segment"),
    _fault("segment-open-emfile", ("open",), SEGMENTS, "EMFILE", stalls="segment"),
    _fault("segment-names-eio", ("sync_directory",), ("data/channels/*",), "EIO", stalls="segment"),
    _fault("channel-mkdir-enospc", ("mkdir",), ("data/channels/*",), "ENOSPC", stalls="channel", early=True),
    _fault("channel-create-enospc", ("create",), SEGMENTS, "ENOSPC", stalls="channel", early=True),
    _fault("channel-list-emfile", ("list",), ("data/channels/*",), "EMFILE", stalls="channel", early=True),
    # ---- offset files
    _fault("offset-write-eio", ("write",), OFFSETS, "EIO", stalls="offsets"),
    _fault("offset-write-short", ("write",), OFFSETS, "", short=True, hits=5),
    _fault("offset-sync-drops-once", ("sync",), OFFSETS, "EIO", times=1, drop=True),
    _fault("offset-sync-drops-evicted", ("sync",), OFFSETS, "EIO", drop=True, stalls="checkpoint", evict=True),
    _fault("offset-names-eio", ("sync_directory",), OFFSETS, "EIO", stalls="checkpoint", early=True),
    _fault("offset-mkdir-enospc", ("mkdir",), OFFSETS, "ENOSPC", stalls="offsets", early=True),
    _fault("offset-create-enospc", ("create",), OFFSETS, "ENOSPC", stalls="offsets", early=True),
    _fault("offset-rename-enospc", ("rename",), OFFSETS, "ENOSPC", stalls="offsets", early=True),
    _fault("offset-open-emfile", ("open",), OFFSETS, "EMFILE", stalls="*"),
    # ---- spill files: their publishers wait, or the writer does
    _fault("spill-create-enospc", ("create",), SPILLS, "ENOSPC", plan=_BIG, times=5, hits=5),
    _fault("spill-write-eio", ("write",), SPILLS, "EIO", plan=_BIG, times=5, hits=5),
    _fault("spill-write-short", ("write",), SPILLS, "", short=True, plan=_BIG, hits=5),
    _fault("spill-sync-drops", ("sync",), SPILLS, "EIO", plan=_BIG, times=5, drop=True, hits=5),
    _fault("spill-erofs", CHANGES, SPILLS, "EROFS", plan=_BIG, times=9, hits=9),
    _fault("spill-read-eio", ("read",), SPILLS, "EIO", plan=_BIG, stalls="channel"),
    _fault("spill-unlink-eio", ("unlink",), SPILLS, "EIO", plan=_BIG, times=5, hits=5),
    # ---- leases and ids
    _fault("run-list-emfile", ("list",), ("data/run",), "EMFILE", hits=3, times=3),
    _fault("run-open-emfile", ("open",), RUN, "EMFILE", hits=10, times=10),
    _fault("run-stat-eio", ("stat",), (*RUN, "data/run"), "EIO", hits=5, times=5),
    # ---- reading
    _fault("segment-read-eio", ("read",), SEGMENTS, "EIO", hits=10, times=10),
    # ---- each sync fails once, and then succeeds without having written anything
    _fault("journal-syncs-drop-first", ("sync",), JOURNAL, "EIO", drop=True, every_other=True, hits=5),
    _fault("segment-syncs-drop-first", ("sync",), SEGMENTS, "EIO", drop=True, every_other=True, hits=5),
    _fault("offset-syncs-drop-first", ("sync",), OFFSETS, "EIO", drop=True, every_other=True, hits=5),
    _fault("all-syncs-drop-first", ("sync",), ("data/*",), "EIO", drop=True, every_other=True, hits=5),
    # ---- everything
    _fault("disk-full", GROWS, ("*",), "ENOSPC", stalls="*"),
    _fault("disk-full-early", GROWS, ("data/channels/*", "data/subscribers/*"), "ENOSPC", stalls="*", early=True),
    _fault("quota", GROWS, ("*",), "EDQUOT", stalls="*"),
    _fault("read-only", CHANGES, ("*",), "EROFS", stalls="*"),
    _fault("no-descriptors", ("open", "create", "list"), _NO_DESCRIPTORS, "EMFILE", stalls="*"),
    _fault("all-syncs-drop", ("sync",), ("*",), "EIO", drop=True, stalls="*", evict=True),
    _fault("everything-eio", CHANGES, ("data/channels/*", "data/journal/*", "data/subscribers/*"), "EIO", stalls="*"),
)
