"""The commit path as a random model of crash states: see `World`."""

from __future__ import annotations

from torturing.models.ledger import Ledger
from torturing.models.modes import Mode
from torturing.models.rules import Rules
from torturing.models.world import World


def run_one(seed: int, mode: Mode, rules: Rules) -> Ledger:
    """One run, and what was wrong."""
    return World(seed, mode, rules).run()


def trace(seed: int, mode: Mode, rules: Rules) -> list[str]:
    """The steps of that run, in words."""
    world = World(seed, mode, rules, tracing=True)
    world.run()
    assert world.trace is not None
    return world.trace
