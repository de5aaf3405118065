"""Whatever of ``keyop up`` is killed, and however often: no message is lost, none overtakes another, all comes back."""

from __future__ import annotations

import os
import random
import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from child import eventually
from supervised import Site, nothing_left, site

from keyop import Messenger

pytestmark = pytest.mark.alone

_ROUNDS = 12
_KILLS_OF_ONE = 4  # each makes the next pause longer


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as there:
        yield there


def test_kills_of_anything_in_a_row(here: Site) -> None:
    here.with_hub()
    here.with_worker(name="clerks", only=["clerk"])
    here.with_worker(name="books", only=["book"])
    up = here.up()
    chance = random.Random(7)
    with Messenger(str(here.data_dir)) as messenger:
        kills: Counter[str] = Counter()
        for number in range(_ROUNDS):
            for part in range(4):
                messenger.publish("orders", f"{number}.{part}", payload_type="t")
            rows = here.rows().values()
            running = [row for row in rows if row["state"] == "running" and kills[row["role"]] < _KILLS_OF_ONE]
            # Two at once as well, and one that has just come.
            for row in chance.sample(running, min(len(running), chance.choice((1, 1, 2)))):
                kills[row["role"]] += 1
                try:
                    os.kill(row["pid"], signal.SIGKILL)
                except ProcessLookupError:
                    pass  # it was quicker
    last = f"{_ROUNDS - 1}.3"
    up.wait_for(f"clerk {last} ", timeout=60).wait_for(f"book {last} ", timeout=60)
    eventually(lambda: {row["state"] for row in here.rows().values()} == {"up", "running"}, timeout=60)
    wanted = [f"{number}.{part}" for number in range(_ROUNDS) for part in range(4)]
    for id in ("clerk", "book"):
        handled = re.findall(rf"{id} (\d+\.\d) ", up.log)
        assert list(dict.fromkeys(handled)) == wanted
    assert up.stop() == 0
    nothing_left(here.data_dir)
