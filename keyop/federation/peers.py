"""The hub's list of peers: who may come, who is there, and what each of them is to get."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from keyop.configuration.settings import PeerSettings
from keyop.federation import absent
from keyop.federation.connection import Connection
from keyop.federation.host import Host
from keyop.federation.inbound import Inbound
from keyop.federation.listener import Arrived
from keyop.federation.outbound import Outbound
from keyop.federation.standing import Standing
from keyop.federation.wire import CloseCode, Hello


class Peer:
    """A connection of a peer, and what belongs to it."""

    def __init__(self, arrived: Arrived) -> None:
        self.name = arrived.name
        """The CN of its certificate."""
        self.arrived = arrived
        self.hello = Hello("")
        self.connection: Connection
        self.inbound: Inbound | None = None
        """None until it is let in."""
        self.outbound: Outbound | None = None
        """None unless its positions are open."""
        self.standing: Standing | None = None
        self.granted: tuple[str, ...] = ()
        """What its entry in the list had for it when its positions were opened."""
        self.ended = asyncio.Event()
        """Set when all that it had is given back."""

    @property
    def address(self) -> str:
        """Where it comes from."""
        return self.arrived.address

    @property
    def channels(self) -> tuple[str, ...]:
        """What it gets."""
        return tuple(self.outbound.feeds) if self.outbound is not None else ()

    @property
    def left_out(self) -> int:
        """How many of the channels that it was granted it does not get: see `Known.affordable`."""
        return len(self.granted) - len(self.channels)


class Known:
    """A peer that is or was on the list, there or away."""

    def __init__(self, entry: PeerSettings, standing: Standing, behind: absent.Behind) -> None:
        self.entry: PeerSettings | None = entry
        """Its entry in the list; None when it was taken off."""
        self.standing = standing
        self.behind = behind
        """Where it stood when it left."""
        self.durable: Peer | None = None
        """Its connection. There is one; ephemeral ones may be beside it."""
        self.ephemeral: set[Peer] = set()
        self.turn = asyncio.Lock()
        """Its connections come in one after the other: a new one finds the positions given back."""

    @property
    def connections(self) -> list[Peer]:
        """All of them."""
        return [*([self.durable] if self.durable else []), *self.ephemeral]

    def affordable(self, channels: tuple[str, ...], most: int, *, ephemeral: bool) -> tuple[str, ...]:
        """Those of the channels that it asks for that one more connection gets, if it may ask for any.

        Each position is a file and a directory, each channel of a connection takes memory: a peer that makes up names
        must not get more of them by coming again.
        """
        if ephemeral:
            room = most - sum(len(peer.channels) for peer in self.ephemeral)
            return channels[: max(0, room)]
        known = self.behind.positions
        new = [channel for channel in channels if channel not in known]
        refused = set(new[max(0, most - len(known)) :])
        return tuple(channel for channel in channels if channel not in refused)


class PeerList:
    """Everybody who is or was on the list since this process began, by name."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._known: dict[str, Known] = {}

    def get(self, name: str) -> Known | None:
        """Whoever has this name; look at its entry."""
        return self._known.get(name)

    def connected(self) -> list[str]:
        """The names of those who have positions open."""
        return [name for name, known in self._known.items() if known.durable is not None]

    def outbounds(self) -> list[Outbound]:
        """The sending halves of those."""
        durable = [known.durable for known in self._known.values()]
        return [peer.outbound for peer in durable if peer is not None and peer.outbound is not None]

    async def allow(self, peers: Iterable[PeerSettings]) -> None:
        """A new list of who may come. Who is not on it any more is disconnected; who gets other channels now has to
        come again; who may publish what counts from here on. Raises `KeyopError`, `OSError`."""
        entries: dict[str, PeerSettings] = {}
        for entry in peers:
            entries.setdefault(entry.name, entry)  # the first of a name counts
        for name, known in self._known.items():
            if known.entry is not None and name not in entries:
                self._banish(name, known)
        new = [entry for name, entry in entries.items() if name not in self._known]
        if new:
            host = self._host
            positions = await asyncio.to_thread(absent.all_positions, host.attachment, host.positions.prefix)
            for entry in new:
                self._add(entry, positions)
        for name, entry in entries.items():
            if self._known[name].entry != entry:
                self._change(self._known[name], entry)

    def _add(self, entry: PeerSettings, positions: dict[str, absent.Positions]) -> None:
        host = self._host
        behind = absent.Behind(host.attachment, positions.get(host.positions.id_of(entry.name), {}))
        standing = Standing(entry.name, "", behind.bytes)
        host.standings.add(standing)
        self._known[entry.name] = Known(entry, standing, behind)

    def _banish(self, name: str, known: Known) -> None:
        self._host.log.warning("%s was taken off hub.allowed_peers", name)
        known.entry = None
        self._host.standings.remove(known.standing)
        for peer in known.connections:
            peer.connection.close(CloseCode.NOT_ALLOWED, "not in allowlist")

    def _change(self, known: Known, entry: PeerSettings) -> None:
        self._host.log.info("%s: its entry in hub.allowed_peers has changed", entry.name)
        if known.entry is None:
            self._host.standings.add(known.standing)
        known.entry = entry
        for peer in known.connections:
            if peer.granted != granted(peer.hello.subscribe, entry):
                peer.connection.close(CloseCode.GOING_AWAY, "its channels have changed, come again")
            elif peer.inbound is not None:
                peer.inbound.allowed = frozenset(entry.publish) or None

    def forgotten(self, channel: str, id: str) -> None:
        """A position was deleted."""
        for name, known in self._known.items():
            if self._host.positions.id_of(name) == id:
                known.behind.positions.pop(channel, None)


def granted(asked: Iterable[str], entry: PeerSettings) -> tuple[str, ...]:
    """Channels that a peer gets, in the order in which it asked."""
    return tuple(channel for channel in asked if not entry.subscribe or channel in entry.subscribe)
