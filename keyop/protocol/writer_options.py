"""What a writer process is told on its command line: the part of the settings that concerns it.

A writer has to start fast and stay small, so this is a plain class, and ``key=value`` is all there is to parse:
`keyop.configuration.settings` would bring dataclasses and JSON with it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyop.configuration.settings import Settings


# Options whose section is not ``storage``.
_SECTIONS = {
    "audit_max_files": "audit",
    "audit_max_size_mb": "audit",
    "idle_exit": "writer",
    "seen_id_lru_size": "dedup",
    "spin_us": "ipc",
}


class WriterOptions:
    """Fields are named like the keys of the configuration, see `keyop.configuration.settings`; times are in seconds."""

    __slots__ = (
        "audit_max_files",
        "audit_max_size_mb",
        "compaction_threshold_mb",
        "data_dir",
        "dead_letter_compaction_threshold_mb",
        "idle_exit",
        "journal_mb",
        "max_files",
        "offset_flush_interval_ms",
        "retention",
        "seen_id_lru_size",
        "spin_us",
        "sync_interval_ms",
    )

    def __init__(self, data_dir: str) -> None:
        """The defaults of the configuration."""
        self.data_dir = data_dir
        self.sync_interval_ms = 0
        self.compaction_threshold_mb = 100.0
        self.dead_letter_compaction_threshold_mb = 50.0
        self.max_files = 10
        self.retention = 0.0
        self.offset_flush_interval_ms = 200
        self.journal_mb = 8.0
        self.spin_us = 50
        self.idle_exit = 30.0
        self.seen_id_lru_size = 100_000
        self.audit_max_size_mb = 100.0
        self.audit_max_files = 10

    @property
    def journal_bytes(self) -> int:
        """The most that a file of the journal grows to."""
        return int(self.journal_mb * (1 << 20))

    @property
    def audit_bytes(self) -> int:
        """The size at which the audit log is rotated."""
        return int(self.audit_max_size_mb * (1 << 20))

    @classmethod
    def from_settings(cls, settings: Settings) -> WriterOptions:
        """The options of a writer for a process with these settings."""
        options = cls(settings.storage.data_dir)
        for key, name in cls.keys().items():
            section, _, field = key.partition(".")
            setattr(options, name, getattr(getattr(settings, section), field))
        return options

    @classmethod
    def keys(cls) -> dict[str, str]:
        """The dotted keys of the configuration that concern a writer, and the option that each becomes."""
        return {f"{_SECTIONS.get(name, 'storage')}.{name.removeprefix('audit_')}": name for name in cls.__slots__}

    @classmethod
    def from_arguments(cls, arguments: dict[str, str]) -> WriterOptions:
        """The options that `to_arguments` wrote. Raises `ValueError` and `KeyError`."""
        options = cls(arguments["data_dir"])
        for name in cls.__slots__:
            if name != "data_dir" and name in arguments:
                kind = type(getattr(options, name))
                setattr(options, name, kind(arguments[name]))
        return options

    def to_arguments(self) -> list[str]:
        """One ``key=value`` for each option."""
        return [f"{name}={getattr(self, name)}" for name in self.__slots__]
