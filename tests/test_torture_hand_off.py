"""The model of the hand-off between processes: nothing goes wrong with all rules, and something does without each."""

from __future__ import annotations

import argparse
import sys

import pytest
from child import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from torturing.models import hand_off
from torturing.models.hand_off.explore import Actor, Broken, Event, Model, Names, Next, World, explore, point
from torturing.models.hand_off.scenes import CONTROLS, SCENES


@pytest.mark.parametrize("scene", SCENES)
def test_nothing_goes_wrong(scene: str) -> None:
    outcome = hand_off.play(scene)
    assert not outcome.broken, outcome.as_text()
    assert outcome.complete


@pytest.mark.parametrize("rule", CONTROLS)
def test_each_rule_is_needed(rule: str) -> None:
    outcome = hand_off.control(rule)
    assert CONTROLS[rule][1] in outcome.broken, outcome.as_text()
    assert outcome.trace


def test_a_counterexample_is_told_in_words() -> None:
    text = hand_off.show("writer_looks_again")
    assert "publisher 1 puts a record into its ring, and stores HEAD  [port 1: HEAD 0 → 1]" in text
    assert text.splitlines()[-1].startswith("  => a wake-up is lost: publisher 1 sleeps")


def test_the_command_shows_a_rule() -> None:
    parser = argparse.ArgumentParser()
    hand_off.add_arguments(parser)
    report = hand_off.run(parser.parse_args(["--show", "position_in_frame"]))
    assert report.exit_code == 0
    assert "doubled" in report.notes[0]


# ---- the explorer itself


class Adder(Actor):
    """Loads a word and stores it, one more, in two steps."""

    def __init__(self, names: Names, name: str, word: int) -> None:
        super().__init__(names, name, "load")
        self.word = word
        self.loaded = names.word()

    @point
    def load(self, w: World) -> Next:
        """loads the number"""
        w[self.loaded] = w[self.word]
        return "store"

    @point
    def store(self, w: World) -> Next:
        """stores one more"""
        w[self.word] = w[self.loaded] + 1
        return "done"


def adders(names: Names, expected: int) -> Model:
    number = names.word("the number")
    two = [Adder(names, "one", number), Adder(names, "another", number)]

    def waits(state: tuple[int, ...]) -> str:
        raise Broken(f"the number is {state[number]}")

    return Model(names, two, [], lambda state: state[number] == expected, waits)


def test_the_shortest_way_to_what_is_broken_is_told() -> None:
    outcome = explore(adders(Names(), expected=2))
    assert outcome.broken == "the number is 1"
    assert outcome.trace == [
        "one loads the number",
        "another loads the number",
        "one stores one more  [the number 0 → 1]",
        "another stores one more",
    ]


def test_a_way_that_needs_a_fault_is_no_progress() -> None:
    names = Names()
    number = names.word("the number", 1)

    def falls(w: World) -> bool:
        w[number] -= 1
        return w[number] >= 0

    for fault, wrong in ((True, "waits for ever"), (False, "")):
        events = [Event("the number falls", falls, fault=fault)]
        outcome = explore(Model(names, [], events, lambda state: state[number] == 0, lambda state: "it to fall"))
        assert wrong in outcome.broken
        assert bool(outcome.broken) == fault
    assert explore(adders(Names(), expected=1), limit=3).complete is False
