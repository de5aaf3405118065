"""The text of a unit: ``keyop up`` as a service, shut off from what it does not need.

What is not shut off, and why: ``/dev/shm``, where all keyop processes of this host meet; real devices and all address
families, because workers read sensors; and memory that may be written and run, because libraries of workers may want
it. docs/service.md says it at length.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from keyop.service import escaping

MARK = "# Written by keyop service install. Changes belong into a drop-in: "
"""How `uninstall` knows a unit of ours."""

WATCHDOG_S = 60
START_S = 120
STOP_S = 60
"""Longer than hub, client, workers and writer take for what is under way: ten seconds each, at most."""

_HOMES = ("/home", "/root", "/run/user")
_TEMPORARY = ("/tmp", "/var/tmp")


@dataclass(frozen=True, slots=True)
class Unit:
    """One service. All paths are absolute."""

    name: str
    """Without ``.service``."""
    is_system: bool
    """Whether the system's manager runs it, or that of a user."""
    program: tuple[str, ...]
    """What runs keyop: ``/opt/keyop/bin/keyop``, or ``python -m keyop``."""
    config: Path
    data_dir: Path
    working_directory: Path
    """Where relative paths of the configuration and modules of workers are found."""
    others: tuple[Path, ...] = ()
    """What else the processes read: certificates, the Python environment."""
    run_as: str = ""
    """The user, of a system unit. Empty: root, and the writer becomes the owner of the data directory."""
    low_port: bool = False
    """Whether the hub listens at a port below 1024."""

    @property
    def file_name(self) -> str:
        """``keyop.service``."""
        return f"{self.name}.service"

    def text(self) -> str:
        """The unit file. Raises `ConfigError` for a path that cannot be written into one."""
        edit = f"systemctl {'' if self.is_system else '--user '}edit {self.name}"
        sections = (
            ("Unit", self._unit()),
            ("Service", (*self._service(), *self._shut_off())),
            ("Install", [f"WantedBy={'multi-user.target' if self.is_system else 'default.target'}"]),
        )
        return f"{MARK}{edit}\n" + "".join(f"\n[{name}]\n" + "".join(f"{x}\n" for x in said) for name, said in sections)

    def _unit(self) -> Iterator[str]:
        yield f"Description=keyop at {escaping.line(str(self.data_dir))}"
        if self.is_system:
            # Certificates and times of messages go by the clock; on a host without a battery it is right from here on.
            yield "After=network.target time-sync.target"
            yield f"RequiresMountsFor={escaping.word(str(self.data_dir))}"
        # It is started again for ever: nobody is there to do it.
        yield "StartLimitIntervalSec=0"

    def _service(self) -> Iterator[str]:
        yield "Type=notify"
        yield "NotifyAccess=main"
        program, *arguments = self.program
        words = [*arguments, "up", "--config", str(self.config)]
        yield f"ExecStart={escaping.word(program)} {' '.join(map(escaping.argument, words))}"
        yield "ExecReload=/bin/kill -HUP $MAINPID"
        yield f"WorkingDirectory={escaping.line(str(self.working_directory))}"
        if self.run_as:
            yield f"User={self.run_as}"
        yield "Restart=always"
        yield "RestartSec=5"
        yield f"WatchdogSec={WATCHDOG_S}"
        yield f"TimeoutStartSec={START_S}"
        yield f"TimeoutStopSec={STOP_S}"
        # SIGTERM goes to the supervisor alone, which stops the others in their order; what is left is killed.
        yield "KillMode=mixed"
        yield "LimitNOFILE=65536"
        yield f"SyslogIdentifier={self.name}"

    def _shut_off(self) -> Iterator[str]:
        yield ""
        yield "NoNewPrivileges=yes"
        yield "RestrictSUIDSGID=yes"
        yield "RestrictRealtime=yes"
        yield "LockPersonality=yes"
        yield "SystemCallArchitectures=native"
        if not self.is_system:
            return  # the rest needs a namespace, which not every system lets a user make
        yield "ProtectSystem=strict"
        # Where its own /tmp would hide something, it gets that of all: programs need some place for scratch files.
        shares_tmp = self._needs(_TEMPORARY)
        writable = (str(self.data_dir), *(_TEMPORARY if shares_tmp else ()))
        yield f"ReadWritePaths={' '.join(map(escaping.word, writable))}"
        yield f"ProtectHome={'read-only' if self._needs(_HOMES) else 'yes'}"
        yield f"PrivateTmp={'no' if shares_tmp else 'yes'}"
        yield "ProtectKernelTunables=yes"
        yield "ProtectKernelModules=yes"
        yield "ProtectKernelLogs=yes"
        yield "ProtectControlGroups=yes"
        yield "ProtectHostname=yes"
        # Of this user's objects in /dev/shm: others may still work with them when this service has stopped.
        yield "RemoveIPC=no"
        if self.run_as:
            capability = "CAP_NET_BIND_SERVICE" if self.low_port else ""
            yield f"CapabilityBoundingSet={capability}"
            if capability:
                yield f"AmbientCapabilities={capability}"

    def _needs(self, places: tuple[str, ...]) -> bool:
        paths = (self.config, self.data_dir, self.working_directory, Path(self.program[0]), *self.others)
        return any(path.is_relative_to(place) for path in paths for place in places)
