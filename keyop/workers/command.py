"""How worker processes are started: the command, and the settings in a file that they inherit."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Collection
from typing import NamedTuple

from keyop.attachment.spawn import writer_environment as child_environment
from keyop.configuration.settings import Settings
from keyop.workers.loading import Reference

GRACE_S = 10.0


class WorkerOptions(NamedTuple):
    """What a worker process is told besides the settings."""

    app: Reference
    only: Collection[str] = ()
    """The ids to handle; none named: all."""
    part: tuple[int, int] = (1, 1)
    """(k, n): it is process k of n that share the work."""
    grace_s: float = GRACE_S
    log_format: str = "text"
    log_level: str = "info"

    def to_command(self) -> tuple[str, ...]:
        """The command. A ``settings_fd=NUMBER`` has to be added: an inherited file with the settings as JSON."""
        arguments = (
            f"app={self.app}",
            f"only={','.join(self.only)}",
            f"part={self.part[0]}/{self.part[1]}",
            f"grace={self.grace_s:g}",
            f"log_format={self.log_format}",
            f"log_level={self.log_level}",
        )
        return (sys.executable, "-m", "keyop.workers", *arguments)

    @classmethod
    def from_arguments(cls, arguments: dict[str, str]) -> WorkerOptions:
        """The same from what `to_command` wrote."""
        module, _, attribute = arguments["app"].partition(":")
        number, _, count = arguments.get("part", "1/1").partition("/")
        return cls(
            app=Reference(module, attribute),
            only=tuple(filter(None, arguments.get("only", "").split(","))),
            part=(int(number), int(count)),
            grace_s=float(arguments.get("grace", GRACE_S)),
            log_format=arguments.get("log_format", "text"),
            log_level=arguments.get("log_level", "info"),
        )


def become(options: WorkerOptions, settings: Settings) -> None:
    """Go on as a worker process, without what was needed to read command line and configuration. Does not return."""
    with tempfile.TemporaryFile() as file:
        file.write(settings.to_json().encode())
        file.seek(0)
        fd = os.dup(file.fileno())
    os.set_inheritable(fd, True)
    os.execve(sys.executable, [*options.to_command(), f"settings_fd={fd}"], child_environment())
