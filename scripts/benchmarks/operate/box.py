"""A box in a cupboard: writer, hub, client and two workers under ``keyop up``, and another host with a hub."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.federation.site import site
from keyop.storage.directory import DataDirectory
from keyop.supervisor.asking import ask

_DEADLINE_S = 30.0
_NAME = "box"
_APP = """\
import time
import keyop
app = keyop.App()

@app.on("orders", id="clerk", start="earliest")
def clerk(msg):
    print("handled", msg.payload, time.monotonic(), flush=True)

@app.on("readings", id="display", start="earliest")
def display(msg):
    pass
"""
_CONFIG = """\
storage: {{data_dir: {data_dir}}}
tls: {{cert: {cert}, key: {key}, ca: {ca}}}
hub: {{enabled: true, listen_addr: "127.0.0.1:0", allowed_peers: [{{name: other}}]}}
client: {{enabled: true, hubs: [{{addr: "{hub}", publish: [up], subscribe: [down]}}]}}
workers:
  - {{app: "shop:app", name: clerk, only: [clerk]}}
  - {{app: "shop:app", name: display, only: [display]}}
"""


class Box:
    """A running ``keyop up``."""

    def __init__(self, place: Path, config: Path) -> None:
        self.directory = DataDirectory(place / "data")
        began_s = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "keyop", "up", "-c", str(config)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(place), *filter(None, sys.path)])},
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.wait_for("all is up")
        except BaseException:
            self.stop()
            raise
        self.ready_s = time.monotonic() - began_s
        """From the start of the command until all of its processes were at work."""

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._lines.put(line)
        self._lines.put("")

    def wait_for(self, words: str) -> str:
        """The next line that it writes with these words."""
        deadline_s = time.monotonic() + _DEADLINE_S
        said = []
        while line := self._lines.get(timeout=max(0.01, deadline_s - time.monotonic())):
            if words in line:
                return line
            said.append(line)
        raise RuntimeError(f"keyop up has ended: {' / '.join(said[-3:])}")

    def pids(self) -> dict[str, int]:
        """Its processes by their role."""
        return {row["role"]: row["pid"] for row in ask(self.directory, "status")["processes"]}

    def stop(self) -> None:
        """Have it end."""
        self._process.terminate()
        try:
            self._process.wait(_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def box(place: Path) -> Iterator[Box]:
    """One for the length of a block. The other host is there before, and no part of any figure."""
    with site(place, strict=True) as other:
        other.start_hub(_NAME)
        tls = other.tls(_NAME)
        config = place / "keyop.yaml"
        config.write_text(
            _CONFIG.format(data_dir=place / "data", cert=tls.cert, key=tls.key, ca=tls.ca, hub=other.address)
        )
        (place / "shop.py").write_text(_APP)
        started = Box(place, config)
        try:
            yield started
        finally:
            started.stop()
