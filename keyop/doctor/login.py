"""What logind does to a user's shared memory when the user's last session ends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from keyop.doctor.directory import user_name
from keyop.doctor.finding import Finding
from keyop.doctor.subject import Subject

# From the weakest to the strongest; in drop-in directories the file names decide the order, over all places.
_PLACES = ("usr/lib/systemd", "usr/local/lib/systemd", "run/systemd", "etc/systemd")
_SETTING = re.compile(r"^\s*RemoveIPC\s*=\s*(\S*)\s*$", re.MULTILINE | re.IGNORECASE)
_FALSE = frozenset(("no", "n", "false", "f", "0", "off"))
_LAST_SYSTEM_UID = 999


def check(subject: Subject) -> Iterator[Finding]:
    """Whether it removes that of the data directory's owner."""
    if not Path("/run/systemd/seats").is_dir():
        yield Finding("login", "ok", "no logind runs here that could remove shared memory")
        return
    yield judge(subject.owner_uid, Path("/"))


def judge(uid: int, root: Path) -> Finding:
    """What this system does to the memory of a user."""
    user = user_name(uid)
    values = {"remove_ipc": removes_ipc(root), "uid": uid, "lingers": lingers(user, root)}
    if uid <= last_system_uid(root):
        return Finding("login", "ok", f"{user} is a system user: logind leaves its shared memory alone", "", values)
    if not values["remove_ipc"]:
        return Finding("login", "ok", "logind leaves shared memory alone (RemoveIPC=no)", "", values)
    if values["lingers"]:
        return Finding("login", "ok", f"{user} lingers: logind keeps its shared memory and services", "", values)
    return Finding(
        "login",
        "warning",
        f"when the last session of {user} ends, logind removes its shared memory and ends its user services: keyop "
        "makes the memory anew and loses nothing, but each time publishers and subscribers are held up",
        f"loginctl enable-linger {user}; or RemoveIPC=no in /etc/systemd/logind.conf; or run keyop as a system user",
        values,
    )


def removes_ipc(root: Path) -> bool:
    """``RemoveIPC`` of logind.conf and its drop-ins; on unless told."""
    wanted = True
    main = next((path for path in _main_files(root) if path.is_file()), None)
    drop_ins = {path.name: path for place in _PLACES for path in (root / place / "logind.conf.d").glob("*.conf")}
    for path in [*([main] if main else []), *(drop_ins[name] for name in sorted(drop_ins))]:
        try:
            found = _SETTING.findall(path.read_text(errors="replace"))
        except OSError:
            continue
        if found:
            wanted = found[-1].lower() not in _FALSE
    return wanted


def _main_files(root: Path) -> list[Path]:
    return [root / place / "logind.conf" for place in reversed(_PLACES)]


def lingers(user: str, root: Path) -> bool:
    """Whether the user's services outlive the sessions."""
    return (root / "var/lib/systemd/linger" / user).exists()


def last_system_uid(root: Path) -> int:
    """Up to which number a user is a system user: SYS_UID_MAX of login.defs."""
    try:
        text = (root / "etc/login.defs").read_text(errors="replace")
    except OSError:
        return _LAST_SYSTEM_UID
    found = re.search(r"^\s*SYS_UID_MAX\s+(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else _LAST_SYSTEM_UID
