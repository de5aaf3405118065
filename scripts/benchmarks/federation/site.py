"""Hosts that share this machine: a hub and clients, each with a data directory, a certificate and processes."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.figure import Skipped
from benchmarks.ours import stop_writer

UP, DOWN, RELAYED = "up", "down", "relayed"
"""Channels: client to hub, hub to client, one client to another."""

_READY_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0


class Tls(NamedTuple):
    """Paths of PEM files."""

    cert: str
    key: str
    ca: str


class Certificates:
    """A CA in a directory, and what it signs."""

    def __init__(self, directory: Path) -> None:
        try:
            from keyop.federation.authority import Authority
        except ImportError as error:
            raise Skipped(f"no certificates can be made: {error}") from None
        self._directory = directory
        directory.mkdir(exist_ok=True)
        pair = Authority.make(days=1)
        self._ca = self._put("ca.crt", pair.certificate_pem)
        self._authority = Authority.read(self._ca, self._put("ca.key", pair.key_pem))

    def issue(self, name: str) -> Tls:
        """A pair for an instance of this name."""
        pair = self._authority.issue(name)
        return Tls(self._put(f"{name}.crt", pair.certificate_pem), self._put(f"{name}.key", pair.key_pem), self._ca)

    def _put(self, name: str, content: bytes) -> str:
        path = self._directory / name
        path.touch(0o600)
        path.write_bytes(content)
        return str(path)


class Service:
    """``keyop hub`` or ``keyop client``. It logs into a file: our process has to have no threads when it forks."""

    def __init__(self, role: str, config: Path, ready_when: str) -> None:
        self._log = config.with_suffix(".log")
        command = [sys.executable, "-m", "keyop", role, "-c", str(config), "--log-format", "json"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.pid = self._process.pid
        try:
            self.said = self._wait_for(ready_when)
        except BaseException:
            self.stop()
            raise

    def _wait_for(self, words: str) -> str:
        """What follows these words in the first line that has them."""
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while True:
            for line in self._messages():
                if words in line:
                    return line.partition(words)[2]
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"not ready: {' / '.join(self._messages()) or 'it said nothing'}")
            time.sleep(0.02)

    def _messages(self) -> list[str]:
        messages = []
        for line in self._log.read_text().splitlines():
            try:
                messages.append(str(json.loads(line)["message"]))
            except ValueError:
                messages.append(line)
        return messages

    def stop(self) -> None:
        """Have it end."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Site:
    """A hub, and clients that are connected to it."""

    def __init__(self, place: Path, *, strict: bool) -> None:
        self._place = place
        self._sync_interval_ms = 0 if strict else 200
        self._certificates = Certificates(place / "certificates")
        self._hosts: list[str] = []
        self.services: dict[str, Service] = {}
        """By the host's name."""
        self.address = ""

    def start_hub(self, *peers: str) -> Service:
        """Start ``hub`` for these peers."""
        listed = ", ".join(f"{{name: {peer}}}" for peer in peers)
        hub = f"hub: {{enabled: true, listen_addr: '127.0.0.1:0', allowed_peers: [{listed}]}}"
        service = self._start("hub", "hub", hub, "listening at ")
        self.address = service.said
        return service

    def start_client(self, name: str, *, publish: list[str], subscribe: list[str]) -> Service:
        """Start a client, and wait until it is connected."""
        reference = f"{{addr: '{self.address}', publish: [{', '.join(publish)}], subscribe: [{', '.join(subscribe)}]}}"
        return self._start(name, "client", f"client: {{enabled: true, hubs: [{reference}]}}", "connected to ")

    def _start(self, name: str, role: str, section: str, ready_when: str) -> Service:
        tls = self.tls(name)
        config = self._place / f"{name}.yaml"
        config.write_text(
            f"storage: {{data_dir: {self.data_dir(name)}, sync_interval_ms: {self._sync_interval_ms}}}\n"
            f"tls: {{cert: {tls.cert}, key: {tls.key}, ca: {tls.ca}}}\n{section}\n"
        )
        self._hosts.append(name)
        service = self.services[name] = Service(role, config, ready_when)
        return service

    def tls(self, name: str) -> Tls:
        """A certificate for a host."""
        return self._certificates.issue(name)

    def data_dir(self, name: str) -> Path:
        """A host's data directory."""
        return self._place / name

    def stop(self) -> None:
        """End the clients, the hub, and their writers."""
        for service in reversed(self.services.values()):
            service.stop()
        for name in self._hosts:
            stop_writer(self.data_dir(name))


@contextlib.contextmanager
def site(place: Path, *, strict: bool) -> Iterator[Site]:
    """A site for the length of a block."""
    there = Site(place, strict=strict)
    try:
        yield there
    finally:
        there.stop()
