"""kill -9 of hub, client and writers at each step of a message's way: what was acknowledged arrives, once, in order."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from child import DEADLINE_S, ROOT, eventually, kill_writer
from federation import Host, Net, Process, net_at, to_hub
from test_federation_kills import Publisher
from writers import TINY, Writer

from keyop.writer.process import EXIT_BUSY

KILLING = f"{ROOT / 'tests' / 'killing'}:{ROOT}"


class Way:
    """A hub and a client, each with a process that publishes, and a look at what has arrived."""

    def __init__(self, net: Net, stack: ExitStack) -> None:
        self.hub = net.host("hub1").is_hub("host2")
        self.client = net.host("host2")
        self.client.is_client(to_hub(self.hub.address, subscribe=("down",), publish=("up",)))
        self._stack = stack
        self._publishers: list[Publisher] = []

    def publish(self) -> None:
        """From here on, both."""
        for host, channel in ((self.client, "up"), (self.hub, "down")):
            self._publishers.append(self._stack.enter_context(Publisher(host, channel)))

    def host(self, role: str) -> Host:
        return self.hub if role == "hub" else self.client

    def start(self, role: str, **options: object) -> Process:
        host = self.host(role)
        return host.start_hub(**options) if role == "hub" else host.start_client(**options)

    def moves(self) -> None:
        """Wait until something has arrived on both sides that had not before."""
        marks = len(self.hub.lines("up")), len(self.client.lines("down"))
        eventually(
            lambda: len(self.hub.lines("up")) > marks[0] and len(self.client.lines("down")) > marks[1], 2 * DEADLINE_S
        )

    def check(self) -> None:
        """All that was acknowledged has arrived: once, in its order."""
        for publisher, host, channel in zip(self._publishers, (self.hub, self.client), ("up", "down"), strict=True):
            sent = publisher.stop()
            eventually(lambda host=host, channel=channel, sent=sent: len(host.lines(channel)) >= len(sent))  # type: ignore[misc]
            there = host.ids(channel)
            assert len(there) == len(set(there)), f"{len(there) - len(set(there))} duplicates on {host.name}"
            assert there == sent


@pytest.fixture
def way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    monkeypatch.setenv("KEYOP_STORAGE__MAX_FILES", "0")  # whoever starts a writer
    with net_at(tmp_path) as net, ExitStack() as stack:
        yield Way(net, stack)


STEPS = [
    # the start
    "host:_only_one:after:1",
    "positions:PositionNames._write:after:1",
    "attachment.held_cursor:HeldCursor.open:before:1",
    "attachment.held_cursor:HeldCursor.open:after:1",
    "outbound:Outbound._open:after:1",
    "news:News.follow:after:1",
    "standing:Standings.add:after:1",
    # the handshake
    "websocket:WebSocket.secure:after:1",
    "session:Session._receive_hello:after:1",
    "connection:Connection._greet:before:1",
    "outbound:Outbound.connected:after:1",
    "connection:Connection._greet:after:1",
    # a message comes
    "session:Session._receive_binary:after:3",
    "inbound:Inbound.hand_over:before:3",
    "known_ids:ChannelIds._begin:after:1",
    "inbound:Inbound._send:before:3",
    "inbound:Inbound._send:after:3",
    "inbound:Inbound.committed:before:3",
    "inbound:Inbound.committed:after:3",
    "session:Session.committed:after:3",
    # a message goes
    "feed:Feed.take:after:3",
    "session:Session.send:after:3",
    "websocket:WebSocket.send:after:8",
    "outbound:Outbound.sent:after:3",
    "outbound:Outbound.acknowledged:before:3",
    "feed:Feed._move:before:3",
    "feed:Feed._move:after:3",
    "audit:Audit.forwarded:after:3",
]

AT_THE_END = [
    "host:Host.drain:before:1",
    "session:Session.drain:after:1",
    "host:Host.drain:after:1",
    "outbound:Outbound.close:before:1",
    "attachment.held_cursor:HeldCursor.close:after:1",
    "host:Host.close:before:1",
    "known_ids:KnownIds.close:after:1",
    "host:Host.close:after:1",
]


def where(step: str) -> str:
    module, _, rest = step.partition(":")
    return f"keyop.{module}:{rest}" if "." in module else f"keyop.federation.{module}:{rest}"


def kill_at(way: Way, role: str, step: str) -> None:
    """Start one that dies at a step, and see that it does."""
    host = way.host(role)
    for path in (host.path / "run").glob("fed*-names.json"):
        path.unlink()  # so that they are noted again
    victim = way.start(role, wait=False, env={"PYTHONPATH": KILLING, "KEYOP_TEST_KILL_AT": where(step)})
    if step in AT_THE_END:
        way.moves()
        victim.process.terminate()
    try:
        eventually(lambda: victim.process.poll() is not None)
    finally:
        assert victim.process.poll() == -signal.SIGKILL, f"{step}: {victim.log}"


@pytest.mark.parametrize("role", ["hub", "client"])
def test_each_step_of_hub_and_client(way: Way, role: str) -> None:
    """Each successor of one that was killed is killed itself, a step later; the other side stays."""
    way.start("hub", wait=False)
    way.start("client").wait_for("connected to hub1")
    way.publish()
    way.moves()
    (way.hub.hub if role == "hub" else way.client.client).kill()
    for step in [*STEPS, *AT_THE_END]:
        kill_at(way, role, step)
    way.start(role)
    way.moves()
    way.check()
    assert "Traceback" not in way.hub.hub.log + way.client.client.log


# ---- the writers


def replace_writer(host: Host, step: str) -> Writer:
    """End a host's writer and have one take over that dies at a step."""
    while True:
        kill_writer(host.path)
        # Hub, client and publisher start one, too, within half a second: whose is refused tries again.
        writer = Writer(host.path, on_demand=True, env={"KEYOP_CRASH_AT": step}, **TINY)
        if writer.settled() != EXIT_BUSY:
            return writer
        writer.end()


WRITER_STEPS = [
    "frame.written:3",
    "frame.synced:3",
    "segment.written:3",
    "applied:3",
    "settled:3",
    "segment.rolled:2",
    "offset.drafted:1",
    "journal.switched:1",
    "recovery.written:1",
    "recovery.applied:1",
    "recovery.zeroed:1",
    "recovery.offsets_synced:1",
    "recovery.freed:1",
]


ONLY_SOMETIMES = ("recovery.written:1", "offset.drafted:1")
"""Whether there is anything to write depends on where the last writer was killed."""


@pytest.mark.parametrize("both", [False, True], ids=["one-after-the-other", "both-and-all-others"])
def test_each_step_of_the_writers(way: Way, both: bool) -> None:
    """Of the commit and of the recovery. With both, hub and client are killed beside them."""
    way.start("hub", wait=False)
    way.start("client").wait_for("connected to hub1")
    way.publish()
    for number, step in enumerate(WRITER_STEPS):
        way.moves()
        hosts = [way.hub, way.client] if both else [way.client if number % 2 else way.hub]
        writers = [replace_writer(host, step) for host in hosts]
        if both:
            way.hub.hub.kill()
            way.client.client.kill()
            way.start("client", wait=False)
            way.start("hub")
        if step not in ONLY_SOMETIMES:
            for writer in writers:
                assert writer.end(timeout=DEADLINE_S) == -signal.SIGKILL, f"{step}: {writer.lines}"
    way.moves()
    way.check()
    assert "Traceback" not in way.hub.hub.log + way.client.client.log
