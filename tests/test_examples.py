"""The programs in docs/examples, as processes, with certificates that `keyop keygen` makes as the page says."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from child import DEADLINE_S, ROOT
from conftest import leave

from keyop import Message, Messenger
from keyop.config import Config

EXAMPLES = ROOT / "docs" / "examples"


class Example:
    """Runs examples in a directory; what each says goes into a file beside it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._processes: list[subprocess.Popen[str]] = []
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYOP_")}
        self._environment["PYTHONPATH"] = str(ROOT)

    def keygen(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "keyop", "keygen", *arguments]
        subprocess.run(command, cwd=self.place, env=self._environment, check=True, capture_output=True)

    def certificates(self, **names: str) -> None:
        """A CA, and for each file's name a pair with a CN."""
        self.keygen("ca")
        for file, name in names.items():
            out = ("--out-cert", f"{file}.crt", "--out-key", f"{file}.key")
            self.keygen("instance", "--ca", "ca.crt", "--ca-key", "ca.key", "--name", name, *out)

    def start(self, name: str, *arguments: str, **replaced: str) -> subprocess.Popen[str]:
        """Start an example, with the port of this test in the place of 7740."""
        text = (EXAMPLES / f"{name}.py").read_text().replace(":7740", f":{self.port}")
        for old, new in replaced.items():
            assert old in text
            text = text.replace(old, new)
        (self.place / f"{name}.py").write_text(text)
        with (self.place / f"{name}.said").open("ab") as said:
            process = subprocess.Popen(
                [sys.executable, f"{name}.py", *arguments],
                cwd=self.place,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
                text=True,
            )
        self._processes.append(process)
        return process

    def said(self, name: str) -> str:
        return (self.place / f"{name}.said").read_text()

    def wait_for(self, name: str, pattern: str, count: int = 1) -> list[str]:
        """Wait until an example has said something so often; what it was."""
        deadline = time.monotonic() + DEADLINE_S
        while len(found := re.findall(pattern, self.said(name), re.MULTILINE)) < count:
            assert time.monotonic() < deadline, self.said(name)
            time.sleep(0.02)
        return found

    def end(self, process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 0

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()
        for mark in self.place.glob("*/run/id"):
            leave(mark.parents[1])


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Example]:
    example = Example(tmp_path)
    yield example
    example.close()


def test_host1_prints_what_host2_publishes_also_what_it_missed(example: Example) -> None:
    example.certificates(host1="host1", host2="host2")
    host2 = example.start("host2")
    example.wait_for("host2", "published #2$")  # without a hub
    host1 = example.start("host1")
    numbers = example.wait_for("host1", r"^host1: system problem #(\d+), from monitor on host2$", 4)
    assert numbers == [str(number + 1) for number in range(len(numbers))]
    example.end(host2)
    example.end(host1)
    assert "Traceback" not in example.said("host1") + example.said("host2")


def test_both_certificates_named_localhost_as_in_the_go_tutorial(example: Example) -> None:
    example.certificates(host1="localhost", host2="localhost")
    host1 = example.start("host1", **{'{"name": "host2"}': '{"name": "localhost"}'})
    host2 = example.start("host2")
    example.wait_for("host1", r"^host1: system problem #2, from monitor on host2$")
    # Both say what is lost.
    for name in ("host1", "host2"):
        assert (
            len(example.wait_for(name, "the peer's certificate has this host's own name.* certificate of its own")) == 1
        )
    example.end(host2)
    example.end(host1)


def test_the_doorbell_rings_at_the_hub_and_hears_the_answer(example: Example) -> None:
    example.certificates(hub="hub", doorbell="doorbell")
    place = example.place
    sections: dict[str, Any] = {
        "storage": {"data_dir": str(place / "hub")},
        "hub": {
            "enabled": True,
            "listen_addr": f"127.0.0.1:{example.port}",
            "allowed_peers": [{"name": "doorbell", "subscribe": ["answers"], "publish": ["rings"]}],
        },
        "tls": {"cert": str(place / "hub.crt"), "key": str(place / "hub.key"), "ca": str(place / "ca.crt")},
    }
    with Messenger(Config(**sections), federate=True) as hub:

        def on_ring(msg: Message[str]) -> None:
            hub.publish("answers", f"{msg.payload}? We come", payload_type="com.example.answer.v1")

        hub.subscribe("rings", "porter", on_ring, start="earliest")
        doorbell = example.start("doorbell", f"127.0.0.1:{example.port}", "doorbell.crt", "doorbell.key", "ca.crt")
        assert doorbell.stdin is not None
        doorbell.stdin.write("post\n")
        doorbell.stdin.flush()
        example.wait_for("doorbell", r"^doorbell: post\? We come$")
        doorbell.stdin.close()
        assert doorbell.wait(DEADLINE_S) == 0, example.said("doorbell")
    assert "doorbell: the hub has it on its disk\n" in example.said("doorbell")


def test_the_page_shows_the_programs_as_they_are() -> None:
    page = (ROOT / "docs" / "federation.md").read_text()
    shown = re.findall(
        r"^<!-- not run: docs/examples/(\w+\.py) -->\n+```python\n(.*?)^```\n", page, re.MULTILINE | re.DOTALL
    )
    assert {name for name, _ in shown} == {path.name for path in EXAMPLES.glob("*.py")}
    for name, text in shown:
        assert text == (EXAMPLES / name).read_text(), name
