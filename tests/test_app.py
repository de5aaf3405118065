"""An app declares handlers: what it refuses while it connects to nothing, and what it is when it is attached."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from inbox import Inbox

import keyop.aio
from keyop import App, AppError, Message, Messenger
from keyop.errors import ChannelNameError, PayloadTypeError, SubscriberIdError

NUMBER = "com.example.number.v1"


def first(_message: Message) -> None:
    pass


def second(_message: Message) -> None:
    pass


def test_a_handler_stays_the_function_that_it_was() -> None:
    app = App()
    assert app.on("alerts", id="notifier", max_retries=0)(first) is first
    (declared,) = app.handlers
    assert (declared.channel, declared.id, declared.options) == (
        "alerts",
        "notifier",
        {"start": "latest", "max_retries": 0},
    )
    assert declared.name == "test_app.first"


@pytest.mark.parametrize(
    ("one", "other"),
    [("alerts", "alerts"), ("sensors.*", "sensors.attic"), ("sensors.attic", "sensors.*"), ("sensors.*", "sensors.*")],
)
def test_two_handlers_for_one_channel_and_id_are_named(one: str, other: str) -> None:
    app = App()
    app.on(one, id="notifier")(first)
    with pytest.raises(AppError, match=r"test_app\.first.*test_app\.second"):
        app.on(other, id="notifier")(second)
    app.on(other, id="another")(second)
    assert len(app.handlers) == 2


@pytest.mark.parametrize(
    ("declare", "error", "text"),
    [
        (lambda app: app.on("no channel", id="x"), ChannelNameError, "no channel"),
        (lambda app: app.on("sensors.[ab", id="x"), ChannelNameError, "without its ]"),
        (lambda app: app.on("sensors/*", id="x"), ChannelNameError, "sensors/"),
        (lambda app: app.on("alerts", id="fed-x"), SubscriberIdError, "fed-x"),
        (lambda app: app.on("alerts", id="x", max_retries=-1), ValueError, "max_retries"),
        (lambda app: app.on("alerts", id="x", retry_backoff=(2, 1)), ValueError, "retry_backoff"),
        (lambda app: app.on("alerts", id="x", start="soon"), ValueError, "start"),
        (lambda app: app.on("alerts", id="x", max_age=-1), ValueError, "max_age"),
        (lambda app: app.on("alerts", id="x", key="customer"), TypeError, "key"),
        (lambda app: app.on("alerts", id="x")(17), AppError, "17"),
        (lambda app: app.register_payload_type("", int), PayloadTypeError, "name"),
        (lambda app: app.publish("alerts", 1, payload_type=NUMBER), AppError, "not attached"),
        (lambda app: app.attach(None, only=["y"]), AppError, "no handler has the id y"),
    ],
)
def test_what_is_wrong_is_said_where_it_is_declared(
    declare: Callable[[App], Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        declare(App())


def test_a_payload_type_is_registered_once() -> None:
    app = App()

    @app.payload_type(NUMBER)
    @dataclass
    class Number:
        value: int

    assert Number(1) == Number(1)
    with pytest.raises(PayloadTypeError, match=NUMBER):
        app.register_payload_type(NUMBER, Number)


def test_an_attached_app_handles_and_publishes(data_dir: Path) -> None:
    app, results = App(), Inbox()

    @app.payload_type(NUMBER)
    @dataclass
    class Number:
        value: int

    @app.on("numbers", id="doubler", exactly_once=True)
    def double(message: Message[Number]) -> None:
        app.publish("doubled", Number(2 * message.payload.value))

    app.on("doubled", id="results")(results)
    app.on("numbers", id="other")(first)
    with Messenger(data_dir) as m:
        chosen = app.attach(m, only=["doubler", "results"])
        assert [declared.id for declared in chosen] == ["doubler", "results"]
        m.publish("numbers", Number(21))
        assert results.next().payload == Number(42)
        assert {(s.channel, s.id) for s in m.stats().subscribers} == {("numbers", "doubler"), ("doubled", "results")}
        with pytest.raises(AppError, match="already"):
            app.attach(m)
        with pytest.raises(AppError, match="coroutine"):
            _ = app.aio


def test_the_same_on_an_event_loop(data_dir: Path) -> None:
    async def program() -> list[int]:
        app, done = App(), asyncio.Queue[int]()

        @app.on("numbers", id="doubler")
        async def double(message: Message[int]) -> None:
            await app.aio.publish("doubled", 2 * message.payload, payload_type=NUMBER)

        @app.on("doubled", id="plain")
        def again(message: Message[int]) -> None:
            app.publish("quadrupled", 2 * message.payload, payload_type=NUMBER)

        @app.on("quadrupled", id="results")
        async def result(message: Message[int]) -> None:
            await done.put(message.payload)

        async with keyop.aio.Messenger(data_dir) as m:
            app.attach(m)
            await m.publish_batch("numbers", [1, 2], payload_type=NUMBER)
            return [await asyncio.wait_for(done.get(), 20) for _ in range(2)]

    assert asyncio.run(program()) == [4, 8]


def test_an_app_that_cannot_be_attached_is_free_again(data_dir: Path) -> None:
    app = App()
    app.on("numbers", id="one")(first)
    with Messenger(data_dir) as m, Messenger(data_dir) as other:
        other.subscribe("numbers", "one", first)
        with pytest.raises(keyop.SubscriberBusy):
            app.attach(m)
        other.unsubscribe("numbers", "one")
        assert len(app.attach(m)) == 1


def test_of_several_processes_the_first_has_what_is_exactly_once() -> None:
    app = App()
    app.on("numbers", id="exact", exactly_once=True)(first)
    app.on("numbers", id="shared", key=lambda message: message.payload_type)(second)
    assert [declared.id for declared in app.choose(part=(1, 2))] == ["exact", "shared"]
    assert [declared.id for declared in app.choose(part=(2, 2))] == ["shared"]


def test_declaring_imports_nothing_heavy_and_connects_to_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, keyop; app = keyop.App(); app.on('a', id='b')(print); "
        "print(sorted({'pydantic', 'asyncio', 'click', 'watchfiles', 'yaml', 'posix_ipc'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []


def test_what_is_held_back_begins_with_all_others(data_dir: Path) -> None:
    early, late, gone = Inbox(), Inbox(), Inbox()
    with Messenger(data_dir) as m:
        m.publish("numbers", 1, payload_type=NUMBER)
        with m.hold_back():
            m.subscribe("numbers", "early", early, start="earliest")
            m.subscribe("numbers", "gone", gone, start="earliest")
            m.subscribe("num*", "late", late, start="earliest")
            m.unsubscribe("numbers", "gone")
            assert not m.drain(0.05)
        assert m.drain(20)
        assert (early.next().payload, late.next().payload, gone.messages.qsize()) == (1, 1, 0)
        with pytest.raises(keyop.SubscriberBusy), m.hold_back():
            [m.subscribe("numbers", "never", gone, start="earliest") for _ in range(2)]
        m.subscribe("numbers", "at-once", early, start="earliest")
        assert early.next().payload == 1
    assert gone.messages.empty()
