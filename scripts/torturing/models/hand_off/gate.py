"""Many threads of a process on one semaphore (`ipc/gate.py`): one leads, the others follow; every interleaving."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torturing.models.hand_off.explore import Actor, Broken, Event, Model, Names, Next, State, World, point


@dataclass(frozen=True)
class GateRules:
    """What protects the waits of a process's threads."""

    lead_looks_again: bool = True
    """Who leads says that the process sleeps, and looks once more."""
    lead_looks_for_all: bool = True
    """Who leads looks for the others, too, before it sleeps; else only when it was woken."""
    follower_looks_again: bool = True
    """Who follows looks once more when it stands in the list."""
    lead_handed_on: bool = True
    """Who led and is done wakes one that leads from then on."""
    woken_hands_on: bool = True
    """Who was woken and goes wakes the next if nobody leads: it may have been woken to lead."""


class Gate:
    """The words of a gate. What a thread waits for comes once, and stays."""

    def __init__(self, names: Names, count: int) -> None:
        self.flag = names.word("the flag")
        self.tokens = names.word("tokens")
        self.lead = names.word("somebody leads:", 0, ("no", "yes"))
        # The list in its order: number of a thread, 0 where it ends.
        self.waiters = names.words(count)
        self.came = names.words(count, "what thread {} waits for has come:", 0, ("no", "yes"))
        self.released = names.words(count, "lock of thread {}", 0, ("is held", "is released"))

    def post(self, w: World) -> None:
        """A token more; two mean what one means."""
        w[self.tokens] = min(2, w[self.tokens] + 1)

    def listed(self, w: World) -> list[int]:
        """Who stands in the list."""
        return [w[word] for word in self.waiters if w[word]]

    def list(self, w: World, threads: list[int]) -> None:
        """Change the list."""
        for at, word in enumerate(self.waiters):
            w[word] = threads[at] if at < len(threads) else 0

    def release(self, w: World, thread: int) -> None:
        """Wake a thread. Raises `Broken` as Python would raise `RuntimeError`."""
        if w[self.released[thread - 1]]:
            raise Broken(f"the lock of thread {thread} is released twice")
        w[self.released[thread - 1]] = 1


class WaitingThread(Actor):
    """`Gate.wait`."""

    def __init__(self, names: Names, gate: Gate, rules: GateRules, number: int) -> None:
        super().__init__(names, f"thread {number}", "look")
        self.gate = gate
        self.rules = rules
        self.number = number

    def _ready(self, w: World) -> bool:
        return bool(w[self.gate.came[self.number - 1]])

    # ---- wait

    @point
    def look(self, w: World) -> Next:
        """looks whether what it waits for is there"""
        return "done" if self._ready(w) else "come_in"

    @point
    def come_in(self, w: World) -> Next:
        """comes in: leads if nobody does, else stands in the list"""
        gate = self.gate
        if not w[gate.lead]:
            w[gate.lead] = 1
            return "say_asleep"
        gate.list(w, [*gate.listed(w), self.number])
        return self._follow()

    # ---- _lead_until

    @point
    def say_asleep(self, w: World) -> Next:
        """leads; says that the process sleeps"""
        w[self.gate.flag] = 1
        return "look_again" if self.rules.lead_looks_again else self._for_all()

    @point
    def look_again(self, w: World) -> Next:
        """looks once more"""
        return "clear_flag" if self._ready(w) else self._for_all()

    def _for_all(self) -> str:
        return "wake_ready" if self.rules.lead_looks_for_all else "sleep"

    @point
    def wake_ready(self, w: World) -> Next:
        """wakes those in the list for whom something has come"""
        self._wake_ready(w)
        return "sleep" if self.rules.lead_looks_for_all else "say_asleep"

    def _wake_ready(self, w: World) -> None:
        gate = self.gate
        ready = [thread for thread in gate.listed(w) if w[gate.came[thread - 1]]]
        gate.list(w, [thread for thread in gate.listed(w) if thread not in ready])
        for thread in ready:
            gate.release(w, thread)

    @point
    def sleep(self, w: World) -> Next:
        """takes a token"""
        if not w[self.gate.tokens]:
            return None
        w[self.gate.tokens] -= 1
        return "say_asleep" if self.rules.lead_looks_for_all else "wake_ready"

    @point
    def clear_flag(self, w: World) -> Next:
        """is done; says that the process no longer sleeps"""
        w[self.gate.flag] = 0
        return "hand_on"

    @point
    def hand_on(self, w: World) -> Next:
        """no longer leads"""
        w[self.gate.lead] = 0
        return "wake_ready_at_the_end" if self.gate.listed(w) and self.rules.lead_handed_on else "done"

    @point
    def wake_ready_at_the_end(self, w: World) -> Next:
        """wakes those in the list for whom something has come"""
        self._wake_ready(w)
        return "nudge"

    @point
    def nudge(self, w: World) -> Next:
        """wakes the first in the list if nobody leads"""
        gate = self.gate
        if not w[gate.lead] and gate.listed(w):
            first, *others = gate.listed(w)
            gate.list(w, others)
            gate.release(w, first)
        return "done"

    # ---- _follow

    def _follow(self) -> str:
        return "look_in_list" if self.rules.follower_looks_again else "acquire"

    @point
    def look_in_list(self, w: World) -> Next:
        """stands in the list; looks once more"""
        return "leave_list" if self._ready(w) else "acquire"

    @point
    def acquire(self, w: World) -> Next:
        """follows: sleeps on its own lock until somebody releases it"""
        released = self.gate.released[self.number - 1]
        if not w[released]:
            return None
        w[released] = 0
        return "look_when_woken"

    @point
    def look_when_woken(self, w: World) -> Next:
        """was woken; looks"""
        return "leave_list" if self._ready(w) else "lead_or_follow"

    @point
    def lead_or_follow(self, w: World) -> Next:
        """was woken for nothing: leads if nobody does, else stands in the list again"""
        gate = self.gate
        listed = gate.listed(w)
        if not w[gate.lead]:
            w[gate.lead] = 1
            gate.list(w, [thread for thread in listed if thread != self.number])
            return "say_asleep"
        if self.number not in listed:
            gate.list(w, [*listed, self.number])
        return self._follow()

    @point
    def leave_list(self, w: World) -> Next:
        """is done; leaves the list"""
        gate = self.gate
        gate.list(w, [thread for thread in gate.listed(w) if thread != self.number])
        w[gate.released[self.number - 1]] = 0  # nobody will look at it any more
        return "nudge" if self.rules.woken_hands_on else "done"

    def give_up(self, left: int, w: World) -> bool:
        """Its deadline has passed while it slept."""
        if not w[left] or not self.stands_at(w, "sleep", "acquire"):
            return False
        w[left] -= 1
        self.go(w, "clear_flag" if self.stands_at(w, "sleep") else "leave_list")
        return True


class Poster(Actor):
    """The writer: it has stored something, looks at the flag, and posts. Then it may store again, or never."""

    def __init__(self, names: Names, gate: Gate) -> None:
        super().__init__(names, "the writer", "rest")
        self.gate = gate

    def store(self, number: int, w: World) -> bool:
        """What a thread waits for comes."""
        if w[self.gate.came[number]] or not self.stands_at(w, "rest"):
            return False
        w[self.gate.came[number]] = 1
        self.go(w, "look_at_flag")
        return True

    @point
    def look_at_flag(self, w: World) -> Next:
        """looks at the flag"""
        return "post" if w[self.gate.flag] else "rest"

    @point
    def post(self, w: World) -> Next:
        """posts"""
        self.gate.post(w)
        return "rest"


def gate_model(rules: GateRules, threads: int, deadlines: int) -> Model:
    """So many threads, and a writer that stores what they wait for, in any order, or stops. No tick, no death;
    as many ``deadlines`` pass."""
    names = Names()
    gate = Gate(names, threads)
    waiting = [WaitingThread(names, gate, rules, number + 1) for number in range(threads)]
    poster = Poster(names, gate)

    def calm(state: State) -> bool:
        return not any(
            state[came] and not thread.stands_at(state, "done") for came, thread in zip(gate.came, waiting, strict=True)
        )

    def waits(state: State) -> str:
        asleep = [
            t.name for came, t in zip(gate.came, waiting, strict=True) if state[came] and not t.stands_at(state, "done")
        ]
        raise Broken(f"a wake-up is lost: {' and '.join(asleep)} will sleep until a tick")

    stores = [
        Event(f"the writer stores what thread {number + 1} waits for", partial(poster.store, number), fault=True)
        for number in range(threads)
    ]
    left = names.word("", deadlines)
    passing = [Event(f"the deadline of {t.name} passes", partial(t.give_up, left), fault=True) for t in waiting]
    return Model(names, [*waiting, poster], [*stores, *passing], calm, waits)
