"""What users test their programs with: `deliver`, and the fixtures that pytest finds by itself."""

from __future__ import annotations

import asyncio
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from child import ROOT

import keyop
from keyop import App, AppError, Message, Messenger, RetryLater
from keyop.errors import ChannelNameError, MessageTooLarge, PayloadError, PayloadTypeError
from keyop.testing import deliver

pytest_plugins = ["pytester"]


@dataclass
class Alert:
    text: str


def shop() -> App:
    app = App()
    app.register_payload_type("com.example.alert.v1", Alert)

    @app.on("alerts", id="mailer", require_type=True)
    def mail(msg: Message[Alert]) -> str:
        app.publish("mails", {"to": "ops", "text": msg.payload.text}, payload_type="com.example.mail.v1")
        return msg.payload.text.upper()

    @app.on("alerts", id="counter")
    async def count(msg: Message[Alert]) -> int:
        async with app.aio.atomic() as tx:
            await tx.publish("counts", msg.attempt, payload_type="com.example.count.v1")
            await tx.publish("counts", msg.attempt + 1, payload_type="com.example.count.v1")
        await app.aio.publish_batch("alarms", [Alert("a"), Alert("b")])
        return msg.attempt

    @app.on("sensors.*", id="dash")
    def show(msg: Message) -> tuple[str, Any]:
        return msg.channel, msg.payload

    return app


def test_the_handlers_of_a_channel_are_run_and_what_they_publish_is_recorded() -> None:
    done = deliver(shop(), Alert("hot"), channel="alerts", attempt=2, correlation_id="lamp")
    assert done.results == ["HOT", 2]
    assert done.payloads("mails") == [{"to": "ops", "text": "hot"}]
    assert done.payloads("counts") == [2, 3]
    assert done.payloads("alarms") == [{"text": "a"}, {"text": "b"}]
    assert {message.correlation_id for message in done.published} == {"lamp"}
    assert (done.message.payload, done.message.payload_type) == (Alert("hot"), "com.example.alert.v1")


def test_what_is_published_belongs_to_what_was_delivered() -> None:
    done = deliver(shop(), Alert("hot"), channel="alerts", id="mailer")
    assert [message.correlation_id for message in done.published] == [done.message.id]


def test_a_pattern_s_handler_is_told_the_channel() -> None:
    assert deliver(shop(), 21.5, channel="sensors.attic").results == [("sensors.attic", 21.5)]
    with pytest.raises(AppError, match="name the channel"):
        deliver(shop(), 21.5, id="dash")


def test_a_function_without_an_app_gets_any_object() -> None:
    alert = Alert("hot")
    done = deliver(lambda msg: msg.payload, alert, channel="alerts", payload_type="com.example.alert.v1")
    assert done.results[0] is alert
    assert (done.message.channel, done.message.payload_type) == ("alerts", "com.example.alert.v1")
    with pytest.raises(PayloadError):
        deliver(lambda msg: msg.payload, object())


def test_a_payload_makes_its_way_through_json() -> None:
    got: list[Any] = []
    deliver(lambda msg: got.append(msg.payload), {"when": (1, 2), "to": None})
    assert got == [{"when": [1, 2], "to": None}]
    done = deliver(shop(), {"text": "hot"}, channel="alerts", payload_type="com.example.alert.v1")
    assert done.message.payload == Alert("hot")


@pytest.mark.parametrize(
    ("payload", "options", "error", "text"),
    [
        ({"text": 7}, {"channel": "alerts", "payload_type": "com.example.alert.v1"}, PayloadError, "not a valid"),
        ({"text": "x"}, {"channel": "alerts"}, PayloadError, "'application/json' is not registered"),
        (object(), {"channel": "alerts"}, PayloadTypeError, "name its type"),
        (float("nan"), {"channel": "sensors.attic"}, PayloadError, "NaN|nan"),
        (1, {"channel": "nothing"}, AppError, r"no handler for channel 'nothing'; it has alerts/mailer"),
        (1, {"channel": "alerts", "id": "other"}, AppError, "channel 'alerts' and id 'other'"),
        (1, {}, AppError, "name the channel"),
    ],
)
def test_what_would_not_come_to_a_handler(
    payload: Any, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        deliver(shop(), payload, **options)


@pytest.mark.parametrize(
    ("publish", "error"),
    [
        (lambda app: app.publish("no channel", 1, payload_type="t"), ChannelNameError),
        (lambda app: app.publish("a.dead-letter", 1, payload_type="t"), ChannelNameError),
        (lambda app: app.publish("a", 1), PayloadTypeError),
        (lambda app: app.publish("a", object(), payload_type="t"), PayloadError),
        (lambda app: app.publish("a", "x" * 11_000_000, payload_type="t"), MessageTooLarge),
    ],
)
def test_a_wrong_publish_is_refused_as_always(publish: Any, error: type[Exception]) -> None:
    app = App()
    app.on("a", id="b")(lambda _: publish(app))
    with pytest.raises(error):
        deliver(app, 1)
    assert deliver_again_works(app)


def deliver_again_works(app: App) -> bool:
    app.handlers.clear()
    app.on("a", id="b")(lambda _: True)
    return deliver(app, 1).results == [True]


def test_what_a_handler_raises_comes_out() -> None:
    app = App()

    @app.on("doors", id="opener")
    async def open_door(_message: Message) -> None:
        raise RetryLater

    with pytest.raises(RetryLater):
        deliver(app, 1)
    with pytest.raises(ZeroDivisionError):
        deliver(lambda _: 1 / 0, 1)


def test_an_exception_in_a_transaction_records_nothing_of_it() -> None:
    app = App()

    @app.on("orders", id="till")
    def take(_message: Message) -> None:
        app.publish("seen", 1, payload_type="t")
        try:
            with app.atomic() as tx:
                tx.publish("parcels", 1, payload_type="t")
                raise ValueError
        except ValueError:
            pass

    assert [message.channel for message in deliver(app, 1).published] == ["seen"]


def test_from_a_test_that_runs_on_an_event_loop() -> None:
    async def program() -> list[Any]:
        return deliver(shop(), Alert("hot"), channel="alerts", id="counter").results

    assert asyncio.run(program()) == [1]


def test_an_attached_app_publishes_for_real(keyop_messenger: Messenger, published: Any) -> None:
    app = shop()
    app.attach(keyop_messenger, only=["mailer"])
    assert deliver(app, Alert("hot"), channel="alerts", id="mailer").published == []
    assert [message.payload["text"] for message in published("mails", count=1)] == ["hot"]
    keyop_messenger.publish("alerts", Alert("cold"))
    assert [message.payload["text"] for message in published("mails", count=2)] == ["hot", "cold"]


USERS_TEST = """
import os
import pytest
import keyop

app = keyop.App()

@app.on("orders", id="till")
def take(msg):
    app.publish("parcels", msg.payload, payload_type="t")

@app.on("orders", id="broken", max_retries=0)
def fail(msg):
    raise ValueError("no")

@pytest.mark.parametrize("item", ["lamp", "table"])
def test_orders(keyop_messenger, keyop_data_dir, published, item):
    assert published("parcels") == []
    app.attach(keyop_messenger)
    keyop_messenger.publish("orders", item, payload_type="t")
    assert [m.payload for m in published("parcels", count=1)] == [item]
    (letter,) = published("orders.dead-letter", count=1)
    assert letter.payload["last_error"] == "ValueError: no"
    with open(os.environ["DIRECTORIES"], "a") as file:
        file.write(f"{keyop_data_dir}\\n")

def test_waiting_ends(published):
    assert published("parcels", count=1, timeout=0.01) == []

def test_that_fails(keyop_messenger, keyop_data_dir):
    keyop_messenger.publish("orders", 1, payload_type="t")
    with open(os.environ["DIRECTORIES"], "a") as file:
        file.write(f"{keyop_data_dir}\\n")
    assert False
"""


def test_the_fixtures_leave_nothing_behind(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    from conftest import objects_of

    directories = pytester.path / "directories"
    monkeypatch.setenv("DIRECTORIES", str(directories))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile(USERS_TEST)
    plugin = [] if "keyop" in entry_points() else ["-p", "keyop.testing.plugin"]
    pytester.runpytest_subprocess(*plugin).assert_outcomes(passed=3, failed=1)
    used = [Path(line) for line in directories.read_text().splitlines()]
    assert len(set(used)) == 3
    if os.path.isdir("/dev/shm"):
        assert [name for path in used for name in objects_of(path)] == []


def entry_points() -> set[str]:
    from importlib.metadata import entry_points as installed

    return {each.name for each in installed(group="pytest11")}


def test_the_plugin_is_found_by_pytest_itself() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"keyop": "keyop.testing.plugin"}
    assert keyop.testing.plugin.keyop_messenger is not None
