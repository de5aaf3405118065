"""Messengers without a data directory whose connection is lost, whose hub stands still, or who say much at once
(cases 65 and 66)."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from child import DEADLINE_S, eventually, freeze, writer_pid
from federation import Host, Net, Proxy, net_at
from inbox import Inbox

from keyop import ConnectionLost, EphemeralMessenger, aio
from keyop.federation.ephemeral import QUEUE_MESSAGES


class Place:
    """A hub, a proxy in front of it, and the arguments of who has no data directory."""

    def __init__(self, net: Net) -> None:
        self.hub: Host = net.host("hub1").is_hub("doorbell").configure(federation={"drain_timeout_ms": 300})
        self.proxy: Proxy = net.proxy(self.hub)
        self.pki = net.pki
        tls = net.pki.instance("doorbell")
        self.arguments = {"hub": self.proxy.address, "cert": tls.cert, "key": tls.key, "ca": tls.ca}

    @contextmanager
    def frozen_writer(self) -> Iterator[None]:
        """The hub can commit nothing meanwhile, and acknowledges nothing."""
        pid = writer_pid(self.hub.path)
        assert pid is not None
        freeze(pid)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with net_at(tmp_path) as net:
        yield Place(net)


class Call:
    """A call in a thread of its own, which must not wait for ever."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self.raised: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:
            self.raised = error

    def end(self) -> Exception | None:
        """What it raised."""
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "it waits"
        return self.raised

    @property
    def waits(self) -> bool:
        return self._thread.is_alive()


def test_a_loss_before_the_acknowledgement(place: Place) -> None:
    """Case 65: nobody can know, and that is said; what is published next goes over the next connection."""
    place.hub.start_hub()
    with EphemeralMessenger(**place.arguments) as m:
        m.publish("up", 0, payload_type="t")
        with place.frozen_writer():
            passed = place.proxy.passed[0]
            call = Call(lambda: m.publish("up", 1, payload_type="t"))
            eventually(lambda: place.proxy.passed[0] > passed)
            assert call.waits
            place.proxy.reset()
            raised = call.end()
        assert isinstance(raised, ConnectionLost)
        assert str(raised) == "the connection was lost: the hub may have the message or not"
        m.publish("up", 2, payload_type="t", timeout=DEADLINE_S)
    # It had been handed over: this time the hub has it. It is there once, and in its place.
    assert place.hub.payloads("up") == [0, 1, 2]


def test_a_full_queue_makes_publishers_wait(place: Place) -> None:
    """Case 65: and what waits arrives, all of it, once and in its order."""
    count = 2 * QUEUE_MESSAGES

    async def play() -> None:
        async with aio.EphemeralMessenger(**place.arguments) as m:
            queue = m._client._queue
            calls = [asyncio.create_task(m.publish("up", number, payload_type="t")) for number in range(count)]
            while not queue.is_full:
                await asyncio.sleep(0)
            assert len(queue._waiting) == QUEUE_MESSAGES
            with pytest.raises(TimeoutError):
                await m.publish("up", "too late", payload_type="t", timeout=0.05)
            assert len(queue._waiting) == QUEUE_MESSAGES
            await asyncio.to_thread(place.hub.start_hub)
            await asyncio.wait_for(asyncio.gather(*calls), DEADLINE_S)

    asyncio.run(play())
    assert place.hub.has("up", count) == list(range(count))


def test_a_time_limit_is_kept_where_the_hub_stands_still(place: Place) -> None:
    """Case 65: it may be committed later, which the error does not deny."""
    place.hub.start_hub()
    with EphemeralMessenger(**place.arguments) as m:
        m.publish("up", 0, payload_type="t")
        with place.frozen_writer(), pytest.raises(TimeoutError, match="not acknowledged the message within"):
            m.publish("up", 1, payload_type="t", timeout=0.2)
        m.publish("up", 2, payload_type="t")
    assert place.hub.payloads("up") == [0, 1, 2]


def test_publishing_and_hearing_at_once(place: Place) -> None:
    """Case 65: frames of both directions, larger than a socket takes at once, do not get into each other."""
    place.hub.start_hub()
    pad = "x" * 100_000
    numbers = list(range(100))
    with EphemeralMessenger(**place.arguments) as m:
        inbox = Inbox()
        m.subscribe("down", inbox)
        m.wait_connected(DEADLINE_S)
        threads = [Call(lambda: [m.publish("up", [n, pad], payload_type="t") for n in numbers]) for _ in range(3)]
        for number in numbers:
            place.hub.publish("down", [number, pad])
        assert [inbox.next().payload[0] for _ in numbers] == numbers
        assert [thread.end() for thread in threads] == [None] * 3
    assert sorted(number for number, _ in place.hub.payloads("up")) == sorted(3 * numbers)


@pytest.mark.parametrize("how", ["cut", "killed", "stopped"])
def test_without_reconnect_a_loss_is_the_end_at_once(place: Place, how: str) -> None:
    """Case 66: who publishes then does not wait; nor does who waited in the queue."""
    place.hub.start_hub()
    m = EphemeralMessenger(**place.arguments, auto_reconnect=False)
    m.publish("up", 0, payload_type="t")
    with place.frozen_writer():
        passed = place.proxy.passed[0]
        calls = [Call(lambda: m.publish("up", "x" * 1_000, payload_type="t")) for _ in range(50)]
        eventually(lambda: place.proxy.passed[0] > passed)
        if how == "cut":
            place.proxy.cut()
        else:
            os.kill(place.hub.hub.pid, signal.SIGKILL if how == "killed" else signal.SIGTERM)
        raised = [call.end() for call in calls]
        assert {type(error) for error in raised} == {ConnectionLost}, raised
        began_s = time.monotonic()
        for _ in range(3):
            with pytest.raises(ConnectionLost):
                m.publish("up", 2, payload_type="t")
            with pytest.raises(ConnectionLost):
                m.wait_connected()
        assert time.monotonic() - began_s < 1.0
    m.close()


def test_renewed_files_are_used_by_the_next_connection(place: Place) -> None:
    """Its certificate has expired while it ran: it does not have to be started again."""
    place.hub.start_hub()
    place.pki.instance("doorbell", days=1, now=datetime.now(UTC) - timedelta(days=2))
    with EphemeralMessenger(**place.arguments) as m:
        with pytest.raises(TimeoutError, match="our certificate has expired"):
            m.wait_connected(2)
        place.pki.instance("doorbell")
        m.publish("up", 1, payload_type="t", timeout=DEADLINE_S)
    assert place.hub.payloads("up") == [1]
