"""Hosts for tests: each with a data directory, a certificate, a configuration file, and hub and client as real
processes; and a proxy between them that cuts, holds, delays and throttles what passes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import yaml
from child import DEADLINE_S, ROOT, eventually
from conftest import end_writer, objects_of
from pki import Pki

from keyop import Messenger
from keyop.config import Config
from keyop.configuration.settings import TlsSettings
from keyop.storage.segments import list_segments

QUICK = {"reconnect_base_ms": 50, "reconnect_max_ms": 400}
"""Section federation, for tests that do not want to wait."""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Process:
    """``keyop hub`` or ``keyop client``, through the command line, with its log."""

    def __init__(
        self, role: str, config: Path, *, prefix: tuple[str, ...] = (), env: dict[str, str] | None = None
    ) -> None:
        self.role = role
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "keyop", role, "-c", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return "".join(self.lines)

    def wait_for(self, text: str, count: int = 1, timeout: float = DEADLINE_S) -> Self:
        """Wait until its log has a text, so often."""
        try:
            eventually(lambda: self.log.count(text) >= count or self.process.poll() is not None, timeout)
        finally:
            assert self.log.count(text) >= count, f"no {text!r} in the log of {self.role}:\n{self.log}"
        return self

    def wait_until_ready(self) -> Self:
        return self.wait_for("listening at" if self.role == "hub" else "connecting to")

    def kill(self) -> None:
        self.process.kill()
        self._gone()

    def stop(self, timeout: float = DEADLINE_S) -> int:
        """SIGTERM, and wait; its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self._gone(timeout)

    def _gone(self, timeout: float = DEADLINE_S) -> int:
        code = self.process.wait(timeout)
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


class Host:
    """One data directory in the federation."""

    def __init__(self, net: Net, name: str, tls: TlsSettings) -> None:
        self.name = name
        self.path = net.path / name / "data"
        self.config_path = net.path / name / "keyop.yaml"
        self.config_path.parent.mkdir()
        self.tls = tls
        self.port = free_port()
        self.hub: Process
        self.client: Process
        self.sections: dict[str, Any] = {
            "storage": {"data_dir": str(self.path)},
            "tls": {"cert": tls.cert, "key": tls.key, "ca": tls.ca},
            "federation": dict(QUICK),
        }
        self._processes: list[Process] = []
        self._stack = ExitStack()
        self._messenger: Messenger | None = None

    @property
    def address(self) -> str:
        """Of its hub."""
        return f"127.0.0.1:{self.port}"

    # ---- configuration

    def is_hub(self, *peers: str | dict[str, Any], **hub: Any) -> Self:
        """Make it a hub for these peers: names, or whole entries."""
        entries = [{"name": peer} if isinstance(peer, str) else peer for peer in peers]
        self.sections["hub"] = {"enabled": True, "listen_addr": self.address, "allowed_peers": entries, **hub}
        return self

    def is_client(self, *hubs: dict[str, Any]) -> Self:
        """Make it a client of these hubs."""
        self.sections["client"] = {"enabled": True, "hubs": list(hubs)}
        return self

    def configure(self, **sections: dict[str, Any]) -> Self:
        """Add keys to sections."""
        for section, keys in sections.items():
            self.sections.setdefault(section, {}).update(keys)
        return self

    def write_config(self) -> Path:
        draft = self.config_path.with_suffix(".new")
        draft.write_text(yaml.safe_dump(self.sections))
        draft.replace(self.config_path)
        return self.config_path

    @property
    def config(self) -> Config:
        return Config.load(self.write_config())

    # ---- processes

    def start_hub(self, **options: Any) -> Process:
        self.hub = self._start("hub", **options)
        return self.hub

    def start_client(self, **options: Any) -> Process:
        self.client = self._start("client", **options)
        return self.client

    def _start(self, role: str, *, wait: bool = True, **options: Any) -> Process:
        process = Process(role, self.write_config(), **options)
        self._processes.append(process)
        return process.wait_until_ready() if wait else process

    @property
    def messenger(self) -> Messenger:
        """One for the whole test."""
        if self._messenger is None:
            self._messenger = self._stack.enter_context(Messenger(str(self.path)))
        return self._messenger

    def forget_messenger(self) -> None:
        """The next use makes another one."""
        self._stack.close()
        self._messenger = None

    def publish(self, channel: str, *payloads: Any) -> list[str]:
        return [self.messenger.publish(channel, payload, payload_type="t") for payload in payloads]

    def close(self) -> None:
        for process in reversed(self._processes):
            if process.process.poll() is None:
                process.process.send_signal(signal.SIGCONT)
                process.stop()
        self._stack.close()
        if (self.path / "run" / "id").exists():
            end_writer(self.path)
            if Path("/dev/shm").is_dir():
                assert objects_of(self.path) == []

    # ---- what is there

    def lines(self, channel: str) -> list[bytes]:
        """All lines of a channel, whole ones."""
        segments, _ = list_segments(self.path / "channels" / channel)
        lines: list[bytes] = []
        for segment in segments:
            lines += segment.path.read_bytes().split(b"\n")[:-1]
        return lines

    def envelopes(self, channel: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines(channel)]

    def ids(self, channel: str) -> list[str]:
        return [envelope["id"] for envelope in self.envelopes(channel)]

    def payloads(self, channel: str) -> list[Any]:
        return [envelope["payload"] for envelope in self.envelopes(channel)]

    def has(self, channel: str, count: int, timeout: float = DEADLINE_S) -> list[Any]:
        """Wait until a channel has so many messages; their payloads."""
        try:
            eventually(lambda: len(self.lines(channel)) >= count, timeout)
        finally:
            found = self.payloads(channel)
            assert len(found) == count, f"{self.name}/{channel}: {len(found)} messages instead of {count}"
        return found

    def audit(self, event: str = "") -> list[dict[str, Any]]:
        """The records of the audit log, or those of one event."""
        path = self.path / "audit" / "audit.jsonl"
        text = path.read_text() if path.exists() else ""
        records = [json.loads(line) for line in text.splitlines()]
        return [record for record in records if not event or record["event"] == event]

    def wait_for_audit(self, event: str, count: int = 1, **keys: Any) -> dict[str, Any]:
        """Wait for a record with these keys (`detail`: a part of it); the last one."""

        def found() -> list[dict[str, Any]]:
            return [
                record
                for record in self.audit(event)
                if all(
                    value in record.get(key, "") if key == "detail" else record.get(key) == value
                    for key, value in keys.items()
                )
            ]

        try:
            eventually(lambda: len(found()) >= count)
        finally:
            assert len(found()) >= count, f"no {event} {keys} in {self.audit()}"
        return found()[-1]

    def offset(self, channel: str, id: str) -> int | None:
        path = self.path / "subscribers" / channel / f"{id}.offset"
        return int(path.read_text()) if path.exists() else None


class Net:
    """A CA, and hosts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pki = Pki(path / "pki")
        self.hosts: list[Host] = []
        self._stack = ExitStack()

    def host(self, name: str, *, cn: str = "", **options: Any) -> Host:
        """A new host; ``cn``: of its certificate, if it is not its name."""
        host = Host(self, name, self.pki.instance(cn or name, file=name, **options))
        self.hosts.append(host)
        return host

    def proxy(self, host: Host) -> Proxy:
        """A proxy in front of a host's hub."""
        return self._stack.enter_context(Proxy(("127.0.0.1", host.port)))

    def close(self) -> None:
        self._stack.close()
        with ExitStack() as stack:
            for host in self.hosts:
                stack.callback(host.close)


@contextmanager
def net_at(path: Path) -> Iterator[Net]:
    """A net that leaves nothing behind."""
    net = Net(path)
    try:
        yield net
    finally:
        net.close()


def to_hub(
    address: str, *, subscribe: tuple[str, ...] = (), publish: tuple[str, ...] = (), **more: Any
) -> dict[str, Any]:
    """An entry of client.hubs."""
    return {"addr": address, "subscribe": list(subscribe), "publish": list(publish), **more}


class Proxy:
    """TCP from a port of its own to a target, each way as told."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._flows = threading.Event()
        self._flows.set()
        self._is_cut = False
        self._closed = False
        self.delay_s = 0.0
        """How long each piece is kept back."""
        self.bytes_per_s = 0
        """The most that passes in each direction; 0: no limit."""
        self.passed = [0, 0]
        """Bytes to the target, and from it."""
        self.connections = 0
        """How many were made."""
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            if self._is_cut:
                _reset(near)
                continue
            try:
                far = socket.create_connection(self._target, 5)
                far.settimeout(None)
            except OSError:
                _reset(near)
                continue
            self.connections += 1
            pair = (near, far)
            with self._lock:
                self._pairs.add(pair)
            for direction, (source, sink) in enumerate(((near, far), (far, near))):
                threading.Thread(target=self._forward, args=(pair, source, sink, direction), daemon=True).start()

    def _forward(
        self, pair: tuple[socket.socket, socket.socket], source: socket.socket, sink: socket.socket, direction: int
    ) -> None:
        try:
            while data := source.recv(65_536):
                while data:
                    self._flows.wait()
                    piece = data[: max(1, self.bytes_per_s // 20)] if self.bytes_per_s else data
                    data = data[len(piece) :]
                    if self.bytes_per_s:
                        time.sleep(len(piece) / self.bytes_per_s)
                    if self.delay_s:
                        time.sleep(self.delay_s)
                    sink.sendall(piece)
                    self.passed[direction] += len(piece)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(pair)

    def _drop(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._lock:
            self._pairs.discard(pair)
        for one in pair:
            _reset(one)

    def cut(self) -> None:
        """Reset all connections, and take no new ones until `mend`."""
        self._is_cut = True
        self.reset()

    def reset(self) -> None:
        """Reset all connections; new ones are taken."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            self._drop(pair)

    def mend(self) -> None:
        self._is_cut = False
        self._flows.set()

    def hold(self) -> None:
        """Let nothing pass, and keep all connections: both sides think that the other one is there."""
        self._flows.clear()

    def flow(self) -> None:
        """Let it pass again."""
        self._flows.set()

    def half_close(self, *, near: bool = False) -> None:
        """The target (or with ``near`` who has dialled) hears that no more comes; what it sends still passes."""
        with self._lock:
            for pair in self._pairs:
                with contextlib.suppress(OSError):  # it was quicker
                    pair[0 if near else 1].shutdown(socket.SHUT_WR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self.cut()
        self._flows.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


class Pair:
    """A hub, a proxy, and a client that gets ``down`` and sends ``up``."""

    def __init__(self, net: Net) -> None:
        self.hub = net.host("hub1").is_hub("host2")
        self.client = net.host("host2")
        self.proxy: Proxy = net.proxy(self.hub)
        self.client.is_client(to_hub(self.proxy.address, subscribe=("down",), publish=("up",)))

    def start(self) -> None:
        self.hub.start_hub(wait=False)
        self.client.start_client().wait_for("connected to hub1")


def _reset(one: socket.socket) -> None:
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    one.close()
