"""The attached processes: who is there, who comes and goes, who stays away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torturing.models.commit_path.chain import Chain
from torturing.models.commit_path.memory import Port
from torturing.models.commit_path.publisher import Commander, Publisher
from torturing.models.commit_path.subscriber import INPUT, PlainSubscriber

if TYPE_CHECKING:
    from torturing.models.commit_path.world import World

_SUBSCRIBERS = ("plain", "chain")


class Process(Protocol):
    """An attached process."""

    port: Port
    name: str

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing more to do."""
        ...

    @property
    def is_leaving(self) -> bool:
        """Whether another process may take its place."""
        ...

    def act(self) -> None:
        """Do one thing."""
        ...


class Crowd:
    """All of them. A role is what a process does; who does it changes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._processes: dict[str, Process] = {}
        # Those that close their subscription, or have closed it and live on.
        self._leaving: list[Process] = []
        # For how many looks a role stays empty.
        self._away: dict[str, int] = {}
        # At each act; and how soon a subscriber that has caught up goes.
        self._mortality = world.chance.choice((0.0, 0.01, 0.08))
        self.departures = 0.5 if world.mode.departing else world.chance.choice((0.0, 0.03, 0.2))
        self._lives = 0

    # ---- coming and going

    def attach(self, role: str) -> Port:
        """A port for a process that begins."""
        self._lives += 1
        port = Port(f"{role}#{self._lives}", self._lives)
        self._world.ports.append(port)
        return port

    def end(self, process: Process) -> None:
        """A process is gone; its port stays."""
        process.port.alive = False

    def dies(self, process: Process) -> bool:
        """A place where a process may be killed; whether it was."""
        world = self._world
        if world.calm or world.chance.random() >= self._mortality:
            return False
        world.say("*** {} is killed", process.name)
        world.ledger.note_killed(process.port)
        self.end(process)
        return True

    def lose_power(self) -> None:
        """All are gone. Programs come up again before the writer is done, but some subscribers later."""
        world = self._world
        for role in self._processes:
            self._away[role] = world.chance.choice((0, 3, 15)) if role in _SUBSCRIBERS else 0
        self._processes.clear()
        self._leaving.clear()

    def gather(self) -> None:
        """Begin anew whoever has ended."""
        world = self._world
        roles: dict[str, type[Publisher] | type[PlainSubscriber] | type[Chain]] = {"p": Publisher, "q": Publisher}
        if world.mode.cursors:
            roles["plain"] = PlainSubscriber
        if world.mode.exactly_once:
            roles["chain"] = Chain
        for role, make in roles.items():
            process = self._processes.get(role)
            if process is not None and process.is_leaving:
                self._leaving.append(process)
            if process is not None and not process.is_leaving and process.port.alive:
                continue
            if process is not None:
                del self._processes[role]
                # Who subscribes may stay away for a while.
                self._away[role] = world.chance.choice((0, 0, 0, 3, 15)) if role in _SUBSCRIBERS else 0
            if self._stays_away(role) or (role == "plain" and self._perhaps_set_back()):
                continue
            self._processes[role] = make(world, role)
        self._leaving = [process for process in self._leaving if process.port.alive]
        if "command" in self._processes and not self._processes["command"].port.alive:
            del self._processes["command"]

    def _stays_away(self, role: str) -> bool:
        left = self._away.get(role, 0)
        self._away[role] = left - 1
        return left > 0 and not self._world.calm

    def _perhaps_set_back(self) -> bool:
        """While nobody holds the subscription a command may move its cursor; whether one is under way."""
        world = self._world
        if "command" in self._processes:
            return True
        if world.calm or not world.writer_is_up or world.chance.random() < 0.5:
            return False
        offset = world.chance.choice(world.checker.offsets(INPUT) or [0])
        self._processes["command"] = Commander(world, (INPUT, "plain"), offset)
        return True

    # ---- acting

    def one_acts(self) -> None:
        """Any of them does something, or dies."""
        processes = list(self._processes.values())
        if not processes:
            return
        process = self._world.chance.choice(processes)
        if process.port.alive and not self.dies(process):
            process.act()
            if process.is_leaving:
                self.gather()
                self._processes.get("plain", process).act()  # who takes its place may be waiting

    def leavers_act(self) -> None:
        """Those that wait to hear that they have left: a wake-up is quicker than two commits."""
        for process in self._leaving:
            process.act()

    def all_act(self) -> None:
        """Everybody does something."""
        self.gather()
        for process in [*self._processes.values(), *self._leaving]:
            if process.port.alive:
                process.act()

    def is_idle(self) -> bool:
        """Whether everybody is there and has nothing more to do."""
        self.gather()
        return all(process.is_idle for process in self._processes.values())
