"""Timing of handlers: every slow one, now and then a quick one, and the counts are those of all messages."""

from __future__ import annotations

import mmap
import time
from pathlib import Path

import pytest
from child import Child, eventually
from hypothesis import given
from hypothesis import strategies as st

from keyop import Messenger
from keyop.inspection import presence
from keyop.ipc import layout
from keyop.ipc.histogram import Distribution, Histogram
from keyop.ipc.memory import Memory
from keyop.ipc.slot import Slot
from keyop.messages.envelope import Envelope
from keyop.messages.message import Message
from keyop.messages.timestamps import TimeReader, format_ns, parse_ns
from keyop.storage.directory import DataDirectory
from keyop.subscriber.stopwatch import Stopwatch


class Held:
    """Stands for a held cursor: its slot alone."""

    def __init__(self) -> None:
        self.slot = Slot(Memory("slots", mmap.mmap(-1, layout.PORT_SIZE_BYTES)), 0)

    def histogram(self, which: int) -> Histogram:
        return self.slot.histogram(which)

    @property
    def ages(self) -> Distribution:
        return self.slot.times(layout.AGES)

    @property
    def handler_times(self) -> Distribution:
        return self.slot.times(layout.HANDLER_TIMES)


def message(offset: int, ts: str = "", attempt: int = 1) -> Message:
    return Message(Envelope(v=1, ts=ts or format_ns(time.time_ns())), None, offset, attempt)


def test_every_message_of_a_slow_handler_is_timed() -> None:
    held = Held()
    watch = Stopwatch(held)  # type: ignore[arg-type]
    for number in range(5):
        watch.invoke(lambda _: time.sleep(0.003), message(number * 300))
        assert held.handler_times.total == number + 1
    assert (held.handler_times.quantile_s(0.0) or 0) > 0.002
    assert (held.ages.quantile_s(1.0) or 1) < 1


def test_of_quick_handlers_few_are_timed_and_all_are_counted() -> None:
    held = Held()
    watch = Stopwatch(held)  # type: ignore[arg-type]
    now = format_ns(time.time_ns())
    timed = 0
    messages = [message(offset, now) for offset in range(0, 3_000_000, 300)]
    watch.begin_batch(0)
    for each in messages:
        untimed = watch.untimed
        watch.invoke(lambda _: None, each)
        timed += watch.untimed <= untimed and watch.untimed == 0
    assert held.handler_times.total + watch.untimed == len(messages)
    assert 2 <= timed < len(messages) / 2
    assert held.ages.total == held.handler_times.total


def test_the_first_message_after_a_pause_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held()
    watch = Stopwatch(held)  # type: ignore[arg-type]
    watch.invoke(lambda _: None, message(0))
    watch.look_at = 1 << 19  # it was quick: the next one to be timed is far away
    watch.begin_batch(300)
    clock = time.perf_counter_ns()
    monkeypatch.setattr("keyop.subscriber.stopwatch.perf_counter_ns", lambda: clock + 10**9)
    watch.begin_batch(300)
    assert watch.look_at == 300


def test_a_handler_that_raises_is_timed_and_raises() -> None:
    held = Held()
    watch = Stopwatch(held)  # type: ignore[arg-type]

    def fail(_: Message) -> None:
        raise ValueError("not today")

    with pytest.raises(ValueError, match="not today"):
        watch.invoke(fail, message(0))
    assert held.handler_times.total == 1


def test_a_later_attempt_is_timed_and_its_age_is_not_counted_again() -> None:
    held = Held()
    watch = Stopwatch(held)  # type: ignore[arg-type]
    watch.look_at = 1000
    watch.invoke(lambda _: None, message(500, attempt=2))
    assert (held.handler_times.total, held.ages.total) == (1, 0)


@pytest.mark.parametrize("ts", ["", "yesterday", "2026-13-01T00:00:00.000000000Z"])
def test_a_message_without_a_time_has_no_age(ts: str) -> None:
    held = Held()
    watch = Stopwatch(held)  # type: ignore[arg-type]
    watch.invoke(lambda _: None, Message(Envelope(v=1, ts=ts), None, 0))
    assert (held.handler_times.total, held.ages.total) == (1, 0)


def test_a_message_of_the_future_took_no_time() -> None:
    held = Held()
    Stopwatch(held).invoke(lambda _: None, message(0, "2999-01-01T00:00:00.000000000Z"))  # type: ignore[arg-type]
    assert held.ages == Distribution((1, *[0] * (layout.HISTOGRAM_COUNTS - 1)), 0)


_DIGITS = st.text("0123456789٣", min_size=9, max_size=9)
_TIMES = st.one_of(
    st.integers(0, 4 * 10**18).map(format_ns),
    st.builds("2026-03-31T14:22:0{}.{}{}".format, st.sampled_from("123"), _DIGITS, st.sampled_from(["Z", "+"])),
    st.builds("2026-03-31T14:22:01{}".format, st.text(max_size=12)),
    st.text(max_size=40),
)


@given(st.lists(_TIMES, max_size=8))
def test_times_are_read_as_one_by_one(texts: list[str]) -> None:
    reader = TimeReader()
    for text in texts:
        assert reader.parse_ns(text) == parse_ns(text)


def times_of(directory: DataDirectory, channel: str) -> list[tuple[Distribution, Distribution]]:
    """Ages and handler times of the channel's subscriptions, as others see them."""
    found = []
    for process in presence.attached(directory):
        port = presence.open_port(presence.identity_of(directory), process.port)
        assert port is not None
        wanted = [slot for slot in presence.slots_of(port) if slot.granted and slot.names()[0] == channel.encode()]
        found += [(slot.times(layout.AGES), slot.times(layout.HANDLER_TIMES)) for slot in wanted]
        port.close()
    return found


_SUBSCRIBER = """
exactly_once = sys.argv[2] == "exactly_once"
with Messenger(str(data_dir)) as m:
    if sys.argv[2] == "typed":
        m.register_payload_type("com.example.number.v1", int)
    m.subscribe("numbers", "counter", lambda _: time.sleep(0.002), exactly_once=exactly_once)
    say("ready")
    hear()
"""


@pytest.mark.parametrize("kind", ["plain", "typed", "exactly_once"])
def test_times_of_a_subscription_stand_in_shared_memory(data_dir: Path, kind: str) -> None:
    with Child(_SUBSCRIBER, data_dir, kind) as child:
        child.expect("ready")
        with Messenger(data_dir) as m:
            m.publish_batch("numbers", range(20), payload_type="com.example.number.v1")
        directory = DataDirectory(data_dir)

        def handled() -> bool:
            return sum(each.handled for each in presence.subscriptions(directory).values()) == 20

        eventually(handled)
        ((ages, handler_times),) = times_of(directory, "numbers")
        assert handler_times.total == ages.total == 20
        assert (handler_times.quantile_s(0.0) or 0) > 0.001
        assert (ages.quantile_s(0.0) or 0) <= (ages.quantile_s(1.0) or 0)
        assert (ages.quantile_s(1.0) or 0) > 0.02  # the last one waited for nineteen others
        child.say()
        assert child.end() == 0
