"""``python -m keyop.writer``: how a writer is started, on demand or (by ``keyop writer``) in the foreground.

Arguments are ``key=value`` so that nothing has to be imported to read them: those of `keyop.protocol.writer_options`,
``on_demand``, ``supervised``, ``take_over`` and ``once`` (0 or 1), ``log_format`` (text or json), ``log_level``,
``turn_fd`` (an inherited lock that says that a writer is being started).
"""

from __future__ import annotations

import os
import sys

from keyop.protocol.writer_options import WriterOptions
from keyop.writer.log import Log
from keyop.writer.process import run


def main(arguments: list[str]) -> int:
    """Run a writer; its exit code."""
    options = dict(argument.split("=", 1) for argument in arguments)
    writer_options = WriterOptions.from_arguments(options)
    log = Log(options.get("log_format", "text"), options.get("log_level", "info"))
    turn_fd = int(options.get("turn_fd", -1))
    names = ("on_demand", "supervised", "take_over", "once")
    kinds = {name: options.get(name) == "1" for name in names}
    return run(writer_options, log=log, turn_fd=turn_fd, **kinds)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    # Daemon threads may sit in a sync: the interpreter's own shutdown would wait for nothing good.
    os._exit(code)
