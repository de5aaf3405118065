"""Connections to a hub whose handshake is not done: few at a time, and nobody takes the room of others."""

from __future__ import annotations

from collections.abc import Callable


class Arrival:
    """One of them; `leave` it when its handshake is done, or it is gone."""

    __slots__ = ("_arrivals", "_host", "turn_away")

    def __init__(self, arrivals: Arrivals, host: str, turn_away: Callable[[], None]) -> None:
        self._arrivals = arrivals
        self._host = host
        self.turn_away = turn_away
        """Called when its room is needed."""

    def leave(self) -> None:
        """It does not count any more."""
        self._arrivals.remove(self, self._host)


class Arrivals:
    """Those that wait, by the host that they come from."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._of_host: dict[str, dict[Arrival, None]] = {}

    def enter(self, host: str, turn_away: Callable[[], None]) -> Arrival:
        """One more has come. If there is no room, another one is turned away: of the host that has the most of them
        the one that has waited longest. So whoever comes often keeps nobody else out."""
        if self._count >= self._most:
            crowd = max(self._of_host.items(), key=lambda item: len(item[1]) + (item[0] == host))[1]
            oldest = next(iter(crowd))
            oldest.leave()
            oldest.turn_away()
        arrival = Arrival(self, host, turn_away)
        self._of_host.setdefault(host, {})[arrival] = None
        self._count += 1
        return arrival

    def remove(self, arrival: Arrival, host: str) -> None:
        """What `Arrival.leave` does."""
        crowd = self._of_host.get(host, {})
        if arrival in crowd:
            del crowd[arrival]
            self._count -= 1
            if not crowd:
                del self._of_host[host]

    def __len__(self) -> int:
        return self._count
