"""Scenarios of their own: what a catalogue of faults does not come to."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from keyop import Messenger
from keyop.errors import DataDirectoryError, KeyopError, PublishTimeout
from keyop.writer.process import DRAIN_S, EXIT_CANNOT_START, EXIT_UNDRAINED
from torturing.faults.catalogue import JOURNAL, SEGMENTS
from torturing.faults.rules import CHANGES, GROWS, Rule
from torturing.faults.stage import Stage
from torturing.workload import TYPE, payload

_SOME = 20
_FEW = 3
_SLOW_S = 10.0
# How much later than its limit something may come on a slow machine.
_LATE_S = 3.0
_FULL = Rule(GROWS, errno="ENOSPC")


def names_that_a_killed_writer_made(stage: Stage) -> None:
    """Killed before its first checkpoint: nobody has synced the names of its channels, segments and offset files."""
    stage.start_writer()
    stage.start_crew()
    for _ in range(2):
        stage.crew.progress(_FEW)
        stage.kill_writer()
        stage.start_writer()
        stage.check_cut("behind a recovery")
    stage.crew.progress(_FEW)
    stage.finish()


def a_slow_sync(stage: Stage) -> None:
    """It takes ten seconds. A publish with a time limit keeps to it, the writer is not taken for dead, all go on."""
    stage.start_writer()
    stage.start_crew()
    settings = stage.plan.settings(str(stage.directory))
    with Messenger(settings) as messenger:
        stage.fail(Rule(("sync",), JOURNAL, times=1, wait_s=_SLOW_S))
        stage.hit()
        began_s = time.monotonic()
        try:
            messenger.publish("in", payload("probe", 0, 0, ""), payload_type=TYPE, timeout=1.0, sync=True)
        except PublishTimeout:
            took_s = time.monotonic() - began_s
            stage.expect(took_s < 1.0 + _LATE_S, "hang", f"a publish with a limit of 1 s took {took_s:.1f} s")
        else:
            stage.say("unsafe", "a synced publish returned while the sync was under way")
        stage.expect(stage.status().running, "unsaid", "`keyop status` says that no writer runs")
        stage.check_cut("meanwhile")
        stage.crew.progress(_FEW)
        took_s = time.monotonic() - began_s
        stage.expect(took_s < _SLOW_S + _LATE_S, "hang", f"a sync of {_SLOW_S:.0f} s held up others for {took_s:.0f} s")
        stage.expect(not stage.heard_so_far("stalled"), "unsaid", "a slow sync is no failing one")
    stage.expect_alive()
    stage.finish()


def told_to_leave_while_the_disk_is_full(stage: Stage) -> None:
    """It keeps to its time, says that it leaves work behind, and the next one does that."""
    _told_to_leave(stage, Rule(GROWS, errno="ENOSPC"), ended=True)


def told_to_leave_in_a_sync_that_hangs(stage: Stage) -> None:
    """As far as the kernel lets a process go that waits for its disk."""
    _told_to_leave(stage, Rule(("sync",), JOURNAL, wait_s=600.0), ended=False)


def _told_to_leave(stage: Stage, rule: Rule, *, ended: bool) -> None:
    writer = stage.start_writer()
    stage.start_crew()
    stage.fail(rule)
    stage.hit()
    if ended:
        stage.heard("stalled")
    began_s = time.monotonic()
    writer.process.send_signal(signal.SIGTERM)
    writer.wait_for("left_journal_live", DRAIN_S + _LATE_S)
    took_s = time.monotonic() - began_s
    stage.expect(took_s < DRAIN_S + _LATE_S, "hang", f"a writer that was told to leave took {took_s:.1f} s")
    stage.expect(stage.status().state != "open", "unsaid", "`keyop status` says open of a writer that has left")
    if not ended:
        stage.heal()
    code = writer.end(_LATE_S)
    stage.expect(code == EXIT_UNDRAINED, "exit code", f"{code} instead of {EXIT_UNDRAINED}")
    stage.check_cut("behind it")
    stage.heal()
    stage.start_writer()
    stage.crew.progress(_FEW)
    stage.finish()


def nobody_can_attach(stage: Stage) -> None:
    """An error of the library says why, soon; when the disk is well again, the same call succeeds."""
    stage.start_writer()
    stage.start_crew()
    settings = stage.plan.settings(str(stage.directory))
    for rule in (
        Rule(("create",), ("data/run/*",), "ENOSPC"),
        Rule(("rename",), ("data/run/*",), "EIO"),
        Rule(("write",), ("data/run/*",), "EIO"),
        Rule(("open", "create"), ("data/run/*",), "EMFILE"),
        Rule(CHANGES, ("*",), "EROFS"),
    ):
        stage.fail(rule)
        began_s = time.monotonic()
        try:
            Messenger(settings).close()
        except KeyopError as error:
            stage.expect(isinstance(error, DataDirectoryError), "unsaid", f"{rule}: {error!r}")
        else:
            stage.say("unsaid", f"attached in spite of {rule}")
        stage.expect(time.monotonic() - began_s < _LATE_S, "hang", f"attaching took long with {rule}")
        stage.heal()
        Messenger(settings).close()
    stage.expect_alive()
    stage.crew.progress(_FEW)
    stage.finish()


def a_first_start_without_room(stage: Stage) -> None:
    """Nothing can be made. Writer and publisher say so; what is half made is no obstacle later."""
    settings = stage.plan.settings(str(stage.directory))
    for passing in range(0, 16, 3):
        stage.fail(Rule(GROWS, errno="ENOSPC", skip=passing))
        writer = stage.start_writer(wait=False)
        said = writer.wait_for_any(("open", "stalled", "cannot_start"))["event"]
        if said == "cannot_start":
            code = writer.end()
            stage.expect(code == EXIT_CANNOT_START, "exit code", f"{code}: {writer.records}")
        else:
            writer.kill()
        try:
            Messenger(settings).close()
        except KeyopError:
            pass
        stage.heal()
    stage.start_writer()
    stage.start_crew()
    stage.crew.progress(_SOME)
    stage.finish()


def a_reader_where_the_cache_was_dropped(stage: Stage) -> None:
    """It reads what a failed sync has lost before the writer could write it again: zeros in the middle of a channel."""
    stage.start_writer()
    stage.start_crew()
    stage.crew.progress(_SOME)
    for name in ("plain", "chain", "end"):
        stage.crew.kill(name)
    stage.crew.progress(_SOME)
    sync = Rule(("sync",), SEGMENTS, "EIO", drop=True)
    stage.fail(sync)
    stage.hit()
    stage.fail(sync, Rule(("write",), SEGMENTS, "EIO"))
    stage.disk.control.evict()
    for name in ("plain", "chain", "end"):
        stage.crew.revive(name)
    stage.hit(_FEW)  # for a while
    stage.heal()
    stage.crew.until_ready("plain", "chain", "end")
    stage.crew.progress(_FEW)
    stage.finish()


Situation = Callable[[Stage], None]

QUICK: tuple[Situation, ...] = (
    names_that_a_killed_writer_made,
    nobody_can_attach,
    a_first_start_without_room,
    a_reader_where_the_cache_was_dropped,
)
SLOW: tuple[Situation, ...] = (
    a_slow_sync,
    told_to_leave_while_the_disk_is_full,
    told_to_leave_in_a_sync_that_hangs,
)
"""They wait for limits of ten seconds."""
STRICT_ONLY = SLOW[1:]
"""A periodic publisher would wait no longer than that for a writer to come, and end with an error."""
