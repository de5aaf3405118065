"""Files that change while hub and client run: certificate, key and CA, and the configuration with its list of peers."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import fields
from pathlib import Path

from keyop.attachment.spawn import writer_environment as child_environment
from keyop.configuration.settings import SECTIONS, Settings
from keyop.errors import CertificateError, ConfigError, KeyopError
from keyop.federation.host import Host

# Somebody may still be writing; and a directory that cannot be watched is looked at.
_AGAIN_S = 5.0
_DEBOUNCE_MS = 200
_WARN_EVERY_S = 86_400.0
_READ_TIMEOUT_S = 30.0

OnSettings = Callable[[Settings], Awaitable[None]]


class Reload:
    """Watches the files of one process and brings what changed into force."""

    def __init__(self, host: Host, on_settings: OnSettings, *takes: str) -> None:
        """``on_settings`` is given the new settings and takes from them the keys ``takes``."""
        self._host = host
        self._log = host.log
        self._on_settings = on_settings
        # Where the data is may be said on the command line.
        self._others = {"storage.data_dir", *takes}
        self._settings = host.settings
        self._config = host.settings.config_file
        self._config_text = _text(self._config)
        self._said = ""
        self._warned_s = float("-inf")

    async def run(self) -> None:
        """Until cancelled."""
        paths = [*self._host.credentials.paths, *([self._config] if self._config else [])]
        self._warn()
        async for _ in _changes({str(Path(path).absolute().parent) for path in paths}):
            try:
                await self._look_at_credentials()
                await self._look_at_config()
            except (KeyopError, OSError) as error:
                self._complain(str(error))
            except Exception:
                # Without this task no change would be seen any more, and nobody would know why.
                self._log.exception("what was read before stays in force")
            self._warn()

    def _warn(self) -> None:
        now_s = time.monotonic()
        if now_s - self._warned_s >= _WARN_EVERY_S:
            self._warned_s = now_s
            for text in self._host.credentials.warnings():
                self._log.warning("%s", text)

    async def _look_at_credentials(self) -> None:
        host = self._host
        try:
            changed = await asyncio.to_thread(host.credentials.reload)
        except CertificateError as error:
            self._complain(str(error))
            return
        self._said = ""
        if not changed:
            return
        self._log.info("read again: %s", ", ".join(changed))
        self._warned_s = float("-inf")
        if host.settings.tls.ca in changed:
            host.take_another_ca()

    def _complain(self, text: str) -> None:
        """Once, and not again every few seconds while somebody mends it."""
        if text != self._said:
            self._said = text
            self._log.warning("what was read before stays in force: %s", text)

    async def _look_at_config(self) -> None:
        text = _text(self._config)
        if self._config is None or text is None or text == self._config_text:
            return
        self._config_text = text
        try:
            settings = await asyncio.to_thread(_settings_of, self._config)
        except ConfigError as error:
            self._log.warning("what was read before stays in force: %s", error)
            return
        try:
            await self._on_settings(settings)
        except BaseException:
            self._config_text = None  # it is good, and could not be brought into force: the next look tries again
            raise
        self._log.info("read again: %s", self._config)
        if others := sorted(_differences(self._settings, settings) - self._others):
            self._log.warning("these take effect when this process is started again: %s", ", ".join(others))
        self._settings = settings


async def _changes(directories: set[str]) -> AsyncIterator[None]:
    """Comes back when anything in the directories changes, and every few seconds in any case.

    The directories, since a file that is replaced is another one, and may be reached through links that change.
    """
    from watchfiles import awatch

    while True:
        with contextlib.suppress(OSError, RuntimeError):  # one is gone, or the kernel's watches are used up
            async for _ in awatch(
                *directories,
                watch_filter=None,
                debounce=_DEBOUNCE_MS,
                step=50,
                rust_timeout=int(_AGAIN_S * 1000),
                yield_on_timeout=True,
                recursive=False,
            ):
                yield
        await asyncio.sleep(_AGAIN_S)
        yield


def _text(path: str | None) -> bytes | None:
    try:
        return Path(path).read_bytes() if path else None
    except OSError:
        return None


_READ = """\
import sys
from keyop.config import Config
from keyop.errors import ConfigError
try:
    print(Config.load(sys.argv[1]).to_settings().to_json())
except ConfigError as error:
    sys.exit(str(error))
"""


def _settings_of(path: str) -> Settings:
    """In a process of its own: what reads a configuration would stay in this one's memory. Raises `ConfigError`."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _READ, path],
            capture_output=True,
            text=True,
            timeout=_READ_TIMEOUT_S,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if done.returncode:
        raise ConfigError(done.stderr.strip())
    return Settings.from_json(done.stdout)


def _differences(old: Settings, new: Settings) -> set[str]:
    """The dotted keys that have other values."""
    found = {"name"} if old.name != new.name else set()
    for section in SECTIONS:
        before, after = getattr(old, section), getattr(new, section)
        for key in fields(before):
            if getattr(before, key.name) != getattr(after, key.name):
                found.add(f"{section}.{key.name}")
    return found
