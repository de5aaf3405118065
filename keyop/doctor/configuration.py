"""Whether the configuration can be used at all."""

from __future__ import annotations

from collections.abc import Iterator

from keyop.doctor.finding import Finding
from keyop.doctor.subject import Subject


def check(subject: Subject) -> Iterator[Finding]:
    """Each fault of the configuration, or where it comes from."""
    for fault in subject.faults.splitlines():
        yield Finding("configuration", "problem", fault, "mend it: nothing starts with this configuration")
    if subject.settings is None and not subject.faults:
        yield Finding(
            "configuration",
            "note",
            "no data directory is named, so this looks at the machine alone",
            "give --config FILE or --data-dir DIR for the rest",
        )
    if subject.settings is not None and subject.settings.config_file:
        yield Finding("configuration", "ok", f"{subject.settings.config_file} can be used")
