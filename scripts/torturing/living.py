"""One directory under kills: its crew, and who of it is killed when. Everything follows from a seed, but for time."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from torturing.crew import Crew
from torturing.findings import Violation
from torturing.invariants import check
from torturing.ledger import Ledger
from torturing.lives import FLAWS
from torturing.member import CrewError, OverdueError
from torturing.nursery import Nursery, NurseryError
from torturing.shared_memory import shared_memory
from torturing.steps import FIRST_STEPS, RECOVERY_STEPS, STEPS, UNAPPLIED_STEPS
from torturing.workload import SHARERS, Plan

_STEP_S = 0.3
_STEP_PATIENCE_S = 0.7
_TRIES = 5


class LivingDirectory:
    """One directory under kills."""

    def __init__(self, room: Path, nursery: Nursery, seed: int, number: int, flaw: str = "") -> None:
        self.kills: Counter[str] = Counter()
        self.at_steps: Counter[str] = Counter()
        self._chance = random.Random(f"{seed}/{number}")
        self._plan = replace(_plan(self._chance), flaw=flaw)
        if flaw:
            self._plan = replace(self._plan, **FLAWS[flaw].needs)
        (room / "plan.json").write_text(json.dumps(self._plan.as_dict(), indent=1))
        self._ledger = Ledger(room / "ledger")
        self._directory = room / "data"
        self._nursery = nursery
        self.crew = Crew(self._directory, self._ledger, self._plan, nursery, seed=f"{seed}/{number}")
        self._wanted = 0

    def run(self, kills: int) -> list[Violation]:
        """Kill so often, or a few times more; then let all come to its end, and check."""
        self._wanted = kills
        try:
            self._begin()
            since = 0
            while self.kills.total() < kills:
                before = self.kills.total()
                self._kill_somebody()
                since += self.kills.total() - before
                if since >= 20:
                    since = 0
                    self._see_that_it_works()
                    if self._plan.replays and "replay" not in self.crew.members:
                        self.crew.replay()
                    if self._plan.parts:
                        self._divide()
            self._see_that_it_works()
            self.crew.stop()
            found = check(self._directory, self._ledger, self._plan)
            return found + self._left_over()
        except CrewError as error:
            return [Violation("crash", str(error))]
        except (OverdueError, NurseryError) as error:
            return [Violation("hang", str(error))]
        finally:
            self.crew.abandon()

    def counts(self) -> Counter[str]:
        """For the report."""
        crew = self.crew
        return Counter(
            acknowledged=crew.acknowledged.total(),
            handled=crew.handled.total(),
            directories=1,
            **self.kills,
            **({"put back": crew.replayed} if crew.replayed else {}),
        )

    def _begin(self) -> None:
        """The crew starts; in some directories its first writer is killed where it makes the first files."""
        crash_at = ""
        if self._chance.random() < 0.5:
            crash_at = self._step(FIRST_STEPS)
        self.crew.start(crash_at)
        if crash_at:
            self._await_step(crash_at)
            self._new_writer()

    def _see_that_it_works(self) -> None:
        self._new_writer()
        self.crew.progress(2)

    # ---- who, and when

    def _kill_somebody(self) -> None:
        kind = self._chance.random()
        if kind < 0.28:
            self._moment()
            self._kill(self._chance.choice(self.crew.publishers))
        elif kind < 0.56:
            self._moment()
            self._kill_subscriber()
        elif kind < 0.66:
            self._moment()
            if self._chance.random() < 0.3:
                # It drains, syncs, frees the journal and says goodbye: a kill may come in the middle of that.
                self.crew.dismiss_writer()
                self._moment()
            self._kill_writer()
            if self._chance.random() < 0.95:
                self._new_writer()  # else whoever needs one starts it, within half a second
        elif kind < 0.8:
            self._kill_at(self._step(STEPS))
        elif kind < 0.9:
            if self._chance.random() < 0.5:
                self._kill_at(self._step(UNAPPLIED_STEPS))
            for _ in range(self._chance.choice((1, 2, 2, 3))):
                self._kill_at(self._step(RECOVERY_STEPS))
        elif kind < 0.95:
            self._kill_several()
        else:
            self._kill_command()

    def _moment(self) -> None:
        """A moment at random is what is tested."""
        time.sleep(self._chance.choice((0.0, 0.005, 0.005, 0.03, 0.1)) * self._chance.random())

    def _kill(self, name: str) -> None:
        self.crew.kill(name)
        self.kills["part" if name in SHARERS else "publisher" if name in self.crew.publishers else name] += 1
        self.crew.revive(name)

    def _kill_subscriber(self) -> None:
        sharing = (*SHARERS, "divide") if self._plan.parts else ()
        name = self._chance.choice(("plain", "chain", "chain", "end", *sharing))
        if name == "divide":
            self._divide()
        else:
            self._kill(name)

    def _divide(self) -> None:
        self.crew.divide(self._chance)
        self.kills["part"] += len(SHARERS)

    def _kill_writer(self) -> None:
        if self.crew.kill_writer():
            self.kills["writer"] += 1

    def _new_writer(self) -> None:
        self.crew.look_after()
        if "writer" not in self.crew.members and not self.crew.writer_pid():
            self.crew.start_writer()

    def _kill_several(self) -> None:
        """Writer and some others at the same moment, before any of them starts again."""
        self._moment()
        names = [*self.crew.publishers, *self.crew.subscribers]
        victims = self._chance.sample(names, self._chance.randrange(1, len(names) + 1))
        self._kill_writer()
        for name in victims:
            self.crew.kill(name)
            self.kills["several"] += 1
        if self._chance.random() < 0.5:
            self.crew.start_writer()
        self._chance.shuffle(victims)
        for name in victims:
            self.crew.revive(name)
        self._new_writer()

    def _kill_command(self) -> None:
        """Somebody who asks for a checkpoint, or puts something back; mostly it is done before the kill, and the writer
        is killed in it."""
        replays = self._plan.replays and "replay" not in self.crew.members and self._chance.random() < 0.7
        name = self.crew.replay() if replays else self.crew.checkpoint()
        self._moment()
        if self._chance.random() < 0.5:
            self._kill_writer()
            self._new_writer()
        if name in self.crew.members:
            self.crew.kill(name)
            self.kills[name] += 1

    # ---- at a step

    def _step(self, steps: dict[str, int]) -> str:
        name = self._chance.choice(sorted(steps))
        if name == "segment.removed" and not self._plan.compaction:
            name = "segment.rolled"
        often = 1 if self._chance.random() < 0.4 else self._chance.randint(1, steps[name])
        return f"{name}:{often}"

    def _kill_at(self, step: str) -> None:
        """Have a writer take over that dies at a step, and another one after it."""
        for _ in range(_TRIES):
            self._kill_writer()
            self.crew.start_writer(step)
            if self._await_step(step):
                break
        self._new_writer()

    def _await_step(self, step: str) -> bool:
        """Wait for the death of the writer that was told to die; False if somebody else's was quicker to start."""
        starting = step.startswith("recovery.")
        status = self.crew.writer_ended(_STEP_S, while_starting=starting)
        if status is None and not starting:
            # Some steps come with a checkpoint only.
            self.crew.checkpoint()
            status = self.crew.writer_ended(_STEP_PATIENCE_S)
        if status == -9:
            self.kills["writer"] += 1
            self.at_steps[step.partition(":")[0]] += 1
        return status != 69

    # ---- the end

    def _left_over(self) -> list[Violation]:
        """Who is killed while it attaches leaves drafts that the start of the next writer removes."""
        run = self._directory / "run"
        if list(run.glob(".new-*")) and not list(run.glob("*port-*")):
            self.crew.start_writer()
            self.crew.until_open()
            self.crew.stop()
        names = self._remains()
        return [Violation("left over", "after a clean stop: " + ", ".join(names))] if names else []

    def _remains(self) -> list[str]:
        names = [path.name for path in shared_memory(self._directory)]
        names += [path.name for path in (self._directory / "run").glob("*port-*")]
        names += [path.name for path in (self._directory / "run").glob(".new-*")]
        return names


def _plan(chance: random.Random) -> Plan:
    return Plan(
        sync_interval_ms=chance.choice((0, 0, 20, 200)),
        segment_mb=chance.choice((0.004, 0.004, 0.05)),
        journal_mb=chance.choice((0.0625, 0.0625, 0.25)),
        compaction=chance.random() < 0.4,
        publishers=chance.choice((1, 2, 2, 3)),
        pause_s=chance.choice((0.0005, 0.002, 0.005)),
        big=chance.choice((0.0, 0.01, 0.03)),
        parts=chance.choice((0, 0, 1, 2, 3)),
        replays=chance.random() < 0.5,
    )
