"""Writing a unit where systemd finds it, and taking it away again."""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
from pathlib import Path

from keyop.errors import KeyopError
from keyop.service.unit import MARK, Unit

_SYSTEM_DIRECTORY = "/etc/systemd/system"
_PATIENCE_S = 90.0


class ServiceError(KeyopError):
    """A unit cannot be installed or removed. The text says why, and the way out."""


class Manager:
    """systemd, of the system or of this user."""

    def __init__(self, *, is_system: bool) -> None:
        self.is_system = is_system

    @property
    def directory(self) -> Path:
        """Where its administrator's units lie."""
        if self.is_system:
            return Path(_SYSTEM_DIRECTORY)
        configured = os.environ.get("XDG_CONFIG_HOME", "")
        base = Path(configured) if os.path.isabs(configured) else Path.home() / ".config"
        return base / "systemd" / "user"

    @property
    def runs(self) -> bool:
        """Whether it is there to be told anything."""
        if shutil.which("systemctl") is None:
            return False
        if self.is_system:
            return Path("/run/systemd/system").is_dir()
        return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}", "systemd", "private").exists()

    def command(self, *words: str) -> str:
        """A ``systemctl`` command, for people to type."""
        return " ".join(("systemctl", *(() if self.is_system else ("--user",)), *words))

    def tell(self, *words: str) -> None:
        """Run one. Raises `ServiceError` with what it said."""
        command = self.command(*words)
        try:
            done = subprocess.run(
                command.split(),
                capture_output=True,
                text=True,
                timeout=_PATIENCE_S,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ServiceError(f"{command}: {error}") from error
        if done.returncode:
            raise ServiceError(f"{command}: {done.stderr.strip() or f'exit code {done.returncode}'}")


def install(unit: Unit, manager: Manager, *, force: bool) -> bool:
    """Write the unit; whether anything has changed. Raises `ServiceError`, `ConfigError`, `OSError`.

    One that is there and differs stays, unless ``force``.
    """
    path, text = manager.directory / unit.file_name, unit.text()
    if not unit.data_dir.is_dir():
        owner = f"-o {unit.run_as} " if unit.run_as else ""
        raise ServiceError(
            f"{unit.data_dir}: there is no such directory, and the service may not make it; "
            f"install -d {owner}{unit.data_dir}"
        )
    if os.path.lexists(path) and not force:
        there = _read(path)
        if there == text:
            return False
        raise ServiceError(f"{path}: exists and differs; --force replaces it\n{_difference(there, text)}")
    _write(path, text)
    return True


def uninstall(name: str, manager: Manager, *, force: bool) -> Path:
    """Stop and disable the service and remove its unit; the path that it had. Raises `ServiceError`, `OSError`."""
    path = manager.directory / f"{name}.service"
    if not os.path.lexists(path):
        raise ServiceError(f"{path}: there is no such unit")
    if not force and not _read(path).startswith(MARK):
        raise ServiceError(f"{path}: was not written by keyop service install; --force removes it all the same")
    if manager.runs:
        manager.tell("disable", "--now", f"{name}.service")
    path.unlink()
    return path


def _read(path: Path) -> str:
    if path.is_symlink() and os.path.realpath(path) == os.devnull:
        raise ServiceError(f"{path}: the unit is masked; systemctl unmask {path.name}")
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""  # a link to nowhere


def _difference(there: str, new: str) -> str:
    lines = difflib.unified_diff(there.splitlines(), new.splitlines(), "there", "new", n=0, lineterm="")
    return "\n".join(line for line in lines if not line.startswith("@@"))


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with os.fdopen(fd, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
