"""What is explored: scenes in which nothing may go wrong, and for each rule one in which it does without the rule."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torturing.models.hand_off.arrival import ArrivalRules, arrival_model
from torturing.models.hand_off.explore import Model
from torturing.models.hand_off.gate import GateRules, gate_model
from torturing.models.hand_off.house import House
from torturing.models.hand_off.rules import Rules
from torturing.models.hand_off.world import Scene

AnyRules = Rules | GateRules | ArrivalRules


@dataclass(frozen=True)
class Threads:
    """The threads of one process at a gate."""

    threads: int = 3
    deadlines: int = 0
    """How many of them may give up."""


@dataclass(frozen=True)
class Stores:
    """Stores that arrive in any order."""

    messages: int = 3
    places: int = 1
    """How many records the ring holds."""


Place = Scene | Threads | Stores


def model(place: Place, rules: AnyRules | None = None) -> Model:
    """What is to be explored there; with all rules, unless told otherwise."""
    if isinstance(place, Threads):
        assert rules is None or isinstance(rules, GateRules)
        return gate_model(rules or GateRules(), place.threads, place.deadlines)
    if isinstance(place, Stores):
        assert rules is None or isinstance(rules, ArrivalRules)
        return arrival_model(rules or ArrivalRules(), place.messages, place.places)
    assert rules is None or isinstance(rules, Rules)
    return House(place, rules or Rules()).model()


SCENES: dict[str, Place] = {
    "two publishers, a writer, no tick": Scene(("sw", "ssw"), ticks=False, tokens=1),
    "stores that are under way": Scene(("sw", "s"), ticks=False, buffers=2),
    "Ctrl-C before a post": Scene(("ssw",), interrupts=1, ticks=False),
    "a writer and a publisher die": Scene(("s", "sw"), writer_kills=1, publisher_kills=1, tokens=1),
    "a writer dies, and so does the next": Scene(("sw",), writer_kills=2),
    "a writer dies, ticks at any moment": Scene(("sw",), writer_kills=1, free_ticks=True, tokens=1),
    "a writer dies in a checkpoint": Scene(("s", "cw"), writer_kills=1),
    "a writer dies under a subscriber": Scene(("s", "r"), writer_kills=1),
    "a writer is told to leave": Scene(("s", "s"), leaves=1, tokens=1),
    "a writer is told to leave, the next one dies": Scene(("sw",), leaves=1, writer_kills=1),
    "one attaches while the writer leaves": Scene(("s", "as"), leaves=1, tokens=1),
    "two attach while the writer is idle": Scene(("as", "as"), idles=1, tokens=1),
    "one leaves, one comes, the writer is idle": Scene(("al", "as"), idles=1, tokens=1),
    "two attach where there is no writer": Scene(("as", "as"), running=False),
    "one leaves while a tick is under way": Scene(("awl",), leaves=1, free_ticks=True, tokens=1),
    "another writer is started by hand": Scene(("as",), by_hand=1, leaves=1, writers=2),
    "shared memory is emptied": Scene(("s",), emptied=1, free_ticks=True, tokens=1),
    "shared memory is emptied as the writer leaves": Scene(("sw",), emptied=1, leaves=1),
    "shared memory is emptied as one attaches": Scene(("s", "as"), emptied=1),
    "shared memory is emptied, and a writer dies": Scene(("sw",), emptied=1, writer_kills=1),
    "threads at a gate": Threads(),
    "stores in any order": Stores(messages=4, places=2),
}
"""Nothing may go wrong in any of them: what a test has time for."""

DEEP: dict[str, Place] = {
    "two publishers, each with two messages": Scene(("swsw", "ssw"), ticks=False),
    "three publishers": Scene(("sw", "s", "s"), ticks=False, tokens=1),
    "three stores under way": Scene(("sw", "sw"), ticks=False, buffers=3),
    "a writer dies twice under two publishers": Scene(("s", "sw"), writer_kills=2, tokens=1),
    "a writer dies under two publishers with two messages": Scene(("sws", "sw"), writer_kills=1, tokens=1),
    "all may die": Scene(("sw", "sw"), writer_kills=1, publisher_kills=1),
    "a writer dies under a burst, ticks at any moment": Scene(("ssw",), writer_kills=1, free_ticks=True, tokens=1),
    "a writer leaves under a burst, ticks at any moment": Scene(("ssw",), leaves=1, free_ticks=True, tokens=1),
    "a writer leaves, one waits": Scene(("s", "sw"), leaves=1, tokens=1),
    "a writer leaves, two wait": Scene(("sw", "sw"), leaves=1, tokens=1),
    "a writer dies as one attaches": Scene(("sw", "asw"), writer_kills=1, tokens=1),
    "two come and wait, one leaves, the writer is idle": Scene(("aswl", "as"), idles=1, tokens=1),
    "one comes and leaves, the writer is idle, killed, told to leave": Scene(
        ("aswl",), idles=1, writer_kills=1, leaves=1
    ),
    "two subscribers and a burst": Scene(("ss", "r", "r"), ticks=False, tokens=1),
    "shared memory is emptied, ticks at any moment": Scene(("sw",), emptied=1, free_ticks=True, tokens=1),
    "shared memory is emptied under two": Scene(("sw", "asw"), emptied=1, tokens=1),
    "threads at a gate, one gives up": Threads(deadlines=1),
    "a longer ring, stores in any order": Stores(messages=7, places=3),
}
"""The same with more of everything: two minutes, by hand."""

KNOWN: dict[str, Place] = {
    "shared memory is emptied, and two writers die": Scene(("sw",), emptied=1, writer_kills=2),
}
"""What is known to go wrong, so that it is not found again. A writer is killed between its frame and COMMITTED, and
/dev/shm is emptied. The next one recovers before the process has made its port anew; it keeps in mind what the ring is
to be told, and is killed before its next tick, half a second later. The message is taken twice."""

CONTROLS: dict[str, tuple[Place, str]] = {
    "only_sleeper_clears": (Scene(("s", "sw"), publisher_kills=1, ticks=False), "a wake-up is lost"),
    "writer_looks_again": (Scene(("sw",), ticks=False), "a wake-up is lost"),
    "waiter_looks_again": (Scene(("sw",), ticks=False), "a wake-up is lost"),
    "publisher_fence": (Scene(("sw",), ticks=False, buffers=2), "a wake-up is lost"),
    "writer_fence": (Scene(("sw",), ticks=False, buffers=2), "a wake-up is lost"),
    "settle_fence": (Scene(("sw",), ticks=False, buffers=2), "a wake-up is lost"),
    "waiter_fence": (Scene(("sw",), ticks=False, buffers=2), "a wake-up is lost"),
    "sleeps_numbered": (Scene(("ssw",), ticks=False), "a wake-up is lost"),
    "numbers_drawn": (Scene(("ss",), writer_kills=1, free_ticks=True, tokens=1), "a wake-up is lost"),
    "posted_before_noted": (Scene(("ssw",), interrupts=1, ticks=False), "a wake-up is lost"),
    "newcomers_looked_for": (Scene(("s", "as"), ticks=False), "a wake-up is lost"),
    "tick_knocks": (Scene(("sw",), leaves=1, writer_kills=1), "a wake-up is lost"),
    "wake_all": (Scene(("sw",), writer_kills=1), "a wake-up is lost"),
    "end_before_read": (Scene(("s", "r"), ticks=False), "a wake-up is lost"),
    "one_lock": (Scene(("s",), by_hand=1, writers=2), "two writers"),
    "lock_falls": (Scene(("sw",), writer_kills=1), "waits for ever"),
    "tick_looks_at_lock": (Scene(("sw",), writer_kills=1), "waits for ever"),
    "position_in_frame": (Scene(("sw",), writer_kills=1), "doubled"),
    "frame_before_committed": (Scene(("sw",), ticks=False), "lost"),
    "ring_told_before_freed": (Scene(("sw",), writer_kills=2), "doubled"),
    "rings_told_before_checkpoint": (Scene(("s", "cw"), writer_kills=1), "doubled"),
    "port_before_state": (Scene(("as",), idles=1), "leaves unseen"),
    "leases_after_closing": (Scene(("as",), idles=1), "leaves unseen"),
    "gone_before_unlock": (Scene(("as",), leaves=1, writers=2), "two writers"),
    "emptied_noticed": (Scene(("as",), emptied=1), "waits for ever"),
    "emptied_noticed_in_recovery": (Scene(("sw",), emptied=1, writer_kills=1), "doubled"),
    "move_posts_old": (Scene(("sw",), emptied=1, leaves=1), "a wake-up is lost"),
    "left_port_stays_gone": (Scene(("awl",), leaves=1, free_ticks=True), "nobody will remove"),
    "copied_without_writer": (Scene(("s",), emptied=1, free_ticks=True, tokens=1), "doubled"),
    "lead_looks_again": (Threads(), "a wake-up is lost"),
    "lead_looks_for_all": (Threads(), "a wake-up is lost"),
    "follower_looks_again": (Threads(), "a wake-up is lost"),
    "lead_handed_on": (Threads(), "a wake-up is lost"),
    "woken_hands_on": (Threads(), "a wake-up is lost"),
    "crc": (Stores(), "not there yet"),
    "seeded": (Stores(), "a second time"),
    "answers_fenced": (Stores(), "is told that it is published"),
}
"""Rule → where it is needed, and what goes wrong without it."""


def without(rule: str) -> tuple[Place, AnyRules]:
    """The scene for a rule, and all rules but that one."""
    place = CONTROLS[rule][0]
    for rules in (Rules(), GateRules(), ArrivalRules()):
        if hasattr(rules, rule):
            return place, replace(rules, **{rule: False})  # type: ignore[arg-type]
    raise KeyError(rule)
