"""From the command line to the process that serves: by exec, so that click, pydantic and YAML do not stay in memory."""

from __future__ import annotations

import os
import sys
import tempfile

from keyop.attachment.spawn import writer_environment as child_environment
from keyop.configuration.settings import Settings

REASON = "the package prometheus-client is missing: pip install 'keyop[metrics]'"


def become(settings: Settings, *, log_format: str, log_level: str) -> None:
    """Go on as that process. Does not return."""
    with tempfile.TemporaryFile() as file:
        file.write(settings.to_json().encode())
        file.seek(0)
        fd = os.dup(file.fileno())
    os.set_inheritable(fd, True)
    options = [f"settings_fd={fd}", f"log_format={log_format}", f"log_level={log_level}"]
    os.execve(sys.executable, [sys.executable, "-m", "keyop.metrics", *options], child_environment())
