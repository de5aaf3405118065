"""`Messenger.stats()`: traffic, errors, saturation and latency as objects."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path

from child import eventually, freeze, writer_pid
from federation import net_at, to_hub

from keyop import Messenger, aio
from keyop.ipc.histogram import Distribution
from keyop.statistics import Latency

TYPE = "com.example.number.v1"


def test_latencies_of_publishes_and_handlers(data_dir: Path) -> None:
    with Messenger(data_dir) as m:

        def handle(message: object) -> None:
            time.sleep(0.002)
            raise ValueError

        m.subscribe("a", "s", handle, max_retries=2, retry_backoff=(0.001, 0.001))
        m.publish("a", 1, payload_type=TYPE)
        m.publish("a", 2, payload_type=TYPE)
        eventually(lambda: m.stats().subscribers[0].dead_lettered == 2)
        statistics = m.stats()
        (one,) = statistics.subscribers
        assert (one.failed, one.handled) == (6, 0)
        assert (one.delivery_age.count, one.handler_time.count) == (2, 6)
        assert 0.001 < (one.handler_time.p50_s or 0) <= (one.handler_time.p90_s or 0) <= (one.handler_time.p99_s or 0)
        assert 0.002 <= (one.handler_time.mean_s or 0) < 1
        (published,) = statistics.published
        assert (published.channel, published.to_disk.count) == ("a", 2)
        assert 0 < (published.to_disk.p50_s or 0) < 5
        assert statistics.commit.count >= statistics.published[0].to_disk.count
        assert statistics.sync.count >= 2
        assert statistics.peers == []


def test_nothing_counted_is_none(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        m.subscribe("a", "s", print)
        statistics = m.stats()
        assert (
            statistics.subscribers[0].handler_time == Latency(0, None, None, None, None) == Latency.of(Distribution())
        )
        assert (statistics.published, statistics.ring_used_bytes) == ([], 0)
        assert statistics.ring_bytes == 256 * 1024


def test_the_ring_shows_what_the_writer_has_not_taken(data_dir: Path) -> None:

    with Messenger(data_dir) as m:
        m.publish("a", 0, payload_type=TYPE)
        pid = writer_pid(data_dir)
        assert pid is not None
        freeze(pid)
        try:
            thread = threading.Thread(target=lambda: m.publish("a", "x" * 10_000, payload_type=TYPE))
            thread.start()
            eventually(lambda: 10_000 < m.stats().ring_used_bytes < 11_000)
        finally:
            os.kill(pid, signal.SIGCONT)
        thread.join()
        assert m.stats().ring_used_bytes == 0


def test_the_same_for_asyncio(data_dir: Path) -> None:
    async def main() -> None:
        done = asyncio.Event()

        async def handle(_: object) -> None:
            await asyncio.sleep(0.002)
            done.set()

        async with aio.Messenger(data_dir) as m:
            await m.subscribe("a", "s", handle)
            await m.publish("a", 1, payload_type=TYPE)
            await asyncio.wait_for(done.wait(), 10)
            assert await m.drain(10)
            statistics = m.stats()
            assert statistics.published[0].to_disk.count == 1
            assert (statistics.subscribers[0].handler_time.mean_s or 0) > 0.001

    asyncio.run(main())


def test_peers_and_their_round_trips(tmp_path: Path) -> None:
    with net_at(tmp_path) as net:
        hub = net.host("hub1").is_hub("host2")
        client = net.host("host2").is_client(to_hub(hub.address, subscribe=("down",), publish=("up",)))
        hub.start_hub()
        client.start_client().wait_for("connected to hub1")
        with Messenger(client.path) as m:
            m.publish("up", 1, payload_type=TYPE)
            eventually(lambda: m.stats().peers[0].round_trip.count > 0)
            (peer,) = m.stats().peers
        assert (peer.role, peer.name, peer.state, peer.sent, peer.behind_bytes) == ("client", "hub1", "connected", 1, 0)
        assert 0 < (peer.round_trip.p99_s or 0) < 10
        with Messenger(hub.path) as m:
            eventually(lambda: m.stats().peers[0].received == 1)
            assert m.stats().peers[0].round_trip == Latency.of(Distribution())
