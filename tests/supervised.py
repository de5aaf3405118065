"""``keyop up`` under test: a configuration with everything in it, and the processes that it makes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from child import DEADLINE_S, ROOT, eventually
from conftest import objects_of
from federation import Process, free_port
from parents import lives
from pki import Pki

from keyop import Messenger

APP = """\
import os
import keyop
app = keyop.App()

@app.on("orders", id="clerk", start="earliest")
def clerk(msg):
    print("clerk", msg.payload, os.getpid(), flush=True)

@app.on("orders", id="book", start="earliest")
def book(msg):
    print("book", msg.payload, os.getpid(), flush=True)
"""


def keyop(*arguments: object, timeout: float = DEADLINE_S) -> subprocess.CompletedProcess[str]:
    """Run a command; its exit code and output are the caller's to judge."""
    return subprocess.run(
        [sys.executable, "-m", "keyop", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
    )


class Site:
    """A directory with a configuration, the module ``shop``, and ``keyop up``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data_dir = path / "data"
        self.config_path = path / "keyop.yaml"
        self.sections: dict[str, Any] = {"storage": {"data_dir": str(self.data_dir)}}
        (path / "shop.py").write_text(APP)
        self._ups: list[Process] = []

    # ---- configuration

    def with_hub(self) -> None:
        self._with_certificate()
        self.port = free_port()
        self.sections["hub"] = {
            "enabled": True,
            "listen_addr": f"127.0.0.1:{self.port}",
            "allowed_peers": [{"name": "host2"}],
        }

    def with_client(self) -> None:
        self._with_certificate()
        hub = {"addr": f"127.0.0.1:{free_port()}", "publish": ["up"]}
        self.sections["client"] = {"enabled": True, "hubs": [hub]}

    def with_worker(self, **more: Any) -> None:
        self.sections.setdefault("workers", []).append({"app": "shop:app", **more})

    def _with_certificate(self) -> None:
        if "tls" not in self.sections:
            tls = Pki(self.path / "pki").instance("host1")
            self.sections["tls"] = {"cert": tls.cert, "key": tls.key, "ca": tls.ca}

    def write_config(self, text: str | None = None) -> Path:
        draft = self.config_path.with_suffix(".new")
        draft.write_text(yaml.safe_dump(self.sections) if text is None else text)
        draft.replace(self.config_path)
        return self.config_path

    # ---- processes

    def start(self, *prefix: str, env: dict[str, str] | None = None) -> Process:
        """``keyop up``, not waited for."""
        paths = os.pathsep.join([str(ROOT), str(self.path)])
        up = Process("up", self.write_config(), prefix=prefix, env={"PYTHONPATH": paths, **(env or {})})
        self._ups.append(up)
        return up

    def up(self, **options: Any) -> Process:
        """``keyop up``, with everything at work."""
        return self.start(**options).wait_for("all is up")

    def status(self) -> dict[str, Any]:
        """``keyop status --json``."""
        found: dict[str, Any] = json.loads(keyop("status", "-d", self.data_dir, "--json").stdout)
        return found

    def rows(self) -> dict[str, dict[str, Any]]:
        """The process table by role."""
        return {row["role"]: row for row in self.status()["supervisor"]["processes"]}

    def pids(self) -> dict[str, int]:
        return {role: row["pid"] for role, row in self.rows().items()}

    def publish(self, channel: str, *payloads: Any) -> None:
        with Messenger(str(self.data_dir)) as messenger:
            for payload in payloads:
                messenger.publish(channel, payload, payload_type="t")

    def end(self) -> None:
        """Whatever the test has left: nobody lives, and nothing is in shared memory."""
        for up in self._ups:
            if up.process.poll() is None:
                up.kill()


@contextmanager
def site(path: Path) -> Iterator[Site]:
    there = Site(path)
    try:
        yield there
    finally:
        there.end()


def all_gone(pids: dict[str, int]) -> None:
    """Wait until none of them lives."""
    eventually(lambda: not any(map(lives, pids.values())))


def nothing_left(data_dir: Path) -> None:
    assert objects_of(data_dir) == []
    assert not (data_dir / "run" / "supervisor.sock").exists()
