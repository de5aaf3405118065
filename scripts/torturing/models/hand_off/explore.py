"""Every interleaving of some processes, breadth first, so that the shortest way to a broken promise is found.

A state is a tuple of small numbers: the words in shared memory, the locks, what each process keeps to itself and where
each of them stands. A process is a table of named points. A point makes one access that others can see, and says which
point is next: between any two accesses another process may come in, or the process be killed.
"""

from __future__ import annotations

import gc
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

State = tuple[int, ...]
World = list[int]
Next = str | None
"""The next point; None: it waits here, and nothing was changed."""

_Step = TypeVar("_Step", bound=Callable[..., Any])

# Points at which a process makes no step of its own.
_AT_REST = ("ended", "rest", "done")


class Broken(Exception):
    """A promise is broken by the step that raises this."""


class Names:
    """The words of a state: each has a name, for people, and a value at the start."""

    def __init__(self) -> None:
        # Word 0 is nobody's: where an index is kept, 0 says that there is none.
        self.names = [""]
        self.start: World = [0]
        self._spelling: dict[int, Sequence[str]] = {}

    def word(self, name: str = "", start: int = 0, spelling: Sequence[str] = ()) -> int:
        """A new word; its index. ``spelling``: names of its values. One without a name is not printed."""
        self.names.append(name)
        self.start.append(start)
        if spelling:
            self._spelling[len(self.names) - 1] = spelling
        return len(self.names) - 1

    def words(self, count: int, name: str = "", start: int = 0, spelling: Sequence[str] = ()) -> list[int]:
        """So many words; ``{}`` in the name stands for the number of each, which begins at 1."""
        return [self.word(name.format(number + 1), start, spelling) for number in range(count)]

    def changes(self, before: State, after: State) -> str:
        """What differs, in words."""
        return ", ".join(
            f"{name} {self._spell(at, before[at])} → {self._spell(at, after[at])}"
            for at, name in enumerate(self.names)
            if name and before[at] != after[at]
        )

    def _spell(self, at: int, value: int) -> str:
        spelling = self._spelling.get(at)
        return spelling[value] if spelling else str(value)


def point(step: _Step) -> _Step:
    """Mark a method as a point of its process. Its docstring says in words what is done there."""
    step.is_point = True  # type: ignore[attr-defined]
    return step


class Actor:
    """A process, or a thread of one: its methods marked with `point` are its program."""

    def __init__(self, names: Names, name: str, begins_at: str) -> None:
        self.name = name
        found = [key for kind in type(self).__mro__ for key, value in vars(kind).items() if hasattr(value, "is_point")]
        self._keys = [*_AT_REST, *dict.fromkeys(found)]
        self.at = {key: number for number, key in enumerate(self._keys)}
        self.steps: list[Callable[[World], Next] | None] = [getattr(self, key, None) for key in self._keys]
        self.pc = names.word("", self.at[begins_at])

    def stands_at(self, w: Sequence[int], *points: str) -> bool:
        """Whether it is about to do one of these."""
        return self._keys[w[self.pc]] in points

    def go(self, w: World, key: str) -> None:
        """Put it somewhere else."""
        w[self.pc] = self.at[key]

    def in_words(self, before: State) -> str:
        """What it does in that state."""
        step = self.steps[before[self.pc]]
        return f"{self.name} {step.__doc__}"


@dataclass(frozen=True)
class Event:
    """Something that happens to the processes: a kill, a tick, a store that arrives."""

    text: str
    apply: Callable[[World], bool]
    """Change the world; False if it cannot happen now."""
    fault: bool = False
    """It may happen at any time, and nobody may rely on it."""
    timer: bool = False
    """It happens when time passes."""

    def in_words(self, _before: State) -> str:
        """What happens."""
        return self.text


@dataclass
class Model:
    """Processes, what may happen to them, and what is expected of them."""

    names: Names
    actors: Sequence[Actor]
    events: Sequence[Event]
    calm: Callable[[State], bool]
    """Whether everything is done that has to be."""
    waits: Callable[[State], str]
    """Nothing moves before a tick: what is waited for, if that is allowed. Raises `Broken` if it isn't."""
    free_ticks: bool = False
    """A tick may come at any moment; else only when nothing else moves, as half a second is long."""


@dataclass
class Outcome:
    """What an exploration found."""

    states: int = 0
    steps: int = 0
    took_s: float = 0.0
    complete: bool = True
    waits: Counter[str] = field(default_factory=Counter)
    """What is waited for until a tick, and in how many states."""
    broken: str = ""
    trace: list[str] = field(default_factory=list)
    """The way to it, a line for each step."""

    def as_text(self) -> str:
        """The counterexample for people."""
        return "\n".join([*(f"{number:3}  {line}" for number, line in enumerate(self.trace, 1)), f"  => {self.broken}"])


class _Explorer:
    def __init__(self, model: Model, limit: int) -> None:
        self.model = model
        self.limit = limit
        self.outcome = Outcome()
        start = tuple(model.names.start)
        self.ids = {start: 0}
        self.states = [start]
        self.came_from = array("i", [0])
        self.by: list[Actor | Event] = [Event("", lambda w: False)]
        # States in which nothing moves before a tick, and those of them in which all is done.
        self.quiet = array("i")
        self.calm: list[int] = []
        # Steps on which progress may rely.
        self.edges_from, self.edges_to = array("i"), array("i")

    def run(self) -> Outcome:
        began_s = time.monotonic()
        # There are no circles in millions of tuples, and the collector looks for some again and again.
        gc.disable()
        try:
            self._look_at_all()
            if self.outcome.complete:
                self._look_for_progress()
        except Broken as broken:
            self.outcome.broken = str(broken)
        finally:
            gc.enable()
        self.outcome.states = len(self.states)
        self.outcome.took_s = time.monotonic() - began_s
        return self.outcome

    def _look_at_all(self) -> None:
        model, states = self.model, self.states
        ordinary = [event for event in model.events if not event.fault and not event.timer]
        timers = [event for event in model.events if event.timer]
        faults = [event for event in model.events if event.fault]
        at = 0
        while at < len(states):
            if at == self.limit:
                self.outcome.complete = False
                return
            moves = self._step(at)
            if ordinary:
                moves += self._happen(at, ordinary, True)
            if not moves:
                self._nothing_moves(at)
            if timers and (model.free_ticks or not moves):
                self._happen(at, timers, True)
            if faults:
                self._happen(at, faults, False)
            at += 1

    def _step(self, at: int) -> int:
        state = self.states[at]
        moves = 0
        for actor in self.model.actors:
            pc = actor.pc
            step = actor.steps[state[pc]]
            if step is None:
                continue
            w = list(state)
            try:
                following = step(w)
            except Broken:
                self._trace(at, actor)
                raise
            if following is not None:
                w[pc] = actor.at[following]
                self._reach(at, tuple(w), actor, True)
                moves += 1
        return moves

    def _happen(self, at: int, events: list[Event], counts: bool) -> int:
        state = self.states[at]
        moves = 0
        for event in events:
            w = list(state)
            if event.apply(w):
                self._reach(at, tuple(w), event, counts)
                moves += 1
        return moves

    def _reach(self, at: int, state: State, by: Actor | Event, counts: bool) -> None:
        ids = self.ids
        known = ids.get(state)
        if known is None:
            known = ids[state] = len(self.states)
            self.states.append(state)
            self.came_from.append(at)
            self.by.append(by)
        self.outcome.steps += 1
        if counts:
            self.edges_from.append(at)
            self.edges_to.append(known)

    def _nothing_moves(self, at: int) -> None:
        self.quiet.append(at)
        state = self.states[at]
        if self.model.calm(state):
            self.calm.append(at)
            return
        try:
            self.outcome.waits[self.model.waits(state)] += 1
        except Broken:
            self._trace(at)
            raise

    def _look_for_progress(self) -> None:
        """From every state there must be a way to calm that needs no fault: else somebody waits for ever."""
        good = bytearray(len(self.states))
        for at in self.calm:
            good[at] = 1
        edges = list(zip(reversed(self.edges_from), reversed(self.edges_to), strict=True))
        known = -1
        while known != (known := sum(good)):
            # Backwards most ways are found in one go, as they were found forwards.
            for source, target in edges:
                if good[target]:
                    good[source] = 1
        lost = [at for at in self.quiet if not good[at]] or [good.find(0)]
        if lost[0] >= 0:
            self._trace(lost[0])
            raise Broken("from here there is no way to an end: somebody waits for ever, whatever ticks")

    def _trace(self, at: int, last: Actor | None = None) -> None:
        lines = [last.in_words(self.states[at])] if last else []
        while at:
            before, after = self.states[self.came_from[at]], self.states[at]
            changes = self.model.names.changes(before, after)
            lines.append(self.by[at].in_words(before) + (f"  [{changes}]" if changes else ""))
            at = self.came_from[at]
        self.outcome.trace = lines[::-1]


def explore(model: Model, limit: int = 5_000_000) -> Outcome:
    """Look at every state, at most ``limit`` of them."""
    return _Explorer(model, limit).run()
