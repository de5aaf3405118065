"""``keyop top`` on a real screen, and what it prints where there is none."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from child import DEADLINE_S, ROOT, eventually, kill_writer, writer_pid
from conftest import end_writer
from screen import Screen, needs_tmux

from keyop import Messenger

pytestmark = pytest.mark.alone

Start = Callable[..., Screen]


@pytest.fixture
def start(data_dir: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts ``keyop top`` on a screen; it is ended with the test."""
    screens: list[Screen] = []

    def start(*arguments: object, **options: object) -> Screen:
        socket = tmp_path / f"tmux{len(screens)}"
        screens.append(Screen(socket, "top", "-d", data_dir, "--interval", 0.2, *arguments, **options))  # type: ignore[arg-type]
        return screens[-1]

    yield start
    for screen in screens:
        screen.end()


def publish(m: Messenger, channel: str, *payloads: object) -> None:
    m.publish_batch(channel, payloads, payload_type="com.example.n.v1")


def once(data_dir: Path, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "keyop.cli", "top", "-d", str(data_dir), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


# ---- on a screen


@needs_tmux
def test_all_tables_fit_eighty_cells(data_dir: Path, start: Start) -> None:
    with Messenger(data_dir) as m:
        m.subscribe("orders", "mailer", lambda msg: None)
        publish(m, "orders", *range(10))
        screen = start().shows("keyop ", "writer open, strict", "CHANNEL^", "orders", "q leave  ? help")
        assert max(map(len, screen.lines())) <= 80
        assert len(screen.lines()) <= 24
        screen.type("2")
        screen.shows("CHANNEL/ID^", "orders/mailer", "idle")
        screen.type("3")
        screen.shows("PEER^", "No hub and no client runs here.")
        screen.press("Tab")
        screen.shows("ROLE^", "writer", "subscriber", str(os.getpid()))
        screen.type("?")
        screen.shows("Ctrl-Z suspends", "BEHIND is what the peer lacks", "any key goes back")
        assert max(map(len, screen.lines())) <= 80
        screen.type("xq")
        screen.shows("ended with 0", "prompt>")
        assert screen.cursor_is_shown()


@needs_tmux
def test_it_lives(data_dir: Path, start: Start) -> None:
    with Messenger(data_dir) as m:
        publish(m, "orders", 1)
        screen = start().shows("orders", "1 Channels 1")
        publish(m, "readings", *range(2000))
        screen.shows("1 Channels 2", "readings", "█")


@needs_tmux
def test_sort_and_filter(data_dir: Path, start: Start) -> None:
    with Messenger(data_dir) as m:
        publish(m, "apples", 1)
        publish(m, "pears", *range(500))
        publish(m, "plums", *range(50))
        screen = start().shows("CHANNEL^", "plums")

        def order() -> list[str]:
            words = [line.split()[0] for line in screen.lines() if line.strip()]
            return [word for word in words if word in ("apples", "pears", "plums")]

        assert order() == ["apples", "pears", "plums"]
        screen.type("sss")
        screen.shows("SIZEv")
        eventually(lambda: order() == ["pears", "plums", "apples"])
        screen.type("r")
        screen.shows("SIZE^")
        eventually(lambda: order() == ["apples", "plums", "pears"])
        screen.type("/PL")
        screen.shows("/PL_")
        eventually(lambda: order() == ["apples", "plums"])
        screen.type("x")
        screen.shows("Nothing matches 'PLx'")
        screen.press("BSpace", "Enter")
        screen.shows("only 'PL', Esc shows all")
        screen.press("Escape")
        eventually(lambda: len(order()) == 3)


@needs_tmux
def test_messages_and_dead_letters(data_dir: Path, start: Start) -> None:
    hostile = "\x1b[2J\x9b31m‮ kühl 温度"
    with Messenger(data_dir) as m:

        def fail(msg: object) -> None:
            raise ValueError("the gateway says\nno")

        m.subscribe("orders", "mailer", fail, max_retries=0)
        publish(m, "orders", {"text": hostile})
        eventually(lambda: (data_dir / "channels/orders.dead-letter").exists())
        screen = start().shows("orders.dead-letter")
        screen.press("Enter")
        screen.shows("LAST MESSAGES OF orders", "com.example.n.v1", "kühl 温度")
        assert "‮" not in screen.text
        screen.press("Enter")
        screen.shows("MESSAGE OF orders AT 0", "type    com.example.n.v1", '"text": ')
        screen.type("qd")
        screen.shows("LAST MESSAGES OF orders.dead-letter", "mailer: no")
        screen.press("Enter")
        screen.shows("mailer gave up after 0 retries", "ValueError: the gateway says")
        screen.press("PageDown")
        screen.shows('"subscriber": "mailer"')
        screen.press("Escape")
        screen.shows("LAST MESSAGES OF orders.dead-letter")
        screen.type("qq")
        screen.shows("CHANNEL^")


@needs_tmux
def test_a_long_table_scrolls(data_dir: Path, start: Start) -> None:
    with Messenger(data_dir) as m:
        for number in range(60):
            publish(m, f"channel{number:02}", 1)
        screen = start().shows("channel00", "channel19").shows_no("channel20")
        screen.press("PageDown", "PageDown")
        screen.shows("channel38").shows_no("channel00")
        screen.press("End")
        screen.shows("channel59")
        screen.press("Home")
        screen.shows("channel00")


@needs_tmux
def test_other_sizes(data_dir: Path, start: Start) -> None:
    with Messenger(data_dir) as m:
        publish(m, "orders", *range(10))
        screen = start().shows("LAST LOOKS")
        screen.resize(132, 40)
        eventually(lambda: screen.lines()[39].startswith("q leave"))
        assert len(screen.lines()[0]) == 132
        screen.resize(30, 5)
        eventually(lambda: screen.lines()[4].startswith("q leave"))
        screen.resize(2, 1)
        screen.resize(80, 24)
        screen.shows("LAST LOOKS", "orders")


@needs_tmux
def test_suspended_and_interrupted(data_dir: Path, start: Start) -> None:
    with Messenger(data_dir) as m:
        publish(m, "orders", 1)
        screen = start().shows("CHANNEL^")
        screen.press("C-z")
        screen.shows("Stopped", "prompt>")
        assert screen.cursor_is_shown()
        screen.type("echo echo is on\n")
        screen.shows("prompt> echo echo is on")
        screen.type("fg\n")
        screen.shows("CHANNEL^", "q leave")
        publish(m, "more", 1)
        screen.shows("more")
        screen.press("C-c")
        screen.shows("prompt>").shows_no("CHANNEL^")
        assert screen.cursor_is_shown()
        screen.type("echo echo is on\n")
        screen.shows("prompt> echo echo is on")


@needs_tmux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_told_to_leave(data_dir: Path, start: Start, number: signal.Signals) -> None:
    with Messenger(data_dir) as m:
        publish(m, "orders", 1)
        screen = start().shows("CHANNEL^")
        found = subprocess.run(["pgrep", "-f", f"keyop.cli top -d {data_dir} "], capture_output=True, text=True)
        os.kill(int(found.stdout.split()[-1]), number)
        screen.shows("ended with 0", "prompt>")
        assert screen.cursor_is_shown()


@needs_tmux
def test_writers_come_and_go(data_dir: Path, start: Start) -> None:
    data_dir.mkdir()
    screen = start().shows("writer not running: nobody has published yet", "No channels yet.")
    with Messenger(data_dir) as m:
        publish(m, "orders", 1)
        screen.shows("writer open, strict", "orders")
        kill_writer(data_dir)
        publish(m, "orders", 1)
        screen.shows("writer open, strict")
    end_writer(data_dir)
    screen.shows("writer not running", "orders")
    assert writer_pid(data_dir) is None
    shutil.rmtree(data_dir)
    screen.shows("is gone, and so is its directory", "No channels yet.")


colour = re.compile(r"\x1b\[[\d;]*3[0-7]m").search


@needs_tmux
def test_colours_and_none(data_dir: Path, start: Start) -> None:
    with Messenger(data_dir) as m:
        publish(m, "orders", 1)
        screen = start().shows("open, strict")
        assert colour("\n".join(screen.lines(colours=True)))
        plain = start(env={"NO_COLOR": "1"}).shows("open, strict")
        assert not colour("\n".join(plain.lines(colours=True)))


@needs_tmux
def test_a_terminal_that_nobody_knows(data_dir: Path, start: Start) -> None:
    with Messenger(data_dir) as m:
        publish(m, "orders", 1)
        start("--interval 0.2; TERM=no-such-terminal", sys.executable, "-m keyop.cli top -d", data_dir).shows("orders")


@needs_tmux
def test_a_terminal_without_utf_8(data_dir: Path, start: Start) -> None:
    with Messenger(data_dir) as m:
        publish(m, "orders", 1)
        screen = start(env={"LC_ALL": "C"}).shows("orders")
        publish(m, "orders", *range(100))
        screen.shows("#")
        assert screen.text.isascii()


# ---- without one


def test_no_terminal(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        publish(m, "orders", 1)
    done = once(data_dir)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "keyop top --once prints tables" in done.stderr


def test_a_terminal_that_cannot_be_drawn_on(data_dir: Path) -> None:
    done = once(data_dir, "--json")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, "keyop: --json needs --once")
    done = once(data_dir)
    assert (done.returncode, done.stderr) == (1, f"keyop: {data_dir}: there is no such directory\n")


def test_a_python_without_curses(data_dir: Path) -> None:
    data_dir.mkdir()
    source = "import sys; sys.modules['_curses'] = None; from keyop.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", source, "top", "-d", str(data_dir)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert (done.returncode, "use keyop top --once" in done.stderr) == (1, True)
    assert "Traceback" not in done.stderr
    assert (
        subprocess.run([*command, "--once", "--interval", "0.1"], env=environment, timeout=DEADLINE_S).returncode == 0
    )


def test_once(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        m.subscribe("orders", "a-name-that-is-much-longer-than-a-cell-of-the-screen-has-room-for", lambda msg: None)
        publish(m, "orders", *range(10))
        text = once(data_dir, "--once", "--interval", "0.1").stdout
        assert text.startswith(f"{data_dir}: writer open, strict, pid {writer_pid(data_dir)}\n")
        assert "orders/a-name-that-is-much-longer-than-a-cell-of-the-screen-has-room-for  idle" in text
        assert re.search(rf"^subscriber +{os.getpid()} ", text, re.MULTILINE)
        found = json.loads(once(data_dir, "--once", "--json", "--interval", "0.1").stdout)
    assert set(found) == {
        *("data_dir", "taken_unix_s", "elapsed_s", "trouble", "writer", "channels", "subscribers", "peers", "processes")
    }
    assert found["elapsed_s"] >= 0.1
    assert found["writer"]["state"] == "open"
    assert found["channels"][0]["channel"] == "orders"
    end_writer(data_dir)
    assert (
        json.loads(once(data_dir, "--once", "--json", "--interval", "0.1").stdout)["writer"]["state"] == "not running"
    )
