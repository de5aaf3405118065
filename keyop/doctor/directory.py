"""Whether the data directory belongs to who works with it."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator

from keyop.doctor.finding import Finding
from keyop.doctor.subject import Subject
from keyop.inspection import presence


def check(subject: Subject) -> Iterator[Finding]:
    """Kind, owner and permissions; and a writer that cannot be seen from here."""
    directory, nearest = subject.directory, subject.nearest
    if directory is None or nearest is None:
        return
    path, me = directory.path, os.geteuid()
    if not nearest.is_dir():
        yield _problem(f"{nearest} is a file where a directory should be", "move it away, or name another directory")
        return
    if not os.access(nearest, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        owner = user_name(nearest.stat().st_uid)
        way = f"run keyop as {owner}, or give the directory away: chown -R {user_name(me)} {nearest}"
        yield _problem(f"{nearest} belongs to {owner}, and {user_name(me)} may not write there", way)
        return
    if nearest != path:
        yield Finding("directory", "ok", f"{path} is not there yet; {user_name(me)} may make it")
        return
    owner_uid = path.stat().st_uid
    if me not in (owner_uid, 0):
        way = f"run keyop as {user_name(owner_uid)}, or: chown -R {user_name(me)} {path}"
        yield _problem(f"{path} belongs to {user_name(owner_uid)}: processes of {user_name(me)} cannot attach", way)
        return
    if presence.writer_lives(directory) and presence.writer_state(directory) is None:
        yield _problem(
            f"a writer runs on {path} that cannot be seen from here: it has another /dev/shm, or is another user's",
            "share the shared memory (docker run --ipc=container:NAME, or --ipc=host on both), run as the same user",
        )
        return
    yield Finding("directory", "ok", f"{path} belongs to {user_name(owner_uid)}")


def user_name(uid: int) -> str:
    """``keyop``, or ``user 1000`` where the system knows no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _problem(text: str, remedy: str) -> Finding:
    return Finding("directory", "problem", text, remedy)
