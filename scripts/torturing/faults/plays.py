"""What is played on a stage: a fault of the catalogue, or a scenario of its own."""

from __future__ import annotations

import errno
import os

from torturing.faults.catalogue import Fault
from torturing.faults.stage import Stage

_AS_OFTEN = 5


def play(stage: Stage, fault: Fault) -> None:
    """The fault comes, stays a while and goes, under the whole workload."""
    stage.start_writer()
    if not fault.early:
        stage.start_crew()
        stage.crew.progress(20)
    stage.fail(*fault.rules)
    if fault.early:
        stage.start_crew(wait=False)
    if not stage.hit(fault.hits):
        return
    if fault.stalls:
        _see_it_stalled(stage, fault)
    if fault.evict:
        stage.disk.control.evict()
    stage.expect_alive()
    stage.check_cut("meanwhile")
    stage.heal()
    stage.until(lambda: stage.status().state == "open", "open again")
    stage.crew.progress(_AS_OFTEN)
    stage.expect_alive()
    stage.check_cut("afterwards")
    stage.finish()


def _see_it_stalled(stage: Stage, fault: Fault) -> None:
    """Log, board and ``keyop status`` say so, and why."""
    why = {os.strerror(getattr(errno, rule.errno)) for rule in fault.rules if rule.errno}
    source = {} if fault.stalls == "*" else {"what": fault.stalls}
    record = stage.heard("stalled", **source)
    stage.expect(record["why"] in why, "unsaid", f"the log says {record}")
    stage.until(lambda: stage.status().state == "stalled", "`keyop status` says stalled")
    said = stage.status().stalled
    stage.expect(said in why, "unsaid", f"`keyop status` says {said!r} instead of {why}")
