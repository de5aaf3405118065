"""``keyop up``: a parent with the processes of a configuration, and everything by which one tells it something."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from keyop.configuration.settings import Settings
from keyop.errors import DataDirectoryError, WriterBusy
from keyop.ipc import lease
from keyop.processes.output import Output
from keyop.processes.parent import Parent, all_run
from keyop.storage.directory import DataDirectory
from keyop.supervisor.control import Control
from keyop.supervisor.notify import Notifier
from keyop.supervisor.pulse import Pulse
from keyop.supervisor.reading import Reading
from keyop.supervisor.roles import Options, roles_of
from keyop.supervisor.table import SAMPLE_S, Table

_LOOK_S = 1.0


class Supervisor:
    """Holds the data directory as long as it runs: nobody else starts a writer there, nor another supervisor."""

    def __init__(self, settings: Settings, options: Options, output: Output, data_dir: str | None = None) -> None:
        """``data_dir``: what the command line has said, and not the file. Raises `DataDirectoryError`, `WriterBusy`."""
        self._settings = settings
        self._options = options
        self._output = output
        self._data_dir = data_dir
        self._file = settings.config_file
        self._directory = DataDirectory(settings.storage.data_dir)
        _refuse_foreign(self._directory)
        self._directory.make()
        self._directory.refuse_network_file_system()
        self._lease = _take_lease(self._directory)
        self._notifier = Notifier(os.environ)
        self._parent = Parent(roles_of(settings, options), output, grace_s=options.grace_s)
        self._table = Table()
        self._pulse = Pulse(self._directory)
        self._seen = self._stamp()
        self._is_reading = False
        self._reading_is_due = False
        self._was_up = False
        # Who has started it with `nohup` wants it to outlive the terminal.
        self._has_terminal = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN and _terminal_is_there()

    def run(self) -> int:
        """Until told to stop; the exit code."""
        parent, loop = self._parent, self._parent.loop
        parent.on_change = self._on_change
        try:
            parent.on_end = Control(loop, self._directory.run, self._handle).close
        except OSError as error:
            # A full disk: all the more reason to start what waits for room.
            self._output.error(f"keyop status, restart and stop cannot ask this supervisor: {error}")
        loop.on_signal(signal.SIGHUP, self._on_hangup)
        loop.every(SAMPLE_S, lambda: self._table.sample(parent.services.values()))
        if self._file is not None:
            loop.every(_LOOK_S, self._look_at_file)
        if self._notifier.watchdog_s is not None:
            loop.every(self._notifier.watchdog_s / 2, self._reassure)
        try:
            return parent.run()
        finally:
            self._lease.release()

    @property
    def state(self) -> str:
        """``starting``, ``up``, ``degraded`` (a process is not at its work), or ``stopping``."""
        if self._parent.is_stopping:
            return "stopping"
        if not self._parent.is_up:
            return "starting"
        return "up" if all_run(self._parent.services.values()) else "degraded"

    # ---- what happens

    def _on_change(self) -> None:
        parent = self._parent
        if parent.is_stopping:
            self._notifier.stopping()
            return
        if parent.is_up and not self._was_up:
            self._was_up = True
            self._output.info(f"all is up: {', '.join(parent.services)}")
            self._notifier.ready(self._status())
            if self._reading_is_due:
                self._read_file()
        else:
            self._notifier.status(self._status())

    def _status(self) -> str:
        missing = [service.name for service in self._parent.services.values() if not all_run([service])]
        return f"{self.state}; not running: {', '.join(missing)}" if missing else self.state

    def _reassure(self) -> None:
        """Only the loop calls this: if it hangs, nobody does."""
        writers = self._parent.find("writer")
        if not self._parent.is_up or (all_run(writers) and self._pulse.beats()):
            self._notifier.alive()

    def _on_hangup(self) -> None:
        if self._has_terminal and not _terminal_is_there():
            self._output.info("the terminal is gone")
            self._parent.stop()
        elif self._file is None:
            self._output.warning("there is no configuration file to be read again")
        else:
            self._read_file()

    # ---- the configuration file

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = Path(self._file).stat() if self._file is not None else None
        except OSError:
            return None
        return None if status is None else (status.st_mtime_ns, status.st_size, status.st_ino)

    def _look_at_file(self) -> None:
        """One `stat` a second finds every way to change a file, through links and on any file system; whoever is still
        writing has a second to end."""
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen = stamp
            self._reading_is_due = True
        elif self._reading_is_due:
            self._read_file()

    def _read_file(self) -> None:
        self._reading_is_due = not self._parent.is_up or self._is_reading
        if self._reading_is_due or self._parent.is_stopping or self._file is None:
            return
        self._seen = self._stamp()
        try:
            Reading(self._parent.loop, self._file, self._data_dir, self._take)
        except OSError as error:
            self._complain(f"{self._file}: cannot be read again: {error}")
            return
        self._is_reading = True
        self._notifier.reloading()

    def _take(self, settings: Settings | str) -> None:
        """Bring into force what was read."""
        self._is_reading = False
        if self._parent.is_stopping:
            return
        if isinstance(settings, str):
            self._complain(settings)
        elif os.path.abspath(settings.storage.data_dir) != str(self._directory.path):
            self._complain(
                f"{self._file}: storage.data_dir cannot change while it runs ({self._directory.path}): "
                "stop and start `keyop up`"
            )
        else:
            done = self._parent.replace(roles_of(settings, self._options))
            self._settings = settings
            self._output.info(f"read again: {self._file}: {', '.join(done) or 'nothing to be started again'}")
        self._notifier.ready(self._status())

    def _complain(self, faults: str) -> None:
        for line in faults.splitlines():
            self._output.error(line)
        self._output.error("what was read before stays in force")

    # ---- what others ask

    def _handle(self, request: dict[str, Any]) -> dict[str, Any]:
        command = request.get("command")
        if command == "status":
            return self._report()
        if command == "stop":
            if not self._parent.is_stopping:
                self._parent.loop.later(0, self._parent.stop)
            return {"pid": os.getpid(), "grace_s": self._options.grace_s}
        if command == "restart":
            return self._restart(str(request.get("role")))
        return {"error": f"there is no command {command!r}"}

    def _report(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "state": self.state,
            "config_file": None if self._file is None else os.path.abspath(self._file),
            "processes": self._table.rows(self._parent.services.values(), self.state),
        }

    def _restart(self, name: str) -> dict[str, Any]:
        if self._parent.is_stopping:
            return {"error": "the supervisor is stopping"}
        services = self._parent.find(name)
        if not services:
            return {"error": f"there is no role {name!r}; there are {', '.join(self._parent.services)}"}
        before = {service.name: service.restarts for service in services}
        self._parent.restart(services)
        return {"restarts": before}


def _refuse_foreign(directory: DataDirectory) -> None:
    """Root would run everybody's code as root, and leave root's files in a user's directory."""
    if os.geteuid() == 0 and directory.path.exists() and directory.path.stat().st_uid != 0:
        owner = directory.path.stat().st_uid
        raise DataDirectoryError(
            f"{directory.path}: belongs to user {owner}, and this is root; run it as that user, "
            f"for example: setpriv --reuid {owner} --regid {directory.path.stat().st_gid} --clear-groups keyop up"
        )


def _take_lease(directory: DataDirectory) -> lease.Lease:
    path = directory.run / lease.SUPERVISED
    try:
        held = lease.acquire(path)
    except OSError as error:
        raise DataDirectoryError(f"{path}: {error.strerror}") from error
    if held is None:
        raise WriterBusy(
            f"{directory.path}: a supervisor or a writer runs here in the foreground already "
            f"({path.read_text().strip() or 'no pid noted'}); `keyop stop` ends a supervisor"
        )
    try:
        held.note(f"pid {os.getpid()}\n")
    except OSError:
        pass  # a full disk: that is no reason not to start
    return held


def _terminal_is_there() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY))
    except OSError:
        return False
    return True
