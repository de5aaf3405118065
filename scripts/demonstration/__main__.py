"""Start publisher and workers, show what happens, and say at the end whether every message arrived."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from demonstration import CHANNEL, SHAKY, STEADY
from demonstration.account import Account
from demonstration.crew import Child, Event
from keyop import Message, Messenger
from keyop.ipc import lease

CATCH_UP_S = 30.0
WRITER_LEAVES_S = 10.0
TELL_EVERY_S = 1.0


def main() -> int:
    """0 if every published message was handled or dead-lettered by each worker."""
    options = _options()
    data_dir = options.data_dir or Path(tempfile.mkdtemp(prefix="keyop-demo-"))
    # Whichever process needs a writer first starts it; here it is to leave soon after the last one has gone.
    os.environ["KEYOP_WRITER__IDLE_EXIT"] = "500ms"
    kept = options.keep or options.data_dir is not None
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        code = Demonstration(data_dir, stop).run(options.seconds)
        if not _writer_left(data_dir):
            print(f"The writer of {data_dir} still runs: another process is attached.")
    finally:
        if not kept:
            shutil.rmtree(data_dir, ignore_errors=True)
    if kept:
        print(f"Kept: {data_dir} (look with: keyop tail {CHANNEL} --from earliest --data-dir {data_dir})")
    return code


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./scripts/demo", description=sys.modules["demonstration"].__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, metavar="N", help="how long to publish (10)")
    parser.add_argument("--data-dir", type=Path, metavar="PATH", help="use this data directory, and keep it")
    parser.add_argument("--keep", action="store_true", help="keep the temporary data directory, and say where it is")
    return parser.parse_args()


def _writer_left(data_dir: Path) -> bool:
    deadline = time.monotonic() + WRITER_LEAVES_S
    while lease.is_held(data_dir / "run" / lease.WRITER_LOCK):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


class Demonstration:
    """One run."""

    def __init__(self, data_dir: Path, stop: threading.Event) -> None:
        self._data_dir = data_dir
        self._stop = stop
        self._began_s = time.monotonic()
        self._account = Account([STEADY, SHAKY])
        self._latest: Event | None = None
        self._since: dict[str, list[float]] = {STEADY: [], SHAKY: []}

    def run(self, seconds: float) -> int:
        """Publish for so long, wait until the workers are done, tell, and return the exit code."""
        logging.basicConfig(format="%(message)s")
        print(f"data directory {self._data_dir}, three processes and their writer; {seconds:g} s, Ctrl-C ends\n")
        with Messenger(self._data_dir) as messenger:
            # A dead letter is a message like any other: this is how one learns of it.
            messenger.subscribe(f"{CHANNEL}.dead-letter", "demo", self._on_dead_letter, start="earliest")
            crew = [self._child(STEADY, "work", STEADY), self._child(SHAKY, "work", SHAKY)]
            codes = []
            try:
                if all(child.wait_ready() for child in crew):
                    crew.append(self._child("publisher", "publish"))
                    self._watch(seconds, crew)
                    codes.append(crew.pop().end())
                    self._wait_for_outcomes(crew)
            finally:
                codes += [child.end() for child in crew]
            self._command("channels")
            self._command("subscribers")
        lines, complete = self._account.sums()
        print("", *lines, sep="\n")
        failed = [code for code in codes if code]
        if failed:
            print(f"A process ended with exit code {failed[0]}.")
        print("Every message was handled or is a dead letter." if complete else "NOT every message has its outcome.")
        return 0 if complete and not failed else 1

    def _child(self, name: str, module: str, *arguments: str) -> Child:
        return Child(name, module, [str(self._data_dir), *arguments], self._on_event)

    # ---- what happens

    def _watch(self, seconds: float, crew: list[Child]) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and all(child.alive for child in crew):
            if self._stop.wait(min(TELL_EVERY_S, max(0.0, end - time.monotonic()))):
                break
            self._tell_latest()

    def _wait_for_outcomes(self, crew: list[Child]) -> None:
        deadline = time.monotonic() + CATCH_UP_S
        while self._account.missing() and time.monotonic() < deadline and all(child.alive for child in crew):
            time.sleep(0.05)

    def _on_event(self, name: str, event: Event) -> None:
        what = event["what"]
        if what == "published":
            self._account.note_published(event["id"], event["reading"]["number"])
            self._latest = event
        elif what == "handled":
            self._account.note_handled(name, event["id"])
            self._since[name].append(event["ms"])
            if event["attempt"] > 1:
                self._tell(name, f"handled at attempt {event['attempt']}")
        elif what == "logged":
            self._tell(name, event["line"])

    def _on_dead_letter(self, message: Message[Any]) -> None:
        self._account.note_dead(message.payload["subscriber"], message.payload["original"]["id"])

    # ---- telling

    def _tell(self, who: str, what: str) -> None:
        print(f"{time.monotonic() - self._began_s:5.1f} s  {who:9}  {what}", flush=True)

    def _tell_latest(self) -> None:
        """Once a second: what the host says, and how long the messages since then took to their handlers."""
        latest = self._latest
        if latest is None:
            return
        reading = latest["reading"]
        temperature = reading["temperature_c"]
        words = [
            f"#{reading['number']}",
            f"load {reading['load']:.2f}",
            "memory unknown" if reading["memory_percent"] is None else f"memory {reading['memory_percent']:.0f} %",
            "no temperature sensor" if temperature is None else f"{temperature:.0f} °C",
            f"on disk in {latest['ms']:.1f} ms",
        ]
        for worker, delays in self._since.items():
            taken, self._since[worker] = delays, []
            if taken:
                words.append(f"{worker} {len(taken)} in {sorted(taken)[len(taken) // 2]:.1f} ms")
        self._tell("publisher", ", ".join(words))

    def _command(self, command: str) -> None:
        print(f"\n$ keyop {command}", flush=True)
        program = "import sys; from keyop.cli import main; sys.argv[0] = 'keyop'; main()"
        subprocess.run([sys.executable, "-c", program, command, "--data-dir", str(self._data_dir)], check=False)


if __name__ == "__main__":
    sys.exit(main())
