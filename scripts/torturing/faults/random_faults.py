"""Any faults at any operations, one after the other, under the whole workload; sometimes with a kill."""

from __future__ import annotations

import random

from torturing.faults.catalogue import JOURNAL, OFFSETS, RUN, SEGMENTS, SPILLS
from torturing.faults.rules import CHANGES, GROWS, Rule
from torturing.faults.stage import Stage
from torturing.workload import Plan

_PLACES = (
    *(JOURNAL, SEGMENTS, OFFSETS, SPILLS, RUN),
    *(("data/channels/*",), ("data/journal/*",), ("data/channels/*", "data/journal/*", "data/subscribers/*"), ("*",)),
)
# Each with the errors that such an operation may come to.
_OPERATIONS = (
    (("write",), ("EIO", "ENOSPC", "EDQUOT")),
    (("sync",), ("EIO", "EIO", "EIO", "ENOSPC", "EDQUOT")),
    (("sync_directory",), ("EIO",)),
    (("create",), ("ENOSPC", "EDQUOT", "EMFILE")),
    (("open",), ("EIO", "EMFILE", "ENFILE")),
    (("read",), ("EIO",)),
    (("list", "stat"), ("EIO", "EMFILE")),
    (("unlink", "rename"), ("EIO", "ENOSPC")),
    (GROWS, ("ENOSPC", "EDQUOT")),
    (CHANGES, ("EROFS", "EIO")),
)
_ROUNDS = 6
_LONG_S = 0.5


def random_rule(dice: random.Random) -> Rule:
    """Some operations in some place fail in some way, once, a few times, or until all is well again."""
    operations, errors = dice.choice(_OPERATIONS)
    slow = dice.random() < 0.1
    return Rule(
        operations,
        dice.choice(_PLACES),
        errno="" if slow else dice.choice(errors),
        times=dice.choice((1, 2, 5, 30, None)),
        skip=dice.choice((0, 0, 1, 7)),
        drop=dice.random() < 0.7,
        wait_s=dice.random() * 0.2 if slow else 0.0,
        short=not slow and "write" in operations and dice.random() < 0.3,
    )


def random_plan(dice: random.Random) -> Plan:
    """How the crew works meanwhile."""
    return Plan(
        sync_interval_ms=dice.choice((0, 50)),
        journal_mb=dice.choice((0.0625, 0.0625, 1)),
        publishers=dice.choice((1, 2, 3)),
        big=dice.choice((0.01, 0.1)),
    )


def play_at_random(stage: Stage, dice: random.Random) -> None:
    """The dice decide what fails, how long, whether the cache is dropped, who is killed, when the power goes."""
    stage.start_writer()
    stage.start_crew()
    for _ in range(_ROUNDS):
        rules = [random_rule(dice) for _ in range(dice.choice((1, 1, 2, 3)))]
        stage.fail(*rules)
        # Whether they are met at all is up to the dice as well.
        stage.disk.control.wait_for_hits(dice.choice((1, 3, 10)), _LONG_S)
        if dice.random() < 0.3:
            stage.disk.control.evict()
        killed = dice.choice(("", "", "", "writer", "plain", "chain", "end", "p1"))
        if killed == "writer":
            stage.kill_writer()
        elif killed:
            stage.crew.kill(killed)
        if dice.random() < 0.5:
            stage.check_cut("meanwhile")
        stage.heal()
        if killed == "writer":
            stage.start_writer()
        elif killed:
            stage.crew.revive(killed)
            stage.crew.until_ready(killed)  # with a failing disk it may not attach, which is no fault of its
        stage.expect_alive()
        stage.until(lambda: stage.status().state == "open", "open again")
        stage.crew.progress(dice.choice((1, 5, 20)))
        if dice.random() < 0.3:
            stage.check_cut("afterwards")
        if stage.violations:
            return
    stage.finish()
