"""A while in which our programs work on a directory: a writer, a publisher, subscribers and an exactly-once chain.

It ends cleanly, or everything is killed. What each of them was told stands in a ledger outside of the directory.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from keyop import Message, Messenger
from keyop.inspection import presence
from keyop.ipc import lease
from keyop.storage.directory import DataDirectory
from torturing.flipping.child import Child
from torturing.writer_process import WriterProcess, until

CHANNELS = ("orders", "other")
SUBSCRIPTIONS = {"plain": "orders", "chain": "orders", "watcher": "other"}
"""Subscriber's id → channel. ``chain`` passes each message on to ``out``, exactly once."""

OPTIONS: dict[str, Any] = {"journal_mb": 0.0625, "compaction_threshold_mb": 0.002, "max_files": 0}
_TYPE = "com.example.order.v1"
_DRAIN_S = 30.0


class Key(NamedTuple):
    """A message: who published it, in which life, and its number."""

    who: str
    life: int
    number: int


class Ledger:
    """A file of JSON lines, each written with one call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.touch()

    def notes(self, what: str) -> Iterator[dict[str, Any]]:
        """Those of one kind, in the order in which they were written."""
        data = self.path.read_bytes()
        for line in data[: data.rfind(b"\n") + 1].splitlines():  # the last one may be on its way
            note = json.loads(line)
            if note["what"] == what:
                yield note

    def acknowledged(self) -> list[tuple[str, Key]]:
        """(channel, message) of all that publishers were told of."""
        return [(note["channel"], Key(*key)) for note in self.notes("published") for key in note["keys"]]


def work(
    data_dir: Path,
    ledger: Ledger,
    life: int,
    count: int,
    seed: str,
    *,
    end: str,
    meanwhile: Callable[[], object] | None = None,
) -> list[dict[str, Any]]:
    """Publish and handle. ``end``: ``clean``, or ``kill`` in the middle; returns what the writer's log said.

    ``meanwhile`` is called when half of it is published and the publisher waits. The writer may leave then, and
    somebody start the next one.
    """
    chance = random.Random(seed)
    told = len(ledger.acknowledged()) + chance.randrange(1, count)
    with WriterProcess(data_dir, on_demand=int(meanwhile is not None), **OPTIONS) as writer:
        writer.wait_until_open()
        with (
            Child(_handle, data_dir, ledger.path, life) as handlers,
            Child(_publish, data_dir, ledger.path, life, count, seed, meanwhile is not None) as publisher,
        ):
            handlers.expect("subscribed")
            if meanwhile is not None:
                publisher.expect("half")
                meanwhile()
                publisher.say("go on")
            if end == "clean":
                publisher.expect("done")
                publisher.join()
                handlers.say("drain")
                handlers.expect("drained")
                handlers.join()
                code = _stop(data_dir, writer)
                if code:
                    raise RuntimeError(f"the writer ended with {code}: {writer.records[-20:]}")
            else:
                until(lambda: len(ledger.acknowledged()) >= told, f"{told} messages are acknowledged")
                victims: list[WriterProcess | Child] = [writer, handlers, publisher]
                for each in chance.sample(victims, len(victims)):
                    each.kill()
    crash = [str(record["line"]) for record in writer.records if record["event"] in ("crash", "traceback")]
    if crash and not (meanwhile is not None and "ForeignWrite" in crash[-1]):
        raise RuntimeError("\n".join(crash))
    return writer.records


def _stop(data_dir: Path, writer: WriterProcess) -> int:
    """End the writer that runs, which may be another one; the exit code of this one, if it was the last."""
    if writer.process.poll() is None:
        return writer.stop()
    writer.end()

    def left() -> bool:
        pid = presence.writer_pid(DataDirectory(data_dir))
        held = lease.is_held(data_dir / "run" / lease.WRITER_LOCK)
        if held and pid is not None:
            os.kill(pid, signal.SIGTERM)
        return not held

    until(left, "the writer that was started since has left")
    return 0


def _noting(path: Path) -> Any:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)

    def note(what: str, **fields: Any) -> None:
        os.write(fd, json.dumps({"what": what, **fields}).encode() + b"\n")

    return note


def _publish(pipe: Any, data_dir: Path, ledger: Path, life: int, count: int, seed: str, waits: bool) -> None:
    note = _noting(ledger)
    chance = random.Random(f"{seed} publisher")
    messenger = Messenger(data_dir, name="p")
    number = 0
    while number < count:
        if waits and number >= count // 2:
            waits = False
            pipe.send("half")
            pipe.recv()
        channel = chance.choice(CHANNELS)
        group = chance.choice((1, 1, 1, 2, 4))
        payloads = [
            {"from": "p", "life": life, "n": number + each, "note": "x" * chance.randrange(120)}
            for each in range(group)
        ]
        if group == 2:
            with messenger.atomic() as transaction:
                for payload in payloads:
                    transaction.publish(channel, payload, payload_type=_TYPE)
        elif group == 1:
            messenger.publish(channel, payloads[0], payload_type=_TYPE)
        else:
            messenger.publish_batch(channel, payloads, payload_type=_TYPE)
        note("published", channel=channel, keys=[["p", life, payload["n"]] for payload in payloads])
        number += group
    messenger.close()
    pipe.send("done")


def _handle(pipe: Any, data_dir: Path, ledger: Path, life: int) -> None:
    logging.getLogger("keyop").setLevel(logging.CRITICAL)
    note = _noting(ledger)
    messenger = Messenger(data_dir, name="h")

    def handle(message: Message[Any]) -> None:
        note("handled", by=by[message.channel], key=_key_of(message.payload), at=message.offset, life=life)

    def pass_on(message: Message[Any]) -> None:
        messenger.publish("out", {"of": _key_of(message.payload)}, payload_type=_TYPE)

    by = {channel: id for id, channel in SUBSCRIPTIONS.items() if id != "chain"}
    for id, channel in SUBSCRIPTIONS.items():
        handler = pass_on if id == "chain" else handle
        messenger.subscribe(channel, id, handler, start="earliest", exactly_once=id == "chain")
    pipe.send("subscribed")
    pipe.recv()
    if not (messenger.drain(_DRAIN_S) and messenger.drain(_DRAIN_S)):
        raise TimeoutError(f"not drained: {messenger.stats()}")
    messenger.close()
    pipe.send("drained")


def _key_of(payload: Any) -> list[Any]:
    return [payload["from"], payload["life"], payload["n"]]
