"""A real terminal under test: tmux runs a program, types into it, and says what stands on its screen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import pytest
from child import ROOT, eventually

needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed (apt-get install tmux)")


class Screen:
    """``keyop ARGUMENTS`` in a shell of its own, on a screen of so many cells and lines."""

    def __init__(
        self, socket: Path, *arguments: object, cells: int = 80, lines: int = 24, env: Mapping[str, str] | None = None
    ) -> None:
        self._tmux = ["tmux", "-S", str(socket), "-f", os.devnull]
        command = " ".join([sys.executable, "-m", "keyop.cli", *map(str, arguments)])
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("KEYOP_", "TMUX"))}
        # Job control, for Ctrl-Z; and a prompt that can be waited for.
        shell = ["bash", "--norc", "--noprofile", "-i"]
        self._run(
            *("new-session", "-d", "-x", str(cells), "-y", str(lines), *shell),
            env={**clean, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "PS1": "prompt> ", **(env or {})},
        )
        self.type(f"clear; {command}; echo ended with $?\n")

    def _run(self, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        done = subprocess.run(
            [*self._tmux, *arguments], env=env, capture_output=True, text=True, timeout=20, check=True
        )
        return done.stdout

    def type(self, text: str) -> None:
        """Type this."""
        self._run("send-keys", "-l", text)

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names: ``Enter``, ``C-c``, ``Down``."""
        self._run("send-keys", *keys)

    def resize(self, cells: int, lines: int) -> None:
        """Give the window another size."""
        self._run("resize-window", "-x", str(cells), "-y", str(lines))

    def lines(self, *, colours: bool = False) -> list[str]:
        """What stands there, without blanks at the ends."""
        text = self._run("capture-pane", "-p", *(["-e"] if colours else []))
        return [line.rstrip() for line in text.splitlines()]

    @property
    def text(self) -> str:
        """The same in one piece."""
        return "\n".join(self.lines())

    def shows(self, *texts: str) -> Self:
        """Wait until all of these stand there."""
        try:
            eventually(lambda: all(text in self.text for text in texts))
        except AssertionError:
            raise AssertionError(f"not all of {texts} on\n{self.text}") from None
        return self

    def shows_no(self, text: str) -> Self:
        """Wait until this stands there no more."""
        try:
            eventually(lambda: text not in self.text)
        except AssertionError:
            raise AssertionError(f"{text!r} still on\n{self.text}") from None
        return self

    def cursor_is_shown(self) -> bool:
        """Whether the program has given the cursor back."""
        return self._run("display-message", "-p", "#{cursor_flag}").strip() == "1"

    def end(self) -> None:
        """End the shell and all that runs in it."""
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, timeout=20, check=False)
