"""The life of a publisher: single messages, batches, ``atomic``, and now and then one that is too long for a ring."""

from __future__ import annotations

import random
import time
from typing import Any

from keyop import Messenger
from torturing.orders import CLOSE_TIMEOUT_S, Orders, complaining_logger
from torturing.workload import TYPE, Assignment, payload

_SPILL_BYTES = 128 * 1024


class Publisher:
    """Publishes until SIGTERM, or as often as the plan says."""

    def __init__(self, assignment: Assignment) -> None:
        self._a = assignment
        self._notes = assignment.notebook()
        self._chance = random.Random(f"{assignment.seed}/{assignment.who}/{assignment.life}")
        self._next = 0
        self._orders = Orders()

    def run(self) -> None:
        """All of it."""
        plan = self._a.plan
        settings = plan.settings(self._a.data_dir)
        messenger = Messenger(settings, name=self._a.who, logger=complaining_logger(self._notes))
        self._notes.note("ready")
        published = 0
        while not self._orders.to_leave and (not plan.limit or published < plan.limit):
            self._one(messenger)
            published += 1
            if plan.pause_s:
                time.sleep(plan.pause_s)
        messenger.close(CLOSE_TIMEOUT_S)
        self._notes.note("closed")

    def _one(self, messenger: Messenger) -> None:
        chance = self._chance
        channel = "in" if chance.random() < 0.7 else "other"
        sync = chance.random() < 0.1
        kind = chance.random()
        if kind < self._a.plan.big:
            self._single(messenger, channel, sync, "B" * (_SPILL_BYTES + chance.randrange(80_000)))
        elif kind < 0.15:
            self._batch(messenger, channel, sync)
        elif kind < 0.3:
            self._atomic(messenger)
        else:
            self._single(messenger, channel, sync, "x" * chance.randrange(300))

    def _single(self, messenger: Messenger, channel: str, sync: bool, bulk: str) -> None:
        said = self._say(bulk, sync=sync)
        messenger.publish(channel, said, payload_type=TYPE, sync=sync or None)
        self._notes.note("published", channel=channel, ns=[said["n"]], sync=sync)

    def _batch(self, messenger: Messenger, channel: str, sync: bool) -> None:
        """Mostly short; now and then so long that it spills and is split over many segments."""
        size = self._chance.randrange(2, 9)
        bulk = "y" * self._chance.randrange(300)
        if self._chance.random() < self._a.plan.big:
            size, bulk = 40, "Y" * 4000
        group = {"first": self._next, "size": size, "kind": "batch"}
        said = [self._say(bulk, sync=sync, group=group) for _ in range(size)]
        messenger.publish_batch(channel, said, payload_type=TYPE, sync=sync or None)
        self._notes.note("published", channel=channel, ns=[each["n"] for each in said], sync=sync)

    def _atomic(self, messenger: Messenger) -> None:
        channels = ["in", "other", *self._chance.choices(["in", "other"], k=self._chance.randrange(3))]
        self._chance.shuffle(channels)
        group = {"first": self._next, "size": len(channels), "kind": "atomic"}
        parts = []
        with messenger.atomic() as transaction:
            for channel in channels:
                said = self._say("a" * self._chance.randrange(200), group=group)
                transaction.publish(channel, said, payload_type=TYPE)
                parts.append([channel, said["n"]])
        self._notes.note("atomic", parts=parts, sync=True)

    def _say(self, bulk: str, **more: object) -> dict[str, Any]:
        number = self._next
        self._next += 1
        return payload(self._a.who, self._a.life, number, bulk, **more)
