"""Times from publish to disk: counted by channel, in the port, and not in the way of anything."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

from child import Child, eventually, kill_writer

from keyop import Config, Messenger, aio
from keyop.inspection import presence
from keyop.ipc import layout
from keyop.ipc.histogram import Distribution
from keyop.publishing.publish_times import ATOMIC, OTHER_CHANNELS
from keyop.storage.directory import DataDirectory

TYPE = "com.example.number.v1"


def seen(data_dir: Path) -> dict[str, Distribution]:
    """What others see of the times of all processes."""
    directory = DataDirectory(data_dir)
    found: dict[str, Distribution] = {}
    for process in presence.attached(directory):
        port = presence.open_port(presence.identity_of(directory), process.port)
        if port is None:
            continue
        for slot in presence.slots_of(port):
            if slot.is_published:
                channel = slot.names()[0].decode()
                found[channel] = found.get(channel, Distribution()).plus(slot.times(layout.PUBLISH_TIMES))
        port.close()
    return found


def test_strict_publishes_are_counted_by_channel(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        for number in range(5):
            m.publish("a", number, payload_type=TYPE)
        m.publish_batch("b", range(10), payload_type=TYPE)
        with m.atomic() as tx:
            tx.publish("a", 1, payload_type=TYPE)
            tx.publish("b", 1, payload_type=TYPE)
        times = seen(data_dir)
    # A batch is one time; a transaction belongs to none of its channels.
    assert {channel: each.total for channel, each in times.items()} == {"a": 5, "b": 1, ATOMIC: 1}
    assert 0 < (times["a"].quantile_s(0.5) or 0) < 10


def test_periodic_publishes_are_counted_where_they_wait_for_the_disk(data_dir: Path) -> None:
    with Messenger(Config(storage={"data_dir": str(data_dir), "sync_interval_ms": 1000})) as m:
        for number in range(5):
            m.publish("a", number, payload_type=TYPE)
        assert seen(data_dir) == {}
        m.publish("a", 5, payload_type=TYPE, sync=True)
        assert {channel: each.total for channel, each in seen(data_dir).items()} == {"a": 1}


def test_channels_beyond_the_first_are_counted_together(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        for number in range(40):
            m.publish(f"channel-{number}", number, payload_type=TYPE)
        times = seen(data_dir)
        assert m.stats().subscribers == []
    assert len(times) == 33
    assert times.pop(OTHER_CHANNELS).total == 8
    assert {each.total for each in times.values()} == {1}


def test_of_thousands_in_flight_some_are_timed_for_all(data_dir: Path) -> None:
    async def publish() -> Distribution:
        async with aio.Messenger(data_dir) as m:
            await asyncio.gather(*(m.publish("a", number, payload_type=TYPE) for number in range(3000)))
            times = seen(data_dir)["a"]
            await asyncio.sleep(0)
            return times

    times = asyncio.run(publish())
    assert 1 <= times.total <= 3000
    assert (times.quantile_s(0.5) or 0) > 0


def test_many_threads_lose_no_count(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        threads = [
            threading.Thread(target=lambda: [m.publish("a", number, payload_type=TYPE) for number in range(50)])
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counted = m._publisher.times._channels["a"]
        assert counted.histogram.read().total + counted.untimed == 400
        assert seen(data_dir)["a"] == counted.histogram.read()


def test_a_child_counts_in_slots_of_its_own(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        m.publish("a", 1, payload_type=TYPE)
        before = m._publisher.times.read()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                m.publish("a", 2, payload_type=TYPE)
                both = seen(data_dir)["a"].total
                m.close()
                code = 0 if both == 2 else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert m._publisher.times.read() == before
        eventually(lambda: seen(data_dir)["a"] == before["a"])  # the child's port is swept


def test_they_go_on_after_the_writer_was_killed(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        m.publish("a", 1, payload_type=TYPE)
        kill_writer(data_dir)
        m.publish("a", 2, payload_type=TYPE)
        assert seen(data_dir)["a"].total == 2


def test_a_slot_of_a_channel_is_no_subscription(data_dir: Path) -> None:
    with Child('m = Messenger(str(data_dir)); m.publish("a", 1, payload_type="t"); say("done"); hear()', data_dir) as c:
        c.expect("done")
        (process,) = [each for each in presence.attached(DataDirectory(data_dir)) if each.alive]
        assert (process.role, process.subscriptions, process.peers) == ("publisher", [], [])
        kill_writer(data_dir)  # the next one takes up what ports hold
        with Messenger(data_dir) as m:
            m.publish("a", 2, payload_type=TYPE)
            assert presence.subscriptions(DataDirectory(data_dir)) == {}
        c.kill()
    eventually(lambda: not presence.attached(DataDirectory(data_dir)))


def test_subscriptions_come_first(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        for number in range(64):
            m.subscribe(f"in-{number}", "x", print)
        m.publish("a", 1, payload_type=TYPE)
        assert m._publisher.times.read()["a"].total == 1
        assert seen(data_dir) == {}
        assert not Path(f"/dev/shm{m._attachment.identity.slot_page(m._attachment._name, 1)}").exists()
