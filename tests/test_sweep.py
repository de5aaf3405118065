"""Positions of peers that do not come back: which are forgotten, and when."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from child import eventually
from federation import Host, Net, net_at
from raw_peer import greet

from keyop.federation.hub import Hub


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    with net_at(tmp_path) as net:
        yield net


def positions_of(net: Net, *names: str) -> tuple[Host, Path]:
    """A hub at which these peers were, and which is stopped again; the directory of their positions."""
    host = net.host("hub1").is_hub(*names)
    host.start_hub()
    for name in names:
        greet(host.address, net.pki.instance(name), "down").drop()
    eventually(lambda: len(host.audit("peer_disconnected")) == len(names))
    host.hub.stop()
    return host, host.path / "subscribers" / "down"


def age(path: Path, by_s: float) -> None:
    os.utime(path, (path.stat().st_mtime - by_s,) * 2)


def test_by_the_time_of_their_leaving(net: Net) -> None:
    """A peer that is connected is never forgotten, however long it was silent."""
    host, offsets = positions_of(net, "peer", "other", "third")
    for name, by_s in (("peer", 3_500), ("other", 3_700), ("third", 3_700)):
        age(offsets / f"fed-{name}.offset", by_s)

    async def play() -> list[tuple[str, str]]:
        hub = Hub(host.config.to_settings())
        await hub.start()
        wire = await asyncio.to_thread(greet, host.address, net.pki.instance("third"), "down")
        swept = await hub.sweep.forget(time.time() - 3_600)
        wire.drop()
        await hub.close()
        return swept

    assert asyncio.run(play()) == [("down", "fed-other")]
    assert sorted(path.name for path in offsets.iterdir()) == ["fed-peer.offset", "fed-third.offset"]


def test_who_left_before_the_clock_was_set_has_left_just_now(net: Net) -> None:
    """A Raspberry Pi boots in 1970. Set right, it would forget everybody who is not there at that moment."""
    host, offsets = positions_of(net, "peer")
    path = offsets / "fed-peer.offset"
    os.utime(path, (100.0, 100.0))

    async def play() -> list[tuple[str, str]]:
        hub = Hub(host.config.to_settings())
        await hub.start()
        swept = await hub.sweep.forget(time.time() - 3_600)
        await hub.close()
        return swept

    before_s = time.time()
    assert asyncio.run(play()) == []
    assert path.stat().st_mtime > before_s - 60


def test_nobody_is_forgotten_while_the_clock_is_not_to_be_trusted(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    host, offsets = positions_of(net, "peer")
    path = offsets / "fed-peer.offset"
    age(path, 30 * 86_400)
    asked = 0

    class Clock:
        def trusted(self, now_s: float, monotonic_s: float) -> bool:
            nonlocal asked
            asked += 1
            if asked < 5:
                assert path.exists()
            return asked >= 5

    monkeypatch.setattr("keyop.federation.sweep.WallClock", Clock)
    monkeypatch.setattr("keyop.federation.sweep._EVERY_S", 0.02)

    async def play() -> None:
        hub = Hub(host.config.to_settings())
        await hub.start()
        await asyncio.to_thread(eventually, lambda: not path.exists())
        await hub.close()

    asyncio.run(play())
    assert asked >= 5


def test_who_is_there_and_gets_nothing_does_not_age(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the hub killed, it would seem to have left when it got its last message."""
    host, offsets = positions_of(net, "peer")
    path = offsets / "fed-peer.offset"
    monkeypatch.setattr("keyop.federation.sweep._EVERY_S", 0.02)

    async def play() -> None:
        hub = Hub(host.config.to_settings())
        await hub.start()
        wire = await asyncio.to_thread(greet, host.address, net.pki.instance("peer"), "down")
        await asyncio.to_thread(host.wait_for_audit, "client_connected", 2)
        age(path, 30 * 86_400)
        await asyncio.to_thread(eventually, lambda: path.stat().st_mtime > time.time() - 3_600)
        wire.drop()
        await hub.close()

    asyncio.run(play())
