"""One run of the model: processes, a writer, and what befalls them, all from one seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from random import Random
from typing import Protocol

from torturing.models.commit_path import foreign
from torturing.models.commit_path.chain import Chain
from torturing.models.commit_path.channel import ForeignWriteError
from torturing.models.commit_path.checker import Checker
from torturing.models.commit_path.danger import Aim, Danger
from torturing.models.commit_path.data import DataDirectory
from torturing.models.commit_path.disk import File, SyncFailedError
from torturing.models.commit_path.journal import NAMES, JournalContents
from torturing.models.commit_path.ledger import Ledger
from torturing.models.commit_path.memory import Port
from torturing.models.commit_path.modes import Mode
from torturing.models.commit_path.publisher import Commander, Publisher
from torturing.models.commit_path.recovery import Recovery
from torturing.models.commit_path.rules import Rules
from torturing.models.commit_path.subscriber import INPUT, PlainSubscriber
from torturing.models.commit_path.writer import Writer

LIVES = 4
ROUNDS_A_LIFE = 25
# How many rounds the end may take before it counts as hanging.
_PATIENCE = 300


class Died(Exception):
    """The writer was killed, or the power went."""

    def __init__(self, by_power: bool) -> None:
        super().__init__("power" if by_power else "kill")
        self.by_power = by_power


class Process(Protocol):
    """An attached process."""

    port: Port
    name: str

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing more to do."""
        ...

    @property
    def is_leaving(self) -> bool:
        """Whether another process may take its place."""
        ...

    def act(self) -> None:
        """Do one thing."""
        ...


class World:
    """Everything there is in one run."""

    def __init__(
        self,
        seed: int,
        mode: Mode,
        rules: Rules,
        *,
        aims: tuple[Aim, ...] = (),
        tracing: bool = False,
        recovery: Callable[[World], Recovery] = Recovery,
    ) -> None:
        """``recovery`` makes each try of one: another class may look at what it does."""
        self.chance = Random(seed)
        self.mode = mode
        self.rules = rules
        self.disk = DataDirectory()
        self.ports: list[Port] = []
        self.ledger = Ledger(self)
        self._checker = Checker(self)
        # Nothing happens to anybody any more: what is under way is to come to its end.
        self.calm = False
        # Nobody publishes for a while, and subscribers catch up.
        self.lull = False
        self.trace: list[str] | None = [] if tracing else None
        self.writer: Writer
        self._processes: dict[str, Process] = {}
        # Those that close their subscription, or have closed it and live on.
        self._leaving: list[Process] = []
        self._away: dict[str, int] = {}
        self._jobs: dict[str, Iterator[str]] = {}
        self._aims = aims
        self._make_recovery = recovery
        self._danger = Danger(self.chance, recovering=True, aims=aims)
        # Of attached processes, at each of their acts; and how soon a subscriber that has caught up goes.
        self._mortality = self.chance.choice((0.0, 0.01, 0.08))
        self.departures = 0.5 if mode.departing else self.chance.choice((0.0, 0.03, 0.2))
        self._busy = False
        self._lives = 0
        self._numbers = 0

    # ---- what the parts of the model ask for

    def say(self, text: str, *values: object) -> None:
        """A line of the trace."""
        if self.trace is not None:
            self.trace.append(text.format(*values))

    def step(self, name: str, *, alone: bool = False) -> None:
        """A place where the writer may die, and, unless ``alone``, where others may do something. Raises `Died`."""
        if self.calm:
            return
        death = self._danger.death(name, self.chance)
        if death:
            self.say("*** {} at: {}", "the power goes" if death == "power" else "the writer is killed", name)
            raise Died(death == "power")
        if not alone and not self._busy and self.chance.random() < 0.3:
            self._let_others_act()

    def sync(self, file: File, up_to: int | None = None, *, forget: bool = False) -> None:
        """Bring a file to the device. Raises `SyncFailedError`."""
        if self.mode.failing and not self.calm and not file.is_synced and self.chance.random() < 0.12:
            self.say("*** a sync fails")
            file.fail_sync(self.chance, forget=forget and self.chance.random() < 0.5)
            raise SyncFailedError
        file.sync(up_to)

    def next_number(self) -> int:
        """A number that nobody had before."""
        self._numbers += 1
        return self._numbers

    # ---- processes

    def attach(self, role: str) -> Port:
        """A port for a process that begins."""
        self._lives += 1
        port = Port(f"{role}#{self._lives}", self._lives)
        self.ports.append(port)
        return port

    def end(self, process: Process) -> None:
        """A process is gone; its port stays."""
        process.port.alive = False

    def process_dies(self, process: Process) -> bool:
        """A place where an attached process may be killed; whether it was."""
        if self.calm or self.chance.random() >= self._mortality:
            return False
        self.say("*** {} is killed", process.name)
        self.ledger.note_killed(process.port)
        self.end(process)
        return True

    def _populate(self) -> None:
        """Begin anew whoever has ended."""
        roles: dict[str, type[Publisher] | type[PlainSubscriber] | type[Chain]] = {"p": Publisher, "q": Publisher}
        if self.mode.cursors:
            roles["plain"] = PlainSubscriber
        if self.mode.exactly_once:
            roles["chain"] = Chain
        for role, make in roles.items():
            process = self._processes.get(role)
            if process is not None and process.is_leaving:
                self._leaving.append(process)
            if process is not None and not process.is_leaving and process.port.alive:
                continue
            if process is not None:
                del self._processes[role]
                # Who subscribes may stay away for a while.
                self._away[role] = self.chance.choice((0, 0, 0, 3, 15)) if make is not Publisher else 0
            if self._stays_away(role) or (role == "plain" and self._perhaps_set_back()):
                continue
            self._processes[role] = make(self, role)
        self._leaving = [process for process in self._leaving if process.port.alive]
        if "command" in self._processes and not self._processes["command"].port.alive:
            del self._processes["command"]

    def _stays_away(self, role: str) -> bool:
        left = self._away.get(role, 0)
        self._away[role] = left - 1
        return left > 0 and not self.calm

    def _perhaps_set_back(self) -> bool:
        """While nobody holds the subscription a command may move its cursor; whether one is under way."""
        if "command" in self._processes:
            return True
        if self.calm or not self.writer_is_up or self.chance.random() < 0.5:
            return False
        offset = self.chance.choice(self._checker.offsets(INPUT) or [0])
        self._processes["command"] = Commander(self, (INPUT, "plain"), offset)
        return True

    def _one_acts(self) -> None:
        processes = list(self._processes.values())
        if not processes:
            return
        process = self.chance.choice(processes)
        if process.port.alive and not self.process_dies(process):
            process.act()
            if process.is_leaving:
                self._populate()
                self._processes.get("plain", process).act()  # who takes its place may be waiting

    def _let_others_act(self) -> None:
        """While the writer is in the middle of something: other processes, its own other threads, another program."""
        self._busy = True
        try:
            draw = self.chance.random()
            if draw < 0.6:
                self._one_acts()
            elif draw < 0.88 or not self.mode.foreign:
                self._advance_jobs()
            elif self.writer_is_up:
                foreign.append(self, may_roll=True)
        finally:
            self._busy = False

    # ---- the writer's other threads

    def start(self, name: str, job: Iterator[str]) -> None:
        """Have something done beside the commits, unless the same is under way."""
        if name not in self._jobs:
            self._jobs[name] = job

    def finish(self, name: str) -> None:
        """Wait until it is done."""
        job = self._jobs.get(name)
        while job is not None and self._jobs.get(name) is job:
            self._advance(name)

    def start_flush(self) -> None:
        """In periodic mode: frames were written that have to be synced soon."""
        self.start("timer", iter(["timer"] * self.chance.choice((1, 3, 12))))

    def finish_flush(self) -> None:
        """One sync of the journal at a time."""
        self.finish("flush")

    def _advance_jobs(self) -> None:
        if self._jobs:
            self._advance(self.chance.choice(list(self._jobs)))

    def _advance(self, name: str) -> None:
        job = self._jobs[name]
        busy, self._busy = self._busy, True
        try:
            self.step(next(job))
        except StopIteration:
            del self._jobs[name]
            if name == "timer":
                self.start("flush", self.writer.journal.syncing())
        finally:
            self._busy = busy

    # ---- lives of the writer

    @property
    def writer_is_up(self) -> bool:
        """Whether there is one that commits."""
        return hasattr(self, "writer") and self.writer.is_open

    def run(self) -> Ledger:
        """The whole run; the ledger knows what was wrong."""
        self._begin(by_power=True)
        for _ in range(LIVES):
            self._populate()
            by_power = self._live()
            self._begin(by_power)
            if self.ledger.violations:
                return self.ledger
        self._come_to_the_end()
        return self.ledger

    def _live(self) -> bool:
        """Commit until the writer dies or stops; whether that was the power."""
        self._danger = Danger(self.chance, recovering=False, aims=self._aims)
        try:
            for number in range(self.chance.randint(3, ROUNDS_A_LIFE * (2 if self.mode.compaction else 1))):
                self._populate()
                if number % 6 == 0:
                    self.lull = self.chance.random() < 0.3
                for _ in range(self.chance.randint(0, 8 if self.mode.cursors or self.mode.exactly_once else 4)):
                    self._one_acts()
                for process in self._leaving:
                    process.act()  # a wake-up is quicker than two commits
                self.writer.commit_round(tick=self.chance.random() < 0.3)
                if self.mode.compaction and self.chance.random() < 0.4:
                    self.writer.begin_retention()
                if self._jobs and self.chance.random() < 0.3:
                    self._advance_jobs()
            return self._stop_somehow()
        except Died as death:
            return death.by_power
        except ForeignWriteError as reason:
            self.say("*** the writer leaves: {}", reason)
            return False

    def _stop_somehow(self) -> bool:
        draw = self.chance.random()
        if draw < 0.3:
            self.writer.leave()
            self.say("*** the writer has left, the journal is at rest")
            self.ledger.note_at_rest()
            draw = self.chance.random()
        self.say("*** {}", "the power goes" if draw < 0.5 else "the writer is no more")
        return draw < 0.5

    def _begin(self, by_power: bool) -> None:
        """Recover until it is done; the recovery may itself be killed, or the power go again."""
        self._danger = Danger(self.chance, recovering=True, aims=self._aims)
        power_went = by_power
        for tries in count():
            try:
                self._go_down(by_power, tries)
                self._recover()
            except Died as death:
                by_power = death.by_power
                power_went |= by_power
            else:
                break
        self._checker.check(by_power=power_went)

    def _go_down(self, by_power: bool, tries: int) -> None:
        self._jobs.clear()
        self._busy = False
        if hasattr(self, "writer"):
            self.writer.is_open = False
        if by_power:
            self._lose_power()
        if self.mode.damage and self.chance.random() < 0.6:
            self._damage_a_frame()
        if self.mode.foreign and not self.calm and tries < 3 and self.chance.random() < 0.5:
            foreign.append(self, may_roll=tries == 0)

    def _lose_power(self) -> None:
        self.disk.lose_power(self.chance)
        self.ports.clear()
        for role in self._processes:
            self._away[role] = self.chance.choice((0, 3, 15)) if role in ("plain", "chain") else 0
        self._processes.clear()
        self._leaving.clear()
        self.ledger.note_power_cut()
        if not self.calm:
            # Programs come up before the writer is done.
            self._populate()

    def _recover(self) -> None:
        while True:
            try:
                recovery = self._make_recovery(self)
                recovery.run()
                self.writer = Writer(self)
                recovery.hand_over(self.writer)
            except SyncFailedError:
                self.step("recovery failed and begins again")
            else:
                break
        self.writer.begin()
        self.say("the writer is open")

    def _all_are_idle(self) -> bool:
        """Also of those who were away."""
        self._populate()
        return all(process.is_idle for process in self._processes.values())

    def _damage_a_frame(self) -> None:
        """One that a later frame proves to have been synced: what is at the end cannot be told from a torn frame."""
        live = [JournalContents(self, self.disk.journal, name) for name in NAMES]
        frames = [(frame, contents.file) for contents in live for frame in contents.frames]
        proven = max((frame.synced for frame, _file in frames), default=0)
        candidates = [(frame, file) for frame, file in frames if frame.number <= proven]
        if candidates:
            frame, file = self.chance.choice(candidates)
            file.damage(file.cells.index(self.chance.choice(frame.cells)))
            self.say("*** a cell of frame {} is damaged", frame.number)
            self.ledger.note_damage(frame)

    # ---- the end

    def _come_to_the_end(self) -> None:
        """Nothing happens to anybody any more; then everything has to be where it belongs."""
        self.calm = True
        self.say("*** from here on nothing happens to anybody")
        for _ in range(_PATIENCE):
            self._populate()
            for process in [*self._processes.values(), *self._leaving]:
                if process.port.alive:
                    process.act()
            try:
                worked = self.writer.commit_round(tick=True)
            except ForeignWriteError:
                self._begin(by_power=False)
                continue
            for name in list(self._jobs):
                self.finish(name)
            if not worked and self._all_are_idle():
                break
        else:
            self.ledger.fail("hang", f"after {_PATIENCE} rounds of calm something is still to be done")
            return
        self.writer.leave()
        self.ledger.note_at_rest()
        self._checker.check_end()
        self._begin(by_power=True)
        self._checker.check_end()
        self._checker.check_spill_files()
