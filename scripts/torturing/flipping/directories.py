"""Real data directories whose bits are turned over, made by a writer, publishers and subscribers as processes.

The small one comes in three states. **rest**: after a clean stop, or a recovery. **killed**: everything was killed with
SIGKILL, the journal is live, and all that it says stands in the segments. **cut**: of what the journal says nothing
stands anywhere else, as after a power cut.
"""

from __future__ import annotations

import shutil
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from keyop import Message, Messenger
from keyop.configuration.lookup import settings_for
from keyop.inspection import at_rest
from keyop.ipc import lease
from torturing.flipping.child import Child
from torturing.shared_memory import sweep_shared_memory
from torturing.writer_process import WriterProcess, until

TYPE = "com.example.order.v1"


class Subscriber(NamedTuple):
    """One that a directory has an offset of."""

    channel: str
    id: str
    exactly_once: bool = False

    def __str__(self) -> str:
        return f"{self.channel}/{self.id}"


class Made(NamedTuple):
    """A directory whose bits may be turned over."""

    name: str
    """For the table."""
    path: Path
    subscribers: list[Subscriber]
    whole: bool = True
    """Whether all that the journal holds stands in the segments, too."""


_SMALL = [
    Subscriber("orders", "plain"),
    Subscriber("orders", "chain", exactly_once=True),
    Subscriber("orders", "slow"),
    Subscriber("out", "end"),
]
_MEMORY = [Subscriber("in", "ears"), Subscriber("in", "echo", exactly_once=True)]
OPTIONS: dict[str, Any] = {"journal_mb": 0.0625, "compaction_threshold_mb": 0.002, "max_files": 0}


class Room:
    """Makes directories below a place."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def small(self) -> list[Made]:
        """Three states."""
        killed, cut, rest = (self._place / name for name in ("killed", "cut", "rest"))
        with WriterProcess(killed, **OPTIONS) as writer:
            writer.wait_until_open()
            with Child(_work, killed) as worker, Child(_hang, killed) as hanging:
                worker.expect("checkpointed")
                shutil.copytree(killed, cut, ignore=_nothing_live)
                worker.say("go on")
                hanging.expect("in the handler")
                worker.expect("done")
                hanging.kill()
                _until_swept(killed, writer, leases=1)
                writer.kill()
        sweep_shared_memory(killed)
        _lay_over(killed / "journal", cut / "journal")
        _lay_over(killed / "run", cut / "run")
        (cut / "run" / "attempts").unlink(missing_ok=True)
        for path in killed.glob("channels/*/*.jsonl"):
            (cut / path.relative_to(killed)).touch()  # names are synced before a frame speaks of them
        shutil.copytree(killed, rest)
        with WriterProcess(rest, once=1, on_demand=1, **OPTIONS) as writer:
            assert writer.end() == 0, writer.records
        return [Made("rest", rest, _SMALL), Made("killed", killed, _SMALL), Made("cut", cut, _SMALL, whole=False)]

    def large(self, channels: int = 20, messages: int = 1500) -> Made:
        """Killed: many channels and segments, a live journal with a spill file."""
        large = self._place / "large"
        with WriterProcess(large, journal_mb=1, compaction_threshold_mb=0.0625, max_files=0) as writer:
            writer.wait_until_open()
            with Child(_fill, large, channels, messages) as worker:
                worker.expect("done")
                writer.kill()
        sweep_shared_memory(large)
        return Made("large", large, [Subscriber(f"c{channel}", "s") for channel in range(channels)])

    def memory(self) -> Made:
        """Killed, and its shared memory is there: rings that were not taken, cursors that no frame holds."""
        data_dir = self._place / "memory"
        with WriterProcess(data_dir, sync_interval_ms=60_000, **OPTIONS) as writer:
            writer.wait_until_open()
            with Child(_talk, data_dir) as talker, Child(_listen, data_dir) as listener:
                talker.expect("ready")
                listener.expect("subscribed")
                talker.say("begin")
                talker.expect("committed")
                listener.expect("in the handler")
                writer.freeze()
                talker.say("go on")
                listener.say("go on")
                talker.expect("accepted")
                listener.expect("handled")
                listener.kill()
                talker.kill()
                writer.kill()
        return Made("memory", data_dir, _MEMORY)


def _nothing_live(directory: str, names: list[str]) -> list[str]:
    """What is copied from beside a writer: its segments and offsets."""
    return [name for name in names if Path(directory).name in ("run", "journal") and name != "spill"]


def _lay_over(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)


def _until_swept(data_dir: Path, writer: WriterProcess, leases: int) -> None:
    """Wait until the writer has buried the dead: their last words are in a frame then."""
    pattern = f"{lease.PORT_PREFIX}*"
    until(lambda: len(list((data_dir / "run").glob(pattern))) <= leases, "the dead are buried")
    assert writer.process.poll() is None


# ---- what the processes do


def _work(pipe: Connection, data_dir: Path) -> None:
    """Publish and handle, checkpoint, publish and handle."""
    messenger = Messenger(data_dir, name="shop")

    def pass_on(message: Message[Any]) -> None:
        messenger.publish("out", {"of": message.payload["n"]}, payload_type=TYPE)

    def refuse(message: Message[Any]) -> None:
        if message.payload["n"] in (1, 7):
            raise ValueError("no such item")

    messenger.subscribe("orders", "chain", pass_on, start="earliest", exactly_once=True)
    messenger.subscribe("orders", "plain", refuse, start="earliest", max_retries=0)
    messenger.subscribe("out", "end", lambda _message: None, start="earliest")
    _publish(messenger, range(3))
    messenger.drain()
    messenger.drain()  # what the chain has passed on
    at_rest.checkpoint(settings_for(data_dir))
    pipe.send("checkpointed")
    pipe.recv()
    _publish(messenger, range(3, 7))
    messenger.publish_batch("orders", [_order(n) for n in range(7, 9)], payload_type=TYPE)
    with messenger.atomic() as transaction:
        transaction.publish("orders", _order(9), payload_type=TYPE)
        transaction.publish("out", {"of": -9}, payload_type=TYPE)
    messenger.drain()
    messenger.drain()
    _publish(messenger, range(10, 11))
    messenger.drain()
    pipe.send("done")
    pipe.recv()


def _order(number: int) -> dict[str, Any]:
    return {"n": number, "for": "Zoë", "items": [number, None, 1.5], "note": "*J\n" if number % 4 == 0 else ""}


def _publish(messenger: Messenger, numbers: range) -> None:
    for number in numbers:
        messenger.publish("orders", _order(number), payload_type=TYPE, correlation_id="c" if number == 2 else "")


def _hang(pipe: Connection, data_dir: Path) -> None:
    """A subscriber that is killed in its handler: the attempt is noted for its successor."""
    messenger = Messenger(data_dir, name="slow")

    def hang(message: Message[Any]) -> None:
        if message.payload["n"] == 5:
            pipe.send("in the handler")
            pipe.recv()

    messenger.subscribe("orders", "slow", hang, start="earliest")
    pipe.recv()


def _fill(pipe: Connection, data_dir: Path, channels: int, messages: int) -> None:
    messenger = Messenger(data_dir, name="mill")
    for channel in range(channels):
        messenger.subscribe(f"c{channel}", "s", lambda _message: None, start="earliest")
    for first in range(0, messages, 50):
        for channel in range(channels):
            batch = [{"n": number, "note": "x" * (number % 97)} for number in range(first, min(messages, first + 50))]
            messenger.publish_batch(f"c{channel}", batch, payload_type=TYPE)
    messenger.drain()
    messenger.publish_batch(
        "c0", [{"n": messages + number, "note": "y" * 30_000} for number in range(6)], payload_type=TYPE
    )
    messenger.drain()
    pipe.send("done")
    pipe.recv()


def _talk(pipe: Connection, data_dir: Path) -> None:
    """Publish while the writer takes it, and while it stands still."""
    messenger = Messenger(data_dir, name="mouth")
    pipe.send("ready")
    pipe.recv()
    messenger.publish("other", {"n": -1}, payload_type=TYPE, sync=True)
    for number in range(3):
        messenger.publish("in", {"n": number}, payload_type=TYPE, sync=number == 2)
    pipe.send("committed")
    pipe.recv()
    for number in range(3, 6):
        messenger.publish("in", {"n": number}, payload_type=TYPE)
    messenger.publish_batch("other", [{"n": number} for number in range(6, 8)], payload_type=TYPE)
    pipe.send("accepted")
    pipe.recv()


def _listen(pipe: Connection, data_dir: Path) -> None:
    """Two subscribers; the last message is handled, and passed on, when the writer stands still."""
    messenger = Messenger(data_dir, name="ears")
    began, go_on = threading.Semaphore(0), threading.Event()

    def hold(message: Message[Any]) -> None:
        if message.payload["n"] == 2:
            began.release()
            go_on.wait()

    def echo(message: Message[Any]) -> None:
        messenger.publish("out", {"of": message.payload["n"]}, payload_type=TYPE)
        hold(message)

    messenger.subscribe("in", "ears", hold, start="earliest")
    messenger.subscribe("in", "echo", echo, start="earliest", exactly_once=True)
    pipe.send("subscribed")
    for _ in range(2):
        began.acquire()
    pipe.send("in the handler")
    pipe.recv()
    go_on.set()
    until(lambda: all(each.handled == 3 for each in messenger.stats().subscribers), "both have handled it")
    pipe.send("handled")
    pipe.recv()
