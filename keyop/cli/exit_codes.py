"""The exit codes of ``keyop``, in one place; ``docs/cli.md`` and ``keyop --help`` say the same."""

from __future__ import annotations

from keyop.errors import (
    ConfigError,
    KeyopError,
    NameRuleError,
    PublishTimeout,
    SupervisorUnavailable,
    WriterBusy,
    WriterUnavailable,
)

OK = 0
FAILED = 1
USAGE = 2
NOT_RUNNING = 3
STALLED = 4
DEGRADED = 5
UNAVAILABLE = 69  # EX_UNAVAILABLE
TEMPORARY = 75  # EX_TEMPFAIL; of a command that `consume --exec` runs: have the message again later
INTERRUPTED = 130

TEXT = """\
\b
Exit codes:
    0  done
    1  failed, standard error says why; verify, doctor: problems found
    2  wrong usage: arguments, names, configuration
    3  status: no writer runs
    4  status: the writer is stalled (a full or failing disk)
    5  status: a process of the supervisor does not run
   69  no writer or supervisor can be reached, or another one is in the way
   75  not within the time limit; it may still happen
  130  interrupted
"""


def of_error(error: KeyopError) -> int:
    """The exit code for an error of the library."""
    if isinstance(error, (ConfigError, NameRuleError)):
        return USAGE
    if isinstance(error, (SupervisorUnavailable, WriterBusy, WriterUnavailable)):
        return UNAVAILABLE
    return TEMPORARY if isinstance(error, PublishTimeout) else FAILED
