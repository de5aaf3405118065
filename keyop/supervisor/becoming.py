"""From the command line to the supervisor: by exec, so that click, pydantic and YAML do not stay in its memory."""

from __future__ import annotations

import os
import sys
import tempfile

from keyop.attachment.spawn import writer_environment as child_environment
from keyop.configuration.settings import Settings
from keyop.supervisor.roles import Options


def become(settings: Settings, options: Options, data_dir: str | None) -> None:
    """Go on as the supervisor, with the same process id. Does not return."""
    with tempfile.TemporaryFile() as file:
        file.write(settings.to_json().encode())
        file.seek(0)
        fd = os.dup(file.fileno())
    os.set_inheritable(fd, True)
    command = [
        sys.executable,
        "-m",
        "keyop.supervisor",
        f"settings_fd={fd}",
        f"log_format={options.log_format}",
        f"log_level={options.log_level}",
        f"grace={options.grace_s:g}",
        f"data_dir={data_dir or ''}",
    ]
    os.execve(sys.executable, command, child_environment())
