"""What a child process is for, and how it is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """Two roles are equal if a process of one can go on as the other: what differs makes a restart at a reload."""

    name: str
    """``hub``, or ``billing/2`` for the second process of ``billing``."""

    command: tuple[str, ...]
    """What is run. Says that it is ready as `keyop.readiness.say_ready` does."""

    rank: int = 0
    """Started from the lowest rank up, each when those below it are ready; stopped from the highest down."""

    settings: str | None = field(default=None, compare=False)
    """A text in a file that the process inherits; ``settings_fd=NUMBER`` is added to its command."""

    depends_on: str = ""
    """What in the settings makes a difference, for the comparison."""

    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables besides those of the parent."""

    @property
    def group(self) -> str:
        """The name without the number of the process."""
        return self.name.partition("/")[0]
