"""drain(): a program that publishes, subscribes and ends can wait until its handlers are done."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from child import kill_writer

import keyop.aio
from keyop import Messenger

DEADLINE_S = 20.0
NUMBER = "com.example.number.v1"


def test_everything_published_before_is_handled_after(data_dir: Path) -> None:
    handled: list[int] = []
    with Messenger(data_dir) as m:
        m.subscribe("numbers", "slow", lambda msg: handled.append(msg.payload))
        m.publish_batch("numbers", range(500), payload_type=NUMBER)
        assert m.drain(DEADLINE_S)
        assert handled == list(range(500))


def test_without_anything_to_do_it_returns_at_once(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        assert m.drain(DEADLINE_S)
        m.subscribe("numbers", "idle", print)
        assert m.drain(DEADLINE_S)


def test_the_board_of_a_killed_writer_does_not_count(data_dir: Path) -> None:
    """Until the next tick a process looks at the board of the writer that it knew."""
    handled: list[int] = []
    with Messenger(data_dir) as m, Messenger(data_dir) as other:
        m.subscribe("numbers", "s", lambda message: handled.append(message.payload))
        other.publish("numbers", 1, payload_type=NUMBER)
        assert m.drain(DEADLINE_S)
        m._attachment.tick = lambda: None  # type: ignore[method-assign]
        kill_writer(data_dir)
        other.publish("numbers", 2, payload_type=NUMBER)
        assert handled == [1]
        assert not m.drain(0.05)
        del m._attachment.tick
        assert m.drain(DEADLINE_S)
        assert handled == [1, 2]


def test_a_handler_that_is_not_done_holds_it_up(data_dir: Path) -> None:
    entered, may_go_on = threading.Event(), threading.Event()

    def handler(_message: object) -> None:
        entered.set()
        may_go_on.wait(DEADLINE_S)

    with Messenger(data_dir) as m:
        m.subscribe("numbers", "stuck", handler)
        m.publish("numbers", 1, payload_type=NUMBER)
        assert entered.wait(DEADLINE_S)
        assert not m.drain(0.05)
        may_go_on.set()
        assert m.drain(DEADLINE_S)


def test_what_ends_in_the_dead_letters_is_done(data_dir: Path) -> None:
    def handler(_message: object) -> None:
        raise ValueError("never")

    with Messenger(data_dir) as m:
        m.subscribe("numbers", "failing", handler, max_retries=1, retry_backoff=(0.001, 0.001))
        m.publish("numbers", 1, payload_type=NUMBER)
        assert m.drain(DEADLINE_S)
        assert m.stats().subscribers[0].dead_lettered == 1


def test_exactly_once_is_done_when_its_output_is_committed(data_dir: Path) -> None:
    doubled: list[int] = []
    with Messenger(data_dir) as m:
        m.subscribe("doubled", "out", lambda msg: doubled.append(msg.payload))
        m.subscribe(
            "numbers", "in", lambda msg: m.publish("doubled", msg.payload * 2, payload_type=NUMBER), exactly_once=True
        )
        m.publish_batch("numbers", range(300), payload_type=NUMBER)
        assert m.drain(DEADLINE_S)
        assert m.drain(DEADLINE_S)  # what the first one's handlers published
        assert doubled == [2 * number for number in range(300)]


def test_the_same_for_asyncio(data_dir: Path) -> None:
    async def program() -> list[int]:
        handled: list[int] = []

        async def handler(message: keyop.Message[int]) -> None:
            await asyncio.sleep(0)
            handled.append(message.payload)

        async with keyop.aio.Messenger(data_dir) as m:
            await m.subscribe("numbers", "async", handler)
            await m.publish_batch("numbers", range(50), payload_type=NUMBER)
            assert await m.drain(DEADLINE_S)
        return handled

    assert asyncio.run(program()) == list(range(50))
