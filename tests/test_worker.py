"""``keyop worker`` as a process: handlers of both kinds, hooks, the end in time, what it says when it cannot start."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from child import Child, eventually
from conftest import leave
from workshop import Workshop

from keyop import Messenger, follow

TEXT = "com.example.text.v1"


@pytest.fixture
def shop(tmp_path: Path, data_dir: Path) -> Iterator[Workshop]:
    workshop = Workshop(tmp_path / "source", data_dir)
    workshop.path.mkdir()
    yield workshop
    workshop.close()
    leave(data_dir)


def payloads(shop: Workshop, channel: str) -> list[object]:
    return [message.payload for message in follow(shop.data_dir, channel, "earliest", wait=False)]


def publish(shop: Workshop, channel: str, *texts: str) -> None:
    with Messenger(shop.data_dir) as m:
        for text in texts:
            m.publish(channel, text, payload_type=TEXT)


def test_functions_and_coroutine_functions_handle_what_the_other_published(shop: Workshop) -> None:
    shop.write("""
        @app.on_start
        async def open_shop():
            app.loop = asyncio.get_running_loop()
            await app.aio.publish("diary", "open", payload_type="t")

        @app.on_stop
        def close_shop():
            app.publish("diary", "closed", payload_type="t")

        @app.on("orders", id="till", start="earliest")
        def take(msg: Message) -> None:
            app.publish("parcels", msg.payload + "!", payload_type="t")

        @app.on("parcels", id="post", start="earliest", exactly_once=True)
        async def send(msg: Message) -> None:
            assert asyncio.get_running_loop() is app.loop
            await app.aio.publish("sent", msg.payload + "!", payload_type="t", correlation_id="lamp")
            log.info("sent %s", msg.payload)
    """)
    publish(shop, "orders", "lamp")
    worker = shop.worker("shop:app").wait_for("sent lamp!")
    assert worker.end(signal.SIGTERM) == 0
    assert payloads(shop, "sent") == ["lamp!!"]
    assert payloads(shop, "diary") == ["open", "closed"]
    assert "shop:app handles orders/till, parcels/post" in worker.log


def test_what_is_in_hand_is_finished_and_nothing_begun(shop: Workshop) -> None:
    shop.write("""
        @app.on("orders", id="till", start="earliest")
        def take(msg: Message) -> None:
            log.info("begun %s", msg.payload)
            while not Path("go").exists():
                time.sleep(0.01)
            log.info("done %s", msg.payload)
    """)
    publish(shop, "orders", "one", "two")
    worker = shop.worker("shop:app").wait_for("begun one")
    worker.signal(signal.SIGTERM)
    worker.wait_for("finishing what is in hand, within 10 s")
    (shop.path / "go").touch()
    assert worker.end() == 0
    assert "done one" in worker.log
    assert "begun two" not in worker.log
    shop.worker("shop:app").wait_for("done two")


BLOCKED = {
    "function": "def take(msg): log.info('attempt %d', msg.attempt); threading.Event().wait()",
    "loop": "async def take(msg): log.info('attempt %d', msg.attempt); threading.Event().wait()",
    "coroutine": "async def take(msg): log.info('attempt %d', msg.attempt); await asyncio.Event().wait()",
    "busy": "def take(msg):\n    log.info('attempt %d', msg.attempt)\n    while True: pass",
}


@pytest.mark.parametrize("how", BLOCKED)
def test_a_handler_that_blocks_for_ever_is_left_behind(shop: Workshop, how: str) -> None:
    shop.write(f"@app.on('orders', id='till', start='earliest', retry_backoff=(0.01, 0.01))\n{BLOCKED[how]}\n")
    publish(shop, "orders", "lamp")
    worker = shop.worker("shop:app", "--grace", "0.3s").wait_for("attempt 1")
    began_s = time.monotonic()
    assert worker.end(signal.SIGTERM) == 75
    assert time.monotonic() - began_s < 5
    assert "orders/till: shop.take still runs after 0.3 s" in worker.log
    shop.worker("shop:app").wait_for("attempt 2")


def test_sigterm_twice_means_at_once(shop: Workshop) -> None:
    shop.write("""
        @app.on("orders", id="till", start="earliest")
        def take(msg: Message) -> None:
            log.info("begun")
            threading.Event().wait()
    """)
    publish(shop, "orders", "lamp")
    worker = shop.worker("shop:app", "--grace", "1h").wait_for("begun")
    worker.signal(signal.SIGTERM)
    worker.wait_for("finishing")
    assert worker.end(signal.SIGTERM) == 75
    assert "SIGTERM again: leaving at once" in worker.log


def test_sigterm_while_it_starts(shop: Workshop) -> None:
    shop.write("""
        app.on("orders", id="till")(print)

        @app.on_start
        def wait():
            log.info("waiting")
            threading.Event().wait()
    """)
    worker = shop.worker("shop:app").wait_for("waiting")
    assert worker.end(signal.SIGTERM) == 0
    assert "told to leave before it was ready" in worker.log


def test_ids_can_be_picked(shop: Workshop) -> None:
    shop.write("""
        for name in ("one", "two", "three"):
            app.on("orders", id=name, start="earliest")(lambda msg, name=name: log.info("%s has it", name))
    """)
    publish(shop, "orders", "lamp")
    worker = shop.worker("shop:app", "--only", "one", "--only", "three").wait_for("(one|three) has it", count=2)
    assert worker.end(signal.SIGTERM) == 0
    assert "two has it" not in worker.log
    unknown = shop.worker("shop:app", "--only", "four")
    assert unknown.end() == 1
    assert "no handler has the id four; there are one, three, two" in unknown.log


def test_an_id_that_another_process_handles(shop: Workshop) -> None:
    shop.write("app.on('orders', id='till')(print)")
    with Child(
        "m = Messenger(data_dir)\nm.subscribe('orders', 'till', print)\nsay('there')\nhear()", shop.data_dir
    ) as c:
        c.expect("there")
        worker = shop.worker("shop:app")
        assert worker.end() == 69
        assert "orders/till (builtins.print): a live process" in worker.log


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("app.on('orders', id='till')(print)\n@app.on_start\ndef hook(): raise OSError('no till')", "OSError: no till"),
        ("", "shop:app: this app declares no handlers"),
        ("1 / 0", "shop raised ZeroDivisionError when it was imported"),
        ("sys.exit(0)", "shop ended the process when it was imported"),
        ("import not_there", "No module named 'not_there'"),
    ],
)
def test_an_app_that_cannot_start(shop: Workshop, source: str, text: str) -> None:
    shop.write(source)
    worker = shop.worker("shop:app")
    assert worker.end() == 1
    assert text in worker.log


def test_wrong_words_on_the_command_line(shop: Workshop) -> None:
    shop.write("app.on('orders', id='till')(print)")
    for arguments, code, text in [
        (["shop.py"], 1, "name the module, not its file: shop:app"),
        (["shop:"], 1, "an app is named MODULE:APP"),
        (["shop:app", "--processes", "0"], 2, "0 is not in the range"),
        (["shop:app", "--grace", "soon"], 2, "soon"),
        (["nothing:app"], 1, f"there is no module nothing, neither in {shop.path}"),
    ]:
        worker = shop.worker(*arguments)
        assert worker.end() == code, worker.log
        assert text in worker.log


def test_what_is_exactly_once_is_the_first_process_s(shop: Workshop) -> None:
    shop.write("""
        @app.on("orders", id="till", start="earliest", exactly_once=True)
        def take(msg: Message) -> None:
            log.info("handled by %d", os.getpid())
    """)
    publish(shop, "orders", "lamp")
    worker = shop.worker("shop:app", "--processes", "2").wait_for("worker/[12] is ready", count=2)
    worker.wait_for("handled by")
    assert "worker/1 | " in next(line for line in worker.log.splitlines() if "handled by" in line)
    assert "process 2 of 2 handles nothing" in worker.log
    assert "orders/till is exactly-once, which is not shared: the first process handles all of it" in worker.log
    assert worker.end(signal.SIGTERM) == 0


def test_a_process_that_is_killed_is_followed_by_another(shop: Workshop) -> None:
    shop.write("""
        @app.on("orders", id="till", start="earliest", exactly_once=True)
        def take(msg: Message) -> None:
            log.info("%s by %d", msg.payload, os.getpid())
            if msg.payload == "last":
                os.kill(os.getpid(), 9)
    """)
    publish(shop, "orders", "one", "last")
    worker = shop.worker("shop:app", "--processes", "2").wait_for("one by")
    worker.wait_for("last by", count=2)
    assert "killed by SIGKILL" in worker.log
    assert worker.end(signal.SIGTERM) == 0


SHARED = """
    @app.on("{channel}", id="till", start="earliest", key=lambda msg: msg.payload.partition(" ")[0])
    def take(msg: Message) -> None:
        log.info("%s %s by %d", msg.channel, msg.payload, os.getpid())
        app.publish("bills", [msg.payload, os.getpid()], payload_type="t")
"""


@pytest.mark.parametrize("channel", ["orders", "orders.*"])
def test_processes_share_the_work_and_keep_the_order_of_each_key(shop: Workshop, channel: str) -> None:
    shop.write(SHARED.format(channel=channel))
    channels = ["orders"] if channel == "orders" else ["orders.a", "orders.b"]
    people = [f"customer{number}" for number in range(8)]
    for name in channels:
        publish(shop, name, *(f"{who} {number} {name}" for number in range(5) for who in people))
    worker = shop.worker("shop:app", "--processes", "2").wait_for("worker/[12] is ready", count=2)
    eventually(lambda: len(payloads(shop, "bills")) >= 40 * len(channels))
    for name in channels:
        publish(shop, name, *(f"{who} {number} {name}" for number in range(5, 8) for who in people))
    if channel == "orders.*":
        publish(shop, "orders.c", *(f"{who} {number} orders.c" for number in range(8) for who in people))
        channels.append("orders.c")
    eventually(lambda: len(payloads(shop, "bills")) >= 64 * len(channels))
    assert worker.end(signal.SIGTERM) == 0
    by_key: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for text, pid in payloads(shop, "bills"):  # type: ignore[misc]
        who, number, name = text.split(" ")
        by_key.setdefault((who, name), []).append((int(number), pid))
    assert len(by_key) == len(people) * len(channels)
    for handled in by_key.values():
        assert [number for number, _pid in handled] == list(range(8))
        assert len({pid for _number, pid in handled}) == 1
    assert len({pid for handled in by_key.values() for _number, pid in handled}) == 2


def test_the_order_of_each_key_survives_kills(shop: Workshop) -> None:
    shop.write(SHARED.format(channel="orders"))
    people = [f"customer{number}" for number in range(8)]
    worker = shop.worker("shop:app", "--processes", "2").wait_for("worker/[12] is ready", count=2)
    handled = 0
    for round_ in range(4):
        publish(shop, "orders", *(f"{who} {round_ * 10 + number}" for number in range(10) for who in people))
        eventually(lambda: len(payloads(shop, "bills")) > handled + 20)  # noqa: B023 - called at once
        _text, pid = payloads(shop, "bills")[-1]  # type: ignore[misc]
        os.kill(pid, signal.SIGKILL)
        handled = len(payloads(shop, "bills"))
    wanted = {f"{who} {number}" for who in people for number in range(40)}
    eventually(lambda: wanted == {text for text, _pid in payloads(shop, "bills")})  # type: ignore[misc]
    assert worker.end(signal.SIGTERM) == 0
    firsts = list(dict.fromkeys(text for text, _pid in payloads(shop, "bills")))  # type: ignore[misc]
    for who in people:
        assert [text for text in firsts if text.split(" ")[0] == who] == [f"{who} {number}" for number in range(40)]


def test_a_shared_pattern_that_is_new_begins_where_it_is_told(shop: Workshop) -> None:
    """The second process finds the pattern known by the first one: for it, too, the past is the past."""
    shop.write(SHARED.format(channel="orders.*").replace('start="earliest"', 'start="latest"'))
    publish(shop, "orders.a", *(f"old{number} x" for number in range(40)))
    worker = shop.worker("shop:app", "--processes", "2").wait_for("worker/[12] is ready", count=2)
    publish(shop, "orders.a", *(f"new{number} x" for number in range(40)))
    eventually(lambda: len(payloads(shop, "bills")) >= 40)
    assert worker.end(signal.SIGTERM) == 0
    assert sorted(text for text, _pid in payloads(shop, "bills")) == sorted(f"new{n} x" for n in range(40))  # type: ignore[misc]


def test_a_message_that_kills_its_process_from_the_first_start_on_ends_in_the_dead_letters(shop: Workshop) -> None:
    shop.write("""
        @app.on("orders", id="till", start="earliest", max_retries=1, retry_backoff=(0.001, 0.001), exactly_once=True)
        def take(msg: Message) -> None:
            if msg.payload == "poison":
                os.kill(os.getpid(), 9)
            log.info("took %s", msg.payload)
    """)
    publish(shop, "orders", "poison", "lamp")
    worker = shop.worker("shop:app", "--processes", "2").wait_for("took lamp")
    (letter,) = follow(shop.data_dir, "orders.dead-letter", "earliest", wait=False)
    assert letter.payload["last_error"] == "the process ended during attempt 2"
    assert worker.end(signal.SIGTERM) == 0


def test_a_changed_source_is_taken_up_and_a_broken_one_waited_for(shop: Workshop) -> None:
    shop.write("from shop.words import app", "shop/__init__.py", prelude="")
    declare = 'app.on("orders", id="till", start="earliest")(lambda msg: log.info("{} %s", msg.payload))'
    shop.write(declare.format("first"), "shop/words.py")
    publish(shop, "orders", "lamp")
    worker = shop.worker("shop:app", "--reload").wait_for("first lamp")
    shop.write(declare.format("second"), "shop/words.py")
    worker.wait_for("shop/words.py changed: starting again").wait_for("worker is ready", count=2)
    publish(shop, "orders", "table")
    worker.wait_for("second table")
    shop.write("1 / 0", "shop/words.py")
    worker.wait_for("ZeroDivisionError").wait_for("waiting for the next change of the source")
    shop.write(declare.format("third"), "shop/words.py")
    publish(shop, "orders", "chair")
    worker.wait_for("third chair")
    assert worker.end(signal.SIGTERM) == 0


def test_it_leaves_nothing_in_shared_memory(shop: Workshop) -> None:
    shop.write("app.on('orders', id='till')(print)")
    worker = shop.worker("shop:app").wait_for("handles orders/till")
    eventually(lambda: list((shop.data_dir / "run").glob("port-*")))
    assert worker.end(signal.SIGINT) == 0
    leave(shop.data_dir)


HANGING = {
    "hook": "@app.on_stop\ndef hang(): threading.Event().wait()",
    "coroutine": "@app.on_stop\nasync def hang(): await asyncio.Event().wait()",
    "thread": "@app.on_start\ndef go(): threading.Thread(target=threading.Event().wait).start()",
}


@pytest.mark.parametrize("what", HANGING)
def test_what_else_hangs_is_left_behind_as_well(shop: Workshop, what: str) -> None:
    shop.write(f"app.on('orders', id='till')(print)\n{HANGING[what]}\n")
    worker = shop.worker("shop:app", "--grace", "0.3s").wait_for("handles orders/till")
    assert worker.end(signal.SIGTERM) == 75
    assert "shop:app has not finished within 0.3 s" in worker.log


def test_several_processes_that_cannot_start_say_it_and_end(shop: Workshop) -> None:
    shop.write("1 / 0")
    worker = shop.worker("shop:app", "--processes", "2")
    assert worker.end() == 1
    assert "ZeroDivisionError" in worker.log
