"""The loop: look, draw, do what is typed until the next look."""

from __future__ import annotations

import contextlib
import signal
import time
from functools import partial
from types import FrameType

from keyop.live.messages import last_messages
from keyop.live.sampler import Sampler, require
from keyop.storage.directory import DataDirectory
from keyop.top.terminal import Terminal, TerminalGone
from keyop.top.view import View


class _Told(Exception):
    """SIGTERM or SIGHUP."""


def watch(directory: DataDirectory, *, interval_s: float) -> None:
    """Show a data directory until somebody leaves: q, Ctrl-C, SIGTERM, or the terminal's end.

    Raises `DataDirectoryError`, `TerminalError`.
    """
    require(directory)
    sampler = Sampler(directory)
    terminal = Terminal()
    view = View(partial(last_messages, directory), ascii_only=terminal.ascii_only)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _tell)
    with contextlib.suppress(_Told, KeyboardInterrupt, TerminalGone), terminal:
        _loop(sampler, terminal, view, interval_s)
    sampler.close()


def _tell(number: int, frame: FrameType | None) -> None:
    raise _Told


def _loop(sampler: Sampler, terminal: Terminal, view: View, interval_s: float) -> None:
    while True:
        view.take(sampler.look())
        next_s = time.monotonic() + interval_s
        terminal.draw(view.lines(*terminal.size))
        while (patience_s := next_s - time.monotonic()) > 0:
            key = terminal.key(patience_s)
            if key is None:
                continue
            if key != "resize" and not view.press(key):
                return
            terminal.draw(view.lines(*terminal.size))
