"""How many files a process may have open."""

from __future__ import annotations

import resource
from collections.abc import Iterator

from keyop.doctor.finding import Finding
from keyop.doctor.subject import Subject

_FEWEST = 256
# Beside segments: journal, locks, rings, the log, and whatever the program itself opens.
_OTHERS = 128


def check(subject: Subject) -> Iterator[Finding]:
    """The limit of this process, which those that it starts inherit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    endless = hard == resource.RLIM_INFINITY
    values = {"soft": soft, "hard": None if endless else hard, "channels": subject.channel_count}
    said = f"{soft:,} files may be open in a process (at most {'any number' if endless else f'{hard:,}'})"
    way = "raise it: LimitNOFILE=65536 in the unit, ulimit -n, /etc/security/limits.conf"
    if not endless and hard < _FEWEST:
        yield Finding("descriptors", "problem", f"{said}: too few for a writer or a hub", way, values)
    elif not endless and hard < subject.channel_count + _OTHERS:
        text = f"{said}: fewer than there are channels, so that the writer opens and closes files all the time"
        yield Finding("descriptors", "warning", text, way, values)
    else:
        yield Finding("descriptors", "ok", said, "", values)
