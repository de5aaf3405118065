"""One run of the model: processes, a writer, and what befalls them, all from one seed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from random import Random

from torturing.models.commit_path import foreign
from torturing.models.commit_path.channel import ForeignWriteError
from torturing.models.commit_path.checker import Checker
from torturing.models.commit_path.crowd import Crowd
from torturing.models.commit_path.danger import Aim, Danger
from torturing.models.commit_path.data import DataDirectory
from torturing.models.commit_path.disk import File, SyncFailedError
from torturing.models.commit_path.journal import NAMES, JournalContents
from torturing.models.commit_path.ledger import Ledger
from torturing.models.commit_path.memory import Port
from torturing.models.commit_path.modes import Mode
from torturing.models.commit_path.recovery import Recovery
from torturing.models.commit_path.rules import Rules
from torturing.models.commit_path.threads import Threads
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
        self.checker = Checker(self)
        # Nothing happens to anybody any more: what is under way is to come to its end.
        self.calm = False
        # Nobody publishes for a while, and subscribers catch up.
        self.lull = False
        self.trace: list[str] | None = [] if tracing else None
        self.writer: Writer
        self._aims = aims
        self._make_recovery = recovery
        self._danger = Danger(self.chance, recovering=True, aims=aims)
        self.crowd = Crowd(self)
        self.threads = Threads(self)
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
        if not alone and not self.threads.busy and self.chance.random() < 0.3:
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

    def _let_others_act(self) -> None:
        """While the writer is in the middle of something: other processes, its own other threads, another program."""
        self.threads.busy = True
        try:
            draw = self.chance.random()
            if draw < 0.6:
                self.crowd.one_acts()
            elif draw < 0.88 or not self.mode.foreign:
                self.threads.one_goes_on()
            elif self.writer_is_up:
                foreign.append(self, may_roll=True)
        finally:
            self.threads.busy = False

    # ---- lives of the writer

    @property
    def writer_is_up(self) -> bool:
        """Whether there is one that commits."""
        return hasattr(self, "writer") and self.writer.is_open

    def run(self) -> Ledger:
        """The whole run; the ledger knows what was wrong."""
        self._begin(by_power=True)
        for _ in range(LIVES):
            self.crowd.gather()
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
                self.crowd.gather()
                if number % 6 == 0:
                    self.lull = self.chance.random() < 0.3
                for _ in range(self.chance.randint(0, 8 if self.mode.cursors or self.mode.exactly_once else 4)):
                    self.crowd.one_acts()
                self.crowd.leavers_act()
                self.writer.commit_round(tick=self.chance.random() < 0.3)
                if self.mode.compaction and self.chance.random() < 0.4:
                    self.writer.begin_retention()
                if self.threads and self.chance.random() < 0.3:
                    self.threads.one_goes_on()
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
        self.checker.check(by_power=power_went)

    def _go_down(self, by_power: bool, tries: int) -> None:
        self.threads.die()
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
        self.crowd.lose_power()
        self.ledger.note_power_cut()
        if not self.calm:
            self.crowd.gather()

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
            self.crowd.all_act()
            try:
                worked = self.writer.commit_round(tick=True)
            except ForeignWriteError:
                self._begin(by_power=False)
                continue
            self.threads.finish_all()
            if not worked and self.crowd.is_idle():
                break
        else:
            self.ledger.fail("hang", f"after {_PATIENCE} rounds of calm something is still to be done")
            return
        self.writer.leave()
        self.ledger.note_at_rest()
        self.checker.check_end()
        self._begin(by_power=True)
        self.checker.check_end()
        self.checker.check_spill_files()
