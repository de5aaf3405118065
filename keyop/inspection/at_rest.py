"""Bringing a data directory to rest: the journal owes the other files nothing.

Then a backup, a move, or another program (a Go instance) finds all that was acknowledged in segments and offset files.
A writer that leaves does this by itself; a crash leaves it undone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import NamedTuple

from keyop.attachment.attachment import Attachment
from keyop.attachment.spawn import writer_environment
from keyop.configuration.settings import Settings
from keyop.errors import PublishTimeout, WriterBusy, WriterUnavailable
from keyop.inspection import presence
from keyop.protocol import entry
from keyop.protocol.writer_options import WriterOptions
from keyop.storage.directory import DataDirectory
from keyop.storage.journal import NAMES
from keyop.storage.journal_file import FIRST_FRAME_BYTES, parse_header

_EXIT_BUSY = 69


class Rest(NamedTuple):
    """What a recovery or a checkpoint came to."""

    at_rest: bool
    """Whether the journal owes nothing at this moment."""
    writer_runs: bool
    """Whether there is a writer that goes on running."""
    writer_pid: int | None
    """Its pid, if it noted one."""
    attached: int
    """Living processes that are attached: they write, or start a writer, whenever they want to."""
    notes: list[str]
    """What a recovery had to say: what was lost, moved, or left by another program."""


def is_at_rest(directory: DataDirectory) -> bool:
    """Whether both files of the journal are free, or not there. Raises `OSError`."""
    for name in NAMES:
        try:
            with (directory.journal / name).open("rb", buffering=0) as file:
                if parse_header(os.pread(file.fileno(), FIRST_FRAME_BYTES, 0)) is not None:
                    return False
        except (FileNotFoundError, NotADirectoryError):
            continue
    return True


def recover(settings: Settings) -> Rest:
    """Replay the journal, commit what dead processes left in their rings, and leave nothing running.

    Raises `WriterBusy` while a writer runs, `DataDirectoryError`, `WriterUnavailable` (a full disk, for example).
    """
    directory = DataDirectory(settings.storage.data_dir)
    directory.require()
    if presence.writer_lives(directory) or presence.is_supervised(directory):
        pid = presence.writer_pid(directory)
        raise WriterBusy(
            f"{directory.path}: a writer runs here (pid {pid}), and it looks after the journal itself; "
            "`keyop checkpoint` brings the directory to rest beside it"
        )
    return _rest(directory, _run_once(directory, settings))


def _run_once(directory: DataDirectory, settings: Settings) -> list[str]:
    """A writer in a process of its own: it becomes the directory's owner, and its threads end with it."""
    options = WriterOptions.from_settings(settings)
    options.data_dir = os.path.abspath(options.data_dir)
    done = subprocess.run(
        [sys.executable, "-m", "keyop.writer", "once=1", "on_demand=1", "log_format=json", *options.to_arguments()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd="/",
        env=writer_environment(),
        check=False,
    )
    lines = done.stderr.decode(errors="replace").splitlines()
    complaints = [_sentence(record) for record in map(_record, lines) if record.get("level") in ("warning", "error")]
    if done.returncode == _EXIT_BUSY:
        raise WriterBusy(f"{directory.path}: a writer was started meanwhile; `keyop checkpoint` works beside it")
    if done.returncode:
        raise WriterUnavailable(
            f"{directory.path}: not recovered (exit code {done.returncode}): "
            + ("; ".join(complaints) or (lines or ["the writer gave no reason"])[-1])
        )
    return complaints


def _record(line: str) -> dict[str, object]:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    return record if isinstance(record, dict) else {}


def _sentence(record: dict[str, object]) -> str:
    details = [f"{value}" for key, value in record.items() if key in ("why", "note", "line")]
    others = [f"{key} {value}" for key, value in record.items() if key in ("file", "old", "new")]
    return " ".join([str(record.get("event")), *others]) + (f": {' '.join(details)}" if details else "")


def checkpoint(settings: Settings, timeout_s: float | None = None) -> Rest:
    """Have the running writer bring everything to its place; it stays. Without a writer the same as `recover`.

    Raises `WriterUnavailable`, `PublishTimeout`, `DataDirectoryError`, `WriterBusy`.
    """
    directory = DataDirectory(settings.storage.data_dir)
    directory.require()
    if not presence.writer_lives(directory) and not presence.is_supervised(directory):
        return recover(settings)
    attachment = Attachment(settings)
    try:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        attachment.transact(entry.TRANSACTION.pack(0) + entry.encode(entry.CHECKPOINT), "", deadline)
    except PublishTimeout as error:
        raise PublishTimeout(
            f"{directory.path}: the writer (pid {presence.writer_pid(directory)}) has not brought the journal to its "
            f"places within {timeout_s:g} s; it may still do so, and `keyop status` says what it waits for"
        ) from error
    finally:
        attachment.close()
    return _rest(directory, [])


def _rest(directory: DataDirectory, notes: list[str]) -> Rest:
    runs = presence.writer_lives(directory)
    pid = presence.writer_pid(directory) if runs else None
    attached = sum(process.alive for process in presence.attached(directory))
    return Rest(is_at_rest(directory), runs, pid, attached, notes)
