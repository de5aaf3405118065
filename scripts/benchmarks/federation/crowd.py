"""Fifty clients on one hub that have nothing to say."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping

from benchmarks.contender import Contender
from benchmarks.crew import Start, run_crew
from benchmarks.federation.site import Site, Tls, site
from benchmarks.figure import Measurement, Room, Title
from benchmarks.process import resident_mib, usage
from keyop.configuration.settings import TlsSettings
from keyop.federation.credentials import Credentials
from keyop.federation.wire import FEATURES, client_hello

CLIENTS = 50
KEY = "federation.crowd"
TITLES = {
    f"{KEY}.rss": Title(f"RSS of a hub with {CLIENTS} idle clients", "MiB"),
    f"{KEY}.cpu": Title(f"CPU of a hub with {CLIENTS} idle clients, over 10 s", "% of a core", 2),
    f"{KEY}.wake_ups": Title(f"wake-ups of a hub with {CLIENTS} idle clients", "a second", 1),
}

_IDLE_S = 10.0
_SETTLE_S = 2.0


def measurements(contenders: list[Contender]) -> Iterator[Measurement]:
    """keyop alone."""
    if any(contender.key == "keyop" for contender in contenders):
        yield Measurement(KEY, "keyop", _idle)


def _idle(room: Room) -> Mapping[str, float]:
    names = [f"client-{number}" for number in range(CLIENTS)]
    found: dict[str, float] = {}
    with site(room.place, strict=True) as hosts:
        hub = hosts.start_hub(*names)
        certificates = [hosts.tls(name) for name in names]

        def look() -> None:
            time.sleep(_SETTLE_S)
            before = usage(hub.pid)
            time.sleep(_IDLE_S)
            idle = usage(hub.pid) - before
            found[f"{KEY}.cpu"] = idle.cpu_s / _IDLE_S * 100
            found[f"{KEY}.wake_ups"] = idle.wake_ups / _IDLE_S
            found[f"{KEY}.rss"] = resident_mib(hub.pid)

        # Fifty processes with their writers would need a machine of their own; what the hub sees of them is this.
        run_crew(1, lambda rank, start: asyncio.run(_stay_connected(hosts, certificates, start)), when_ready=look)
    return found


async def _stay_connected(hosts: Site, certificates: list[Tls], start: Start) -> None:
    from websockets.asyncio.client import connect

    async with contextlib.AsyncExitStack() as connections:
        for number, tls in enumerate(certificates):
            settings = TlsSettings(cert=tls.cert, key=tls.key, ca=tls.ca)
            context = Credentials(settings, "client").client_context()
            websocket = await connections.enter_async_context(
                connect(f"wss://{hosts.address}/", ssl=context, compression=None, proxy=None)
            )
            await websocket.send(client_hello(f"client-{number}", ["news"], False, FEATURES))
            await websocket.recv()
        # Pings are answered on the loop.
        await asyncio.to_thread(start)
