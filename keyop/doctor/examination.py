"""All checks, one after the other. One that fails itself is a finding, and the others go on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module

from keyop.doctor.finding import Finding
from keyop.doctor.subject import Subject

CHECKS = (
    "configuration",
    "directory",
    "file_system",
    "sync",
    "space",
    "shared_memory",
    "leftovers",
    "login",
    "descriptors",
    "clock",
    "certificates",
    "listening",
    "hubs",
    "versions",
)
"""The modules of the checks, in the order in which their findings are told."""


def examine(subject: Subject, checks: Iterable[str] = CHECKS) -> Iterator[Finding]:
    """What the checks find, as they find it. Never raises for what is wrong with the machine."""
    for name in checks:
        try:
            yield from import_module(f"keyop.doctor.{name}").check(subject)
        except Exception as error:  # a machine on which something is broken is what this is for
            why = f"{type(error).__name__}: {error}"
            yield Finding(name.replace("_", "-"), "warning", f"this could not be looked at: {why}")
