"""``keyop dashboard``: who is let in, what is sent, and what many browsers cost. The page is in test_dashboard_page."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from child import DEADLINE_S, ROOT, eventually
from conftest import objects_of
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from keyop import Messenger
from keyop.configuration.settings import DashboardSettings, Settings, StorageSettings
from keyop.inspection.usage import usage

TOKEN = "abcdefghijklmnopqrstuvwx"


class Served:
    """``keyop dashboard`` as a process."""

    def __init__(self, data_dir: Path, *arguments: str, listen: str = "127.0.0.1:0") -> None:
        command = [sys.executable, "-m", "keyop.cli", "dashboard", "-d", str(data_dir), "--listen", listen, *arguments]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("KEYOP_")}
        self.process = subprocess.Popen(
            command, env={**clean, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        self.said_before: list[str] = []
        while not (said := self.process.stderr.readline()).startswith("keyop: the dashboard is at "):
            assert said, self.said_before
            self.said_before.append(said)
        self.url = said.split()[-1]
        self.port = urlsplit(self.url).port or 0

    def get(self, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, str]:
        """Status, headers and text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return response.status, response.headers, response.read().decode()
        finally:
            connection.close()

    def live(self, **headers: str) -> ClientConnection:
        """A WebSocket."""
        host = headers.pop("Host", f"127.0.0.1:{self.port}")
        tcp = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S)
        return connect(
            f"ws://{host}/live", sock=tcp, additional_headers=headers, compression=None, max_size=None, proxy=None
        )

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Tell it to leave; exit code and what else it said."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, said


Serve = Callable[..., Served]


@pytest.fixture
def serve(data_dir: Path) -> Iterator[Serve]:
    started: list[Served] = []

    def serve(*arguments: str, listen: str = "127.0.0.1:0") -> Served:
        started.append(Served(data_dir, *arguments, listen=listen))
        return started[-1]

    yield serve
    for served in started:
        if served.process.poll() is None:
            served.process.kill()
        served.process.communicate()


@pytest.fixture
def messenger(data_dir: Path) -> Iterator[Messenger]:
    with Messenger(data_dir) as m:
        publish(m, "orders", 1)
        yield m


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\nwhat follows is no part of it\n")
    path.chmod(0o600)
    return str(path)


def publish(m: Messenger, channel: str, *payloads: object) -> None:
    m.publish_batch(channel, payloads, payload_type="com.example.n.v1")


def heard(connection: ClientConnection, kind: str) -> Any:
    """The next message of this kind."""
    while True:
        said = json.loads(connection.recv(timeout=DEADLINE_S))
        if kind in said:
            return said[kind]


# ---- pictures


def test_a_whole_picture_then_changes(messenger: Messenger, serve: Serve) -> None:
    publish(messenger, "still", 1)
    with serve().live() as browser:
        full = heard(browser, "full")
        assert [row["key"] for row in full["channels"]] == ["orders", "still"]
        assert full["writer"]["state"] == "open"
        publish(messenger, "orders", *range(100))
        publish(messenger, "new", 1)
        seen: dict[str, Any] = {}
        while {"orders", "new"} - seen.keys():
            changed = heard(browser, "changed")
            seen.update((row["key"], row) for row in changed["channels"]["rows"])
        assert "still" not in seen
        assert "history" not in seen["orders"]
        assert seen["orders"]["end_offset"] > full["channels"][0]["end_offset"]


def test_rows_that_go(messenger: Messenger, serve: Serve) -> None:
    messenger.subscribe("orders", "one", lambda msg: None)
    with serve().live() as browser:
        full = heard(browser, "full")
        (row,) = [row for row in full["processes"] if row["pid"] == os.getpid()]
        messenger.unsubscribe("orders", "one")
        while row["key"] not in heard(browser, "changed")["processes"]["gone"]:
            pass


def test_questions(messenger: Messenger, serve: Serve) -> None:
    publish(messenger, "orders", {"text": "<script>alert(1)</script>"})
    served = serve()
    with served.live() as browser:
        browser.send(json.dumps({"open": "orders"}))
        answer = heard(browser, "messages")
        assert (answer["channel"], answer["trouble"]) == ("orders", None)
        assert [json.loads(row["payload"]) for row in answer["rows"]] == [{"text": "<script>alert(1)</script>"}, 1]
        browser.send(json.dumps({"open": "nobody"}))
        assert heard(browser, "messages") == {"channel": "nobody", "rows": [], "trouble": None}
    for question in ('{"open": "../../etc"}', "[]", "no JSON", '{"open": 5}', "[" * 3000, b"\xff\x00"):
        with served.live() as browser:
            browser.send(question)
            with pytest.raises(ConnectionClosed) as closed:
                heard(browser, "messages")
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008
    with served.live() as browser:
        browser.send("x" * 5000)
        with pytest.raises(ConnectionClosed) as closed:
            heard(browser, "messages")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


def test_it_takes_part_in_nothing(data_dir: Path, serve: Serve) -> None:
    data_dir.mkdir()
    with serve().live() as browser:
        assert heard(browser, "full")["writer"]["state"] == "empty"
        assert list(data_dir.iterdir()) == []
    with Messenger(data_dir) as m:
        publish(m, "orders", 1)
        before = objects_of(data_dir)
        with serve().live() as browser:
            heard(browser, "full")
            assert objects_of(data_dir) == before
            assert len(list((data_dir / "run").glob("port-*"))) == 1


# ---- who is let in


@pytest.mark.parametrize(
    "host", ["localhost:{}", "127.0.0.1:{}", "[::1]:{}", "127.0.0.1", "LOCALHOST:9000", "status.example:{}"]
)
def test_names_of_this_host(messenger: Messenger, serve: Serve, host: str) -> None:
    served = serve("--allow-host", "Status.Example")
    name = host.format(served.port)
    assert served.get(Host=name)[0] == 200
    with served.live(Host=name, Origin=f"http://{name}") as browser:
        heard(browser, "full")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:{}",
        "localhost.evil.example:{}",
        "192.168.1.5:{}",
        "user@localhost:{}",
        "localhost:x",
        "",
        "[::1",
        "a b",
    ],
)
def test_other_names_are_refused(messenger: Messenger, serve: Serve, host: str) -> None:
    served = serve()
    for path in ("/", "/page.js", "/live"):
        status, _, text = served.get(path, Host=host.format(served.port))
        assert (status, "--allow-host" in text) == (403, True)


def test_requests_without_a_host_or_with_two(messenger: Messenger, serve: Serve) -> None:
    served = serve()
    for hosts in ("", f"Host: 127.0.0.1:{served.port}\r\nHost: evil.example\r\n"):
        with socket.create_connection(("127.0.0.1", served.port), timeout=DEADLINE_S) as tcp:
            tcp.sendall(f"GET / HTTP/1.1\r\n{hosts}\r\n".encode())
            assert tcp.recv(65536).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:1", "https://127.0.0.1", "", "file://"]
)
def test_pages_of_others_are_refused(messenger: Messenger, serve: Serve, origin: str) -> None:
    served = serve()
    with pytest.raises(InvalidStatus) as refused:
        served.live(Origin=origin)
    assert refused.value.response.status_code == 403


def test_only_looking(messenger: Messenger, serve: Serve) -> None:
    served = serve()
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert served.get("/", method)[0] in (400, 405)
    for path in ("/nothing", "/../server.py", "/page.html", "//", "/%2e%2e/token.py"):
        assert served.get(path)[0] == 404
    _, headers, _ = served.get("/")
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")
    assert headers["Cache-Control"] == "no-store"


def test_a_token(messenger: Messenger, serve: Serve, token_file: str) -> None:
    served = serve("--token-file", token_file)
    for path in ("/", "/page.js", "/live", "/nothing"):
        assert served.get(path)[0] == 401
        assert served.get(path, Authorization=f"Bearer {TOKEN}x")[0] == 401
        assert served.get(path, Cookie=f"keyop-dashboard-{served.port}={TOKEN}")[0] == 401
    assert served.get(f"/?token={TOKEN[:-1]}")[0] == 403
    assert served.get("/?token=%ff%00")[0] == 403
    status, headers, _ = served.get(f"/?token={TOKEN}")
    assert (status, headers["Refresh"]) == (200, "0; url=/")
    cookie, _, attributes = headers["Set-Cookie"].partition("; ")
    assert attributes == "Path=/; Max-Age=2592000; HttpOnly; SameSite=Strict"
    assert TOKEN not in cookie
    assert served.get("/", Cookie=f"a=b; {cookie}")[0] == 200
    assert served.get("/", Authorization=f"Bearer {TOKEN}")[0] == 200
    with served.live(Cookie=cookie) as browser:
        heard(browser, "full")
    # A name of another host is refused before the token is looked at.
    assert served.get(f"/?token={TOKEN}", Host="evil.example")[0] == 403


def test_everywhere_with_a_token(messenger: Messenger, serve: Serve, token_file: str) -> None:
    served = serve("--token-file", token_file, listen="0.0.0.0:0")
    name = socket.gethostname()
    for host in (f"192.168.1.5:{served.port}", name, f"{name}.local:80", "localhost"):
        assert served.get("/", Host=host, Authorization=f"Bearer {TOKEN}")[0] == 200
    assert served.get("/", Host="evil.example", Authorization=f"Bearer {TOKEN}")[0] == 403


# ---- what it cannot be started with


def refused(data_dir: Path, *arguments: str) -> str:
    """What it says on its way out."""
    command = [sys.executable, "-m", "keyop.cli", "dashboard", "-d", str(data_dir), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 1, done
    assert done.stderr.startswith("keyop: ")
    return done.stderr


def test_it_says_why_it_cannot(messenger: Messenger, data_dir: Path, serve: Serve, tmp_path: Path) -> None:
    taken = f"127.0.0.1:{serve().port}"
    assert f"'{taken}': another program listens there" in refused(data_dir, "--listen", taken)
    assert "where others may connect, a token is needed" in refused(data_dir, "--listen", ":0")
    assert "is not an address" in refused(data_dir, "--listen", "127.0.0.1:x")
    assert "not an address of this host" in refused(
        data_dir, "--listen", "127.0.0.1:0".replace("127.0.0.1", "[::2]"), "--token-file", str(a_token(tmp_path))
    )
    assert "there is no such directory" in refused(tmp_path / "missing", "--listen", "127.0.0.1:0")
    path = tmp_path / "poor"
    assert f"{path}: the token cannot be read: No such file" in refused(data_dir, "--token-file", str(path))
    path.write_text("")
    assert "at least 16 characters, not 0" in refused(data_dir, "--token-file", str(path))
    path.write_text("0123456789 abcdef\n")
    assert "A-Z a-z 0-9 - . _ ~ only" in refused(data_dir, "--token-file", str(path))


def test_what_is_to_be_known_is_said_once(messenger: Messenger, serve: Serve, token_file: str) -> None:
    os.chmod(token_file, 0o644)
    served = serve("--token-file", token_file)
    for _ in range(20):
        assert served.get(Host="evil.example")[0] == 403
    assert served.said_before == [f"keyop: {token_file}: other users can read the token; chmod o= {token_file}\n"]
    _, said = served.end()
    assert said.count("is not a name of this dashboard") == 1


def a_token(tmp_path: Path) -> Path:
    path = tmp_path / "good"
    path.write_text(TOKEN)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_leave(messenger: Messenger, serve: Serve, number: signal.Signals) -> None:
    served = serve()
    with served.live() as browser:
        heard(browser, "full")
        assert served.end(number) == (0, "")
        with pytest.raises(ConnectionClosed):
            heard(browser, "never")


def test_as_a_child_of_the_supervisor(messenger: Messenger, data_dir: Path) -> None:
    settings = Settings(
        storage=StorageSettings(data_dir=str(data_dir)), dashboard=DashboardSettings(listen_addr="127.0.0.1:0")
    )
    reading, writing = os.pipe()
    ready, says_ready = os.pipe()
    os.write(writing, settings.to_json().encode())
    os.close(writing)
    process = subprocess.Popen(
        [sys.executable, "-m", "keyop.dashboard", f"settings_fd={reading}", "log_format=json", "log_level=info"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "KEYOP_READY_FD": str(says_ready)},
        pass_fds=(reading, says_ready),
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(reading)
    os.close(says_ready)
    with os.fdopen(ready, "rb") as pipe:
        assert pipe.read() == b"ready\n"
    process.terminate()
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert json.loads(said.splitlines()[0])["message"].startswith("serving http://127.0.0.1:")


# ---- many


def test_nobody_looks_on_and_nothing_is_done(messenger: Messenger, data_dir: Path, serve: Serve) -> None:
    served = serve()
    with served.live() as browser:
        heard(browser, "full")

    def maps_the_board() -> bool:
        return "/dev/shm/keyop-" in Path(f"/proc/{served.process.pid}/maps").read_text()

    eventually(lambda: not maps_the_board())
    with served.live() as browser:
        heard(browser, "full")
        assert maps_the_board()


def test_two_hundred_browsers(messenger: Messenger, serve: Serve) -> None:
    for number in range(50):
        publish(messenger, f"channel{number}", 1)
    served = serve()
    with ExitStack() as stack:
        browsers = [stack.enter_context(served.live()) for _ in range(200)]
        for browser in browsers:
            assert len(heard(browser, "full")["channels"]) == 51
        publish(messenger, "news", 1)
        for browser in browsers:
            while "news" not in [row["key"] for row in heard(browser, "changed")["channels"]["rows"]]:
                pass
        now = usage(served.process.pid)
        assert now is not None
        assert now.rss_bytes < 150 << 20


def test_a_browser_that_does_not_read_misses_pictures(messenger: Messenger, serve: Serve) -> None:
    served = serve()
    # With small buffers on its side; it reads nothing until much has happened.
    tcp = socket.socket()
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    tcp.connect(("127.0.0.1", served.port))
    key = "GET /live HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    tcp.sendall(f"{key}Host: localhost\r\nSec-WebSocket-Key: {'A' * 22}==\r\n\r\n".encode())
    with tcp, served.live() as quick:
        heard(quick, "full")
        before = usage(served.process.pid)
        for number in range(8):
            for channel in range(200):
                publish(messenger, f"channel-with-quite-a-long-name-{channel}", number)
            heard(quick, "changed")
        after = usage(served.process.pid)
        assert before is not None
        assert after is not None
        assert after.rss_bytes - before.rss_bytes < 30 << 20
