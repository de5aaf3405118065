"""What a service manager is told: ready, reloading, stopping, alive."""

from __future__ import annotations

import os
import queue
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from child import DEADLINE_S, freeze
from supervised import Site, site

from keyop.supervisor.notify import Notifier


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as there:
        yield there


class Manager:
    """A socket as systemd makes one, and what came in."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._said: queue.Queue[dict[str, str]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            while data := self._socket.recv(4096):
                self._said.put(dict(line.split("=", 1) for line in data.decode().splitlines()))
        except OSError:
            pass

    def wait_for(self, key: str, timeout: float = DEADLINE_S) -> dict[str, str]:
        """The next message with this key; others are passed over."""
        while True:
            said = self._said.get(timeout=timeout)
            if key in said:
                return said

    def hears(self, key: str, within_s: float) -> bool:
        try:
            self.wait_for(key, within_s)
        except queue.Empty:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@keyop-test-{os.getpid()}"


def test_the_whole_life_of_a_service(here: Site, address: str) -> None:
    manager = Manager(address)
    up = here.start(env={"NOTIFY_SOCKET": address})
    ready = manager.wait_for("READY")
    assert ready == {"READY": "1", "STATUS": "up"}
    assert "all is up" in up.wait_for("all is up").log
    up.process.send_signal(signal.SIGHUP)
    reloading = manager.wait_for("RELOADING")
    assert int(reloading["MONOTONIC_USEC"]) > 0
    manager.wait_for("READY")
    os.kill(here.pids()["writer"], signal.SIGKILL)
    assert manager.wait_for("STATUS")["STATUS"] == "degraded; not running: writer"
    assert manager.wait_for("STATUS")["STATUS"] == "up"
    up.process.send_signal(signal.SIGTERM)
    manager.wait_for("STOPPING")
    assert up.stop() == 0
    manager.close()


def test_the_watchdog_hears_nothing_while_the_writer_hangs(here: Site, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    manager = Manager(address)
    up = here.start(env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"})
    manager.wait_for("READY")
    for _ in range(3):
        manager.wait_for("WATCHDOG", 2)
    writer = here.pids()["writer"]
    freeze(writer)
    try:
        # It has some seconds to recover, then there is silence.
        while manager.hears("WATCHDOG", 1.5):
            pass
    finally:
        os.kill(writer, signal.SIGCONT)
    manager.wait_for("WATCHDOG", 5)
    assert up.stop() == 0
    manager.close()


def test_children_do_not_speak_to_the_service_manager(here: Site, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    manager = Manager(address)
    up = here.start(env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "60000000"})
    manager.wait_for("READY")
    variables = Path(f"/proc/{here.pids()['writer']}/environ").read_bytes()
    assert b"NOTIFY_SOCKET" not in variables
    assert b"WATCHDOG_USEC" not in variables
    assert up.stop() == 0
    manager.close()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "/no/such/socket", "WATCHDOG_USEC": "x"},
        {"NOTIFY_SOCKET": "/x" * 100, "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
    ],
)
def test_where_nobody_listens_nothing_happens(environment: dict[str, str]) -> None:
    notifier = Notifier(environment)
    notifier.ready("up")
    notifier.alive()
    assert notifier.watchdog_s is None


def test_the_watchdogs_time_is_in_microseconds() -> None:
    environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
    assert Notifier(environment).watchdog_s == 30.0
