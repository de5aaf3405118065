"""The life of a subscriber's process, with one or several of the subscriptions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from zlib import crc32

from keyop import Message, Messenger
from keyop.errors import SubscriberBusy
from torturing.orders import CLOSE_TIMEOUT_S, PROVOKED, Orders, complaining_logger
from torturing.putting_back import replay_the_rest, was_given_up
from torturing.workload import SHARERS, SUBSCRIPTIONS, TYPE, Assignment, failing, is_whole

_MAX_RETRIES = 3
_BACKOFF_S = (0.001, 0.01)
_BUSY_S = 20.0


class Subscriber:
    """One process with some of the subscriptions."""

    def __init__(self, assignment: Assignment, ids: list[str]) -> None:
        self._a = assignment
        self._ids = ids
        self._notes = assignment.notebook()
        self._orders = Orders()

    def run(self) -> None:
        """Handle messages until told to leave."""
        messenger = self.attach()
        self._notes.note("ready")
        self._orders.wait()
        if self._orders.to_drain:
            self.drain(messenger)
        messenger.close(CLOSE_TIMEOUT_S)
        self._notes.note("closed")

    def attach(self) -> Messenger:
        """Subscribe."""
        settings = self._a.plan.settings(self._a.data_dir)
        self._messenger = Messenger(settings, name=self._a.who, logger=complaining_logger(self._notes))
        for id in self._ids:
            if id == "shared":
                self._share()
            else:
                self._subscribe(id, self._pass_on if id == "chain" else self._handler(id))
        return self._messenger

    def drain(self, messenger: Messenger) -> None:
        """Twice: what the chain passes on is published meanwhile."""
        for _ in range(2):
            if not messenger.drain(CLOSE_TIMEOUT_S):
                raise TimeoutError(
                    f"{', '.join(self._ids)}: not drained in {CLOSE_TIMEOUT_S:.0f} s: {messenger.stats()}"
                )
        if "plain" in self._ids and self._a.plan.replays:
            replay_the_rest(self._a, messenger)
        self._notes.note("drained")

    def _share(self) -> None:
        """The parts that are this process's; in a process that drains all of them."""
        a = self._a
        for part in range(1, a.parts + 1):
            if a.who not in SHARERS or a.who == SHARERS[(part - 1) % len(SHARERS)]:
                handle = self._handler("shared", part=part, division=a.division)
                self._subscribe("shared", handle, (part, a.parts))

    def _subscribe(self, id: str, handle: Callable[[Message[Any]], None], part: tuple[int, int] | None = None) -> None:
        deadline = time.monotonic() + _BUSY_S
        while True:
            try:
                self._messenger.subscribe(
                    SUBSCRIPTIONS[id],
                    id,
                    handle,
                    start="earliest",
                    exactly_once=id == "chain",
                    max_retries=_MAX_RETRIES,
                    retry_backoff=_BACKOFF_S,
                    part=part,
                    key=_life if part is not None else None,
                )
                return
            except SubscriberBusy:
                # The predecessor was killed, and the writer has not seen it yet.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)

    def _handler(self, id: str, **more: int) -> Callable[[Message[Any]], None]:
        channel = SUBSCRIPTIONS[id]

        def handle(message: Message[Any]) -> None:
            said = message.payload
            what = "handled"
            if not is_whole(said):
                what = "garbled"
            name = [said.get("from"), said.get("life"), said.get("n")]
            if what == "handled" and failing(said["n"]) == id:
                back = id == "plain" and self._a.plan.replays and was_given_up(self._a.data_dir, name)
                what = "replayed" if back else "failed"
            self._notes.note(what, by=id, channel=channel, of=name, at=message.offset, attempt=message.attempt, **more)
            if what == "failed":
                raise ValueError(PROVOKED)

        return handle

    def _pass_on(self, message: Message[Any]) -> None:
        said = message.payload
        passed = {"from": said["from"], "life": said["life"], "n": said["n"], "bulk": "p", "crc": crc32(b"p")}
        self._messenger.publish("out", passed, payload_type=TYPE)
        if said["n"] % 5 == 0:
            self._messenger.publish("copy", passed, payload_type=TYPE)
        if failing(said["n"]) == "chain":
            raise ValueError(f"{PROVOKED}: what was published goes with it")


def _life(message: Message[Any]) -> str:
    """The key of ``shared``."""
    return f"{message.payload['from']}/{message.payload['life']}"
