"""What happens, in order: certificates, hub and client, workers and publisher, the cut, and a look at both hosts."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from demonstration import ALARM, ALERT_TYPE, ALERTS, READINGS, SHAKY, STEADY
from demonstration.account import Account
from demonstration.cable import Cable
from demonstration.comparison import compare
from demonstration.crew import Child, Command, Event
from demonstration.hosts import CLIENT, HUB, commands, configure, keyop
from keyop import Message, Messenger

CATCH_UP_S = 30.0
TELL_EVERY_S = 1.0
LOOK_EVERY_S = 0.05
# Parts of the time of publishing.
CUT_AT, MENDED_AT = 0.35, 0.7
AUDIT_LINES = 6


class StoryError(Exception):
    """It cannot go on; the text says why."""


class Story:
    """One run."""

    def __init__(self, place: Path, stop: threading.Event) -> None:
        self._place = place
        self._stop = stop
        self._began_s = time.monotonic()
        self._readings = Account(READINGS, [STEADY, SHAKY])
        self._alerts = Account(ALERTS, [ALARM])
        self._latest: Event | None = None
        self._since: dict[str, list[float]] = {STEADY: [], SHAKY: []}
        self._waited: set[str] = set()

    def run(self, seconds: float) -> int:
        """Publish for so long, wait until everything has arrived, tell, and return the exit code."""
        logging.basicConfig(format="%(message)s")
        cable = Cable()
        codes: list[int] = []
        try:
            self._prepare(cable)
            with self._federation(cable, codes), self._listening() as host2:
                self._work(seconds, cable, host2, codes)
                self._wait(lambda: bool(self._readings.missing() or self._alerts.missing()))
                for host in (HUB, CLIENT):
                    self._show("channels", "-d", host)
                    self._show("subscribers", "-d", host)
            for host in (HUB, CLIENT):
                self._show("audit", "-d", host, last=AUDIT_LINES)
        except (StoryError, subprocess.CalledProcessError) as error:
            print(error)
            return 1
        finally:
            cable.close()
        return self._verdict(codes)

    # ---- the parts

    def _prepare(self, cable: Cable) -> None:
        print(f"{self._place}: two hosts, {HUB} (hub) and {CLIENT} (client), and what they know each other by\n")
        for command in commands():
            if (self._place / "ca.crt").exists() and (self._place / f"{CLIENT}.crt").exists():
                break  # of an earlier run
            self._say_command(*command)
            print(keyop(self._place, *command), flush=True)
        configure(self._place, cable.address)
        for host in (HUB, CLIENT):
            print(f"$ cat {host}.yaml\n{(self._place / f'{host}.yaml').read_text()}", flush=True)

    @contextlib.contextmanager
    def _federation(self, cable: Cable, codes: list[int]) -> Iterator[None]:
        """``keyop hub`` and ``keyop client``, connected."""
        running: list[Command] = []
        try:
            hub = self._command(running, "hub", HUB, r"listening at (\S+)")
            address, _, port = hub.said.rpartition(":")
            cable.plug(address, int(port))
            self._command(running, "client", CLIENT, r"connected to (\S+)")
            yield
        finally:
            codes += [command.end() for command in reversed(running)]

    def _command(self, running: list[Command], role: str, host: str, ready_when: str) -> Command:
        arguments = [role, "-c", f"{host}.yaml"]
        self._say_command(*arguments, "&")
        command = Command(role, self._place, arguments, ready_when, self._on_event)
        running.append(command)
        if not command.wait_ready():
            raise StoryError(f"`keyop {role}` has ended, or is not where it should be")
        return command

    @contextlib.contextmanager
    def _listening(self) -> Iterator[Messenger]:
        """Hear the alerts on host1 and the dead letters on host2; the messenger of host2."""
        with (
            Messenger(self._place / HUB, name=HUB) as host1,
            Messenger(self._place / CLIENT, name=CLIENT) as host2,
        ):
            host1.subscribe(ALERTS, ALARM, self._on_alert, start="earliest")
            # A dead letter is a message like any other: this is how one learns of it.
            host2.subscribe(f"{READINGS}.dead-letter", "demo", self._on_dead_letter, start="earliest")
            yield host2

    def _work(self, seconds: float, cable: Cable, host2: Messenger, codes: list[int]) -> None:
        """Workers on host2, a publisher on host1, and no connection between them for a while."""
        crew = [self._child(worker, "work", CLIENT, worker) for worker in (STEADY, SHAKY)]
        try:
            if not all(child.wait_ready() for child in crew):
                raise StoryError("a worker has ended")
            crew.append(self._child("publisher", "publish", HUB))
            self._watch(seconds * CUT_AT, crew)
            if not self._stop.is_set():
                self._cut(cable, host2)
                self._watch(seconds * (MENDED_AT - CUT_AT), crew)
                self._mend(cable)
                self._watch(seconds * (1 - MENDED_AT), crew)
            codes.append(crew.pop().end())
            self._wait(lambda: bool(self._readings.missing()) and all(child.alive for child in crew))
            self._tell_of_waited()
        finally:
            codes += [child.end() for child in crew]

    def _child(self, name: str, module: str, host: str, *arguments: str) -> Child:
        return Child(name, module, [str(self._place / host), *arguments], self._on_event)

    def _cut(self, cable: Cable, host2: Messenger) -> None:
        self._tell("cable", f"cut: {HUB} and {CLIENT} go on alone")
        cable.cut()
        alert = {"text": f"{CLIENT} has lost its connection"}
        self._alerts.note_published(host2.publish(ALERTS, alert, payload_type=ALERT_TYPE))

    def _mend(self, cable: Cable) -> None:
        waiting = self._alerts.missing()
        self._waited = self._readings.missing() | waiting
        self._tell("cable", f"mended; waiting: {len(self._waited - waiting)} readings, {len(waiting)} alert(s)")
        cable.mend()

    def _verdict(self, codes: list[int]) -> int:
        complete = True
        print()
        for account in (self._readings, self._alerts):
            lines, all_there = account.sums()
            complete = complete and all_there
            print(*lines, sep="\n")
        print("Every message was handled or is a dead letter." if complete else "NOT every message has its outcome.")
        print()
        channels = compare(self._place)
        for channel in channels:
            print(channel.text, f"  such as {channel.sample}", sep="\n")
        failed = [code for code in codes if code]
        if failed:
            print(f"A process ended with exit code {failed[0]}.")
        return 0 if complete and not failed and all(channel.agrees for channel in channels) else 1

    # ---- waiting

    def _watch(self, seconds: float, crew: list[Child]) -> None:
        end = time.monotonic() + seconds
        told_s = time.monotonic()
        while time.monotonic() < end and all(child.alive for child in crew):
            if self._stop.wait(min(LOOK_EVERY_S, max(0.0, end - time.monotonic()))):
                break
            self._tell_of_waited()
            if time.monotonic() - told_s >= TELL_EVERY_S:
                told_s += TELL_EVERY_S
                self._tell_latest()

    def _wait(self, goes_on: Callable[[], bool]) -> None:
        deadline = time.monotonic() + CATCH_UP_S
        while goes_on() and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY_S)

    # ---- events

    def _on_event(self, name: str, event: Event) -> None:
        what = event["what"]
        if what == "published":
            self._readings.note_published(event["id"])
            self._latest = event
        elif what == "alerted":
            self._alerts.note_published(event["id"])
        elif what == "handled":
            self._readings.note_handled(name, event["id"])
            self._since[name].append(event["ms"])
            if event["attempt"] > 1:
                self._tell(name, f"handled at attempt {event['attempt']}")
        elif what == "logged":
            self._tell(name, event["line"])

    def _on_alert(self, message: Message[Any]) -> None:
        self._alerts.note_handled(ALARM, message.id)
        self._tell(ALARM, f"from {message.origin}: {message.payload['text']}")

    def _on_dead_letter(self, message: Message[Any]) -> None:
        self._readings.note_dead(message.payload["subscriber"], message.payload["original"]["id"])

    # ---- telling

    def _tell(self, who: str, what: str) -> None:
        # In one piece: several threads tell.
        sys.stdout.write(f"{time.monotonic() - self._began_s:5.1f} s  {who:9}  {what}\n")
        sys.stdout.flush()

    def _tell_of_waited(self) -> None:
        if self._waited and not self._waited & (self._readings.missing() | self._alerts.missing()):
            self._waited = set()
            self._tell("cable", "what has waited has arrived and was handled")

    def _tell_latest(self) -> None:
        """Once a second: what host1 says, and how long the messages since then took to their handlers on host2."""
        latest = self._latest
        if latest is None:
            return
        reading = latest["reading"]
        memory, cpu, temperature = reading["memory_percent"], reading["cpu_percent"], reading["temperature_c"]
        words = [
            f"#{reading['number']}",
            f"load {reading['load']:.2f}",
            "processors unknown" if cpu is None else f"processors {cpu:.0f} %",
            "memory unknown" if memory is None else f"memory {memory:.0f} %",
            "no temperature sensor" if temperature is None else f"{temperature:.0f} °C",
            f"on disk in {latest['ms']:.1f} ms",
        ]
        for worker, delays in self._since.items():
            taken, self._since[worker] = delays, []
            if taken:
                words.append(f"{worker} {len(taken)} in {sorted(taken)[len(taken) // 2]:.1f} ms")
        self._tell("publisher", ", ".join(words))

    def _show(self, *arguments: str, last: int | None = None) -> None:
        """Run a command of keyop, and print what it says, or the last lines of it."""
        print()
        self._say_command(*arguments, *([f"| tail -n {last}"] if last else []))
        lines = keyop(self._place, *arguments).splitlines()
        print(*(lines[-last:] if last else lines), sep="\n", flush=True)

    def _say_command(self, *words: str) -> None:
        print("$ keyop", *words, flush=True)
