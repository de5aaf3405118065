"""Several worker processes of one app, kept running by a parent."""

from __future__ import annotations

from keyop.configuration.settings import Settings
from keyop.processes.output import Output
from keyop.processes.parent import Parent
from keyop.processes.role import Role
from keyop.workers.command import WorkerOptions

# Who does not leave within the grace ends itself. The parent's patience is for what cannot even do that.
_LONGER_S = 2.0


def run(options: WorkerOptions, settings: Settings, processes: int, *, reloads: bool) -> int:
    """Until SIGTERM or SIGINT; the exit code. With ``reloads`` they are started again when the source changes."""
    output = Output(options.log_format, "worker")
    grace_s = options.grace_s + _LONGER_S
    if not reloads:
        return Parent(_roles(options, settings, processes), output, grace_s=grace_s).run()
    from keyop.workers.reloading import ReloadingParent, Source

    parent = ReloadingParent(_roles(options, settings, processes), output, grace_s=grace_s)
    with Source(options.app.module).watched(parent.loop, parent.source_changed):
        return parent.run()


def _roles(options: WorkerOptions, settings: Settings, processes: int) -> list[Role]:
    """``worker/1`` and so on; a single one just ``worker``."""
    text = settings.to_json()
    return [
        Role(
            name=f"worker/{number}" if processes > 1 else "worker",
            command=options._replace(part=(number, processes)).to_command(),
            settings=text,
        )
        for number in range(1, processes + 1)
    ]
