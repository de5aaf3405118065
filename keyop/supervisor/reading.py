"""The configuration, read again in a process of its own: what reads it (pydantic, YAML) would stay in memory for years.

As a program, ``python -m keyop.supervisor.reading FILE [DATA_DIR]``, it prints the settings or the faults as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

from keyop.attachment.spawn import writer_environment as child_environment
from keyop.configuration.settings import Settings
from keyop.processes.loop import Loop

_TIMEOUT_S = 30.0


class Reading:
    """One reading, beside everything else that the loop does."""

    def __init__(self, loop: Loop, file: str, data_dir: str | None, done: Callable[[Settings | str], None]) -> None:
        """``done`` is given the settings, or a text that says what is wrong. Raises `OSError`."""
        self._loop = loop
        self._file = file
        self._done = done
        self._said = b""
        command = [sys.executable, "-m", "keyop.supervisor.reading", file, *([data_dir] if data_dir else [])]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=child_environment(), start_new_session=True
        )
        assert self._process.stdout is not None
        self._fd = self._process.stdout.fileno()
        os.set_blocking(self._fd, False)
        loop.watch(self._fd, self._read)
        self._limit = loop.later(_TIMEOUT_S, self._process.kill)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return
        self._said += data
        if not data:
            self._end()

    def _end(self) -> None:
        self._loop.forget(self._fd)
        self._limit.cancel()
        assert self._process.stdout is not None
        self._process.stdout.close()
        code = self._process.wait()
        try:
            answer = json.loads(self._said)
            result = Settings.from_json(answer["settings"]) if "settings" in answer else str(answer["faults"])
        except (ValueError, KeyError, TypeError):
            result = f"{self._file}: could not be read (exit code {code})"
        self._done(result)


def _read(file: str, data_dir: str | None = None) -> dict[str, str]:
    from keyop.config import Config
    from keyop.errors import ConfigError

    try:
        storage = {"storage": {"data_dir": data_dir}} if data_dir else {}
        return {"settings": Config.load(file, **storage).to_settings().to_json()}
    except ConfigError as error:
        return {"faults": str(error)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_read(*sys.argv[1:])))
