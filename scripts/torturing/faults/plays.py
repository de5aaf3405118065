"""What is played with each fault of the catalogue, under the whole workload."""

from __future__ import annotations

import errno
import os

from keyop.writer.process import EXIT_BUSY, EXIT_CANNOT_START
from torturing.faults.catalogue import Fault
from torturing.faults.stage import Stage

_SOME = 20
_AGAIN = 5


def play(stage: Stage, fault: Fault) -> None:
    """It comes, stays a while, and goes."""
    if not _begin(stage, fault):
        return
    stage.expect_alive()
    stage.check_cut("meanwhile")
    stage.heal()
    stage.until(lambda: stage.status().state == "open", "open again")
    stage.crew.progress(_AGAIN)
    stage.expect_alive()
    stage.check_cut("afterwards")
    stage.finish()


def play_with_kill(stage: Stage, fault: Fault) -> None:
    """While it lasts the writer is killed, and the next one starts with it. Then it goes."""
    if not _begin(stage, fault):
        return
    stage.kill_writer()
    writer = stage.start_writer(wait=False)
    said = writer.wait_for_any(("open", "stalled", "cannot_start", "busy"))["event"]
    stage.check_cut("under the next one")
    stage.heal()
    if said == "stalled":
        writer.wait_until_open()
    elif said != "open":
        # It could not lock the directory, or an attached process was quicker. A supervisor starts it again.
        code = writer.end()
        stage.expect(code in (EXIT_CANNOT_START, EXIT_BUSY), "exit code", f"{code}: {writer.records}")
        stage.start_writer()
    stage.crew.progress(_AGAIN)
    stage.expect_alive()
    stage.check_cut("afterwards")
    stage.finish()


def play_at_the_end(stage: Stage, fault: Fault) -> None:
    """It comes when the writer stops, and brings everything to its place for the last time."""
    stage.start_writer()
    stage.start_crew()
    stage.crew.progress(_SOME)
    stage.finish(*fault.rules)


def play_all_along(stage: Stage, fault: Fault) -> None:
    """It is always there."""
    stage.start_writer()
    stage.fail(*fault.rules)
    stage.start_crew()
    stage.crew.progress(_SOME)
    stage.hit(fault.hits)
    stage.check_cut("meanwhile")
    stage.finish(*fault.rules)


def _begin(stage: Stage, fault: Fault) -> bool:
    """Up to where it lasts; whether it came to that."""
    stage.start_writer()
    if not fault.early:
        stage.start_crew()
        stage.crew.progress(_SOME)
    stage.fail(*fault.rules)
    if fault.early:
        stage.start_crew(wait=False)
    if not stage.hit(fault.hits):
        return False
    if fault.stalls:
        _see_it_stalled(stage, fault)
    if fault.evict:
        stage.disk.control.evict()
    return True


def _see_it_stalled(stage: Stage, fault: Fault) -> None:
    """Log, board and ``keyop status`` say so, and why."""
    why = {os.strerror(getattr(errno, rule.errno)) for rule in fault.rules if rule.errno}
    source = {} if fault.stalls == "*" else {"what": fault.stalls}
    record = stage.heard("stalled", **source)
    stage.expect(record["why"] in why, "unsaid", f"the log says {record}")
    stage.until(lambda: stage.status().state == "stalled", "`keyop status` says stalled")
    said = stage.status().stalled
    stage.expect(said in why, "unsaid", f"`keyop status` says {said!r} instead of {why}")
