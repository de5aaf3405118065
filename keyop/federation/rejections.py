"""Who was not let in, and why: said and audited, but not a thousand times.

Whoever is refused comes again, every few seconds for months, and a port that is open to the world is knocked at all
day. So each refusal is told once, and then once a minute with how often there was another one like it.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict

from keyop.federation.audit import Audit

_AGAIN_S = 60.0
_KEPT = 1_024
# What a peer sends may stand in the reason: who makes up new ones is told of so often.
_REASONS = 16
_OTHERS = "other reasons"


class _Told:
    __slots__ = ("address", "repeated", "since_s")

    def __init__(self, address: str, since_s: float) -> None:
        self.address = address
        self.since_s = since_s
        self.repeated = 0


class Rejections:
    """What was told lately."""

    def __init__(self, audit: Audit, logger: logging.Logger) -> None:
        self._audit = audit
        self._log = logger
        # By host, peer and reason, the oldest first.
        self._told: OrderedDict[tuple[str, str, str], _Told] = OrderedDict()

    def note(self, address: str, why: str, peer: str = "") -> None:
        """Somebody at an address (host:port) was turned away; ``peer`` is its name, if that is known."""
        key = (address.rpartition(":")[0], peer, why)
        if key not in self._told and sum(other[:2] == key[:2] for other in self._told) >= _REASONS:
            key, why = (*key[:2], _OTHERS), _OTHERS
        told = self._told.get(key)
        if told is not None:
            told.repeated += 1
            told.address = address
            return
        self._tell(address, peer, why)
        self._told[key] = _Told(address, time.monotonic())
        if len(self._told) > _KEPT:
            self._retell(*self._told.popitem(last=False))

    def look(self) -> None:
        """Tell what was repeated: now and then."""
        now_s = time.monotonic()
        while self._told and now_s - next(iter(self._told.values())).since_s >= _AGAIN_S:
            key, told = self._told.popitem(last=False)
            if told.repeated:
                self._retell(key, told)
                self._told[key] = _Told(told.address, now_s)

    def close(self) -> None:
        """Tell the rest."""
        while self._told:
            self._retell(*self._told.popitem(last=False))

    def _retell(self, key: tuple[str, str, str], told: _Told) -> None:
        if told.repeated:
            self._tell(told.address, key[1], f"{key[2]} repeated={told.repeated}")

    def _tell(self, address: str, peer: str, why: str) -> None:
        self._log.warning("%s%s was turned away: %s", f"{peer} at " if peer else "", address, why)
        self._audit.event("client_rejected", peer=peer, peer_addr=address, detail=why)
