"""A process with a `Parent` under test, and children that do nothing but what the test needs."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any, Self

from child import DEADLINE_S, Child, eventually

READY = "import os, sys, signal, time; os.write(int(os.environ['KEYOP_READY_FD']), b'ready\\n')"
WAIT = f"{READY}\nwhile True: time.sleep(1000)"
"""Ready at once, and ended by any signal."""
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{WAIT}"
SLOW = "import time\nwhile True: time.sleep(1000)"
"""Never ready."""

_SOURCE = """
import json
from keyop.processes.output import Output
from keyop.processes.parent import Parent
from keyop.processes.role import Role

def roles_of(text):
    return [Role(**{**role, "command": tuple(role["command"])}) for role in json.loads(text)]

options = json.loads(sys.argv[3])
parent = Parent(roles_of(sys.argv[2]), Output(options.pop("log_format", "text")), **options)

rest_of_input = b""

def commands():
    global rest_of_input
    data = os.read(0, 65536)
    if not data:
        parent.loop.forget(0)
    *lines, rest_of_input = (rest_of_input + data).split(bytes([10]))
    for line in lines:
        command(line.decode())

def command(line):
    word, _, rest = line.partition(" ")
    if word == "restart":
        parent.restart(parent.find(rest))
    elif word == "replace":
        say(json.dumps(parent.replace(roles_of(rest))))
    elif word == "states":
        say(json.dumps({s.name: [s.state, s.child and s.child.pid, s.restarts] for s in parent.services.values()}))
    elif word == "usage":
        status = Path("/proc/self/status").read_text()
        say(json.dumps([len(os.listdir("/proc/self/fd")), int(status.split("VmRSS:")[1].split()[0])]))

parent.loop.watch(0, commands)
say("running")
sys.exit(parent.run())
"""


def role(name: str, code: str = WAIT, rank: int = 0, **more: Any) -> dict[str, Any]:
    """A role whose process runs this code in a bare Python."""
    return {"name": name, "command": [sys.executable, "-I", "-S", "-c", code], "rank": rank, **more}


class ParentProcess(Child):
    """Killed when left."""

    def __init__(self, *roles: dict[str, Any], **options: Any) -> None:
        super().__init__(_SOURCE, "", json.dumps(roles), json.dumps(options))
        self.expect("running")

    def wait_for(self, pattern: str, count: int = 1, timeout: float = DEADLINE_S) -> Self:
        """Wait until what it logs matches so often."""

        def found() -> bool:
            return len(re.findall(pattern, self.errors)) >= count

        try:
            eventually(lambda: found() or self.process.poll() is not None, timeout)
            if not found():
                self.end()
        finally:
            assert found(), f"no {pattern!r} in\n{self.errors}"
        return self

    def ask(self, command: str) -> Any:
        """Give it a command; what it answers."""
        self.say(command)
        return json.loads(self.hear())

    def states(self) -> dict[str, list[Any]]:
        """State, pid and restarts of each service."""
        found: dict[str, list[Any]] = self.ask("states")
        return found

    def pid_of(self, name: str) -> int:
        """Of a service's process."""
        return int(self.states()[name][1])


def lives(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def kill(pid: int, number: int = 9) -> None:
    os.kill(pid, number)
