"""Whether the hubs of the configuration can be reached, are who they should be, and let this host in.

Where the client of this directory is connected, that is the answer. Else the hub is asked as an ephemeral client with
the same certificate asks: it neither replaces a connection nor moves a position, but the hub notes it in its audit log.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator, Mapping

from keyop.configuration.settings import HubReference, Settings
from keyop.doctor.finding import Finding, Level
from keyop.doctor.subject import Subject
from keyop.errors import CertificateError, PeerRefused
from keyop.inspection import presence
from keyop.inspection.presence import LivePeer

_ANSWER_S = 10.0
_DAY_S = 86_400


def check(subject: Subject) -> Iterator[Finding]:
    """All hubs, at the same time."""
    settings, directory = subject.settings, subject.directory
    if settings is None or directory is None or not settings.client.enabled:
        return
    if not settings.client.hubs:
        way = "client.hubs: [{addr: 'hub.example:7740', publish: [...], subscribe: [...]}]"
        yield Finding("hubs", "warning", "client.hubs is empty: nothing is sent, and nothing comes", way)
        return
    connected = {
        peer.address: peer
        for process in presence.attached(directory)
        if process.alive and process.role == "client"
        for peer in process.peers
        if peer.state == "connected"
    }
    yield from (_seen(peer) for reference in settings.client.hubs if (peer := connected.get(reference.addr)))
    others = [reference for reference in settings.client.hubs if reference.addr not in connected]
    if not others:
        return
    from keyop.federation.credentials import Credentials

    try:
        credentials = Credentials(settings.tls, "client")
    except CertificateError:
        return  # `certificates` tells
    yield from asyncio.run(_ask_all(settings, credentials.name, others))


def _seen(peer: LivePeer) -> Finding:
    trip = f", {peer.round_trip_ms:.1f} ms away" if peer.round_trip_ms is not None else ""
    return Finding("hubs", "ok", f"{peer.address}: the client is connected to {peer.name!r}{trip}")


async def _ask_all(settings: Settings, name: str, references: list[HubReference]) -> list[Finding]:
    return list(await asyncio.gather(*(_ask(settings, name, reference) for reference in references)))


async def _ask(settings: Settings, name: str, reference: HubReference) -> Finding:
    from keyop.federation.credentials import Credentials
    from keyop.federation.dialling import dial, why
    from keyop.federation.limits import Limits
    from keyop.federation.websocket import WebSocketEnded
    from keyop.federation.wire import CloseCode, client_hello

    address = reference.addr
    context = Credentials(settings.tls, "client").client_context(verify_hostname=reference.verify_hostname)
    began = time.perf_counter()
    try:
        websocket, hub = await dial(reference, context, Limits.of(settings.federation))
    except PeerRefused as error:
        way = "is addr the right host? expect_hub in client.hubs is the CN of the hub's certificate"
        return _of(address, "problem", str(error), way)
    except (OSError, ValueError) as error:
        return _of(address, "problem", f"cannot be reached: {why(error)}", _remedy(error, reference))
    took_ms = (time.perf_counter() - began) * 1000
    try:
        await websocket.send(client_hello(settings.name or name, (), True, ()))
        async with asyncio.timeout(_ANSWER_S):
            await websocket.receive()
            ending = expiry(websocket.certificate.getpeercert() or {}, settings.tls.expiry_warn_days)
    except WebSocketEnded as ended:
        if ended.code == CloseCode.NOT_ALLOWED:
            way = f"its configuration has to name {name!r} in hub.allowed_peers"
            return _of(address, "problem", f"{hub!r} is there and does not let {name!r} in", way)
        return _of(address, "problem", f"{hub!r} closed the connection: {ended}", "its log and its audit log say why")
    except TimeoutError:
        return _of(
            address, "problem", f"{hub!r} gives no answer within {_ANSWER_S:.0f} s", "look at keyop status there"
        )
    finally:
        websocket.abort()
    if ending:
        return _of(address, "warning", f"{hub!r} lets {name!r} in, but its certificate {ending}", "renew it there")
    return _of(address, "ok", f"{hub!r} lets {name!r} in ({took_ms:.0f} ms to connect)")


def expiry(certificate: Mapping[str, object], days: int) -> str:
    """``expires in 3 days``, where it is that near."""
    end = certificate.get("notAfter")
    left_s = ssl.cert_time_to_seconds(end) - time.time() if isinstance(end, str) else float("inf")
    return f"expires in {int(left_s / _DAY_S)} days" if days >= 0 and left_s < days * _DAY_S else ""


def _remedy(error: Exception, reference: HubReference) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        named = " and has to name the host of addr (verify_hostname)" if reference.verify_hostname else ""
        return f"its certificate comes from another CA than tls.ca, or is not valid now{named}"
    if isinstance(error, ssl.SSLError):
        return "both sides have to have certificates of one CA; is it a keyop hub that listens there?"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there: does keyop hub run, and is the port the one of its hub.listen_addr?"
    if isinstance(error, TimeoutError):
        return "a firewall drops the packets, or the host is off"
    return "look at the address, at name resolution (getent hosts HOST), and at the network between"


def _of(address: str, level: Level, text: str, remedy: str = "") -> Finding:
    return Finding("hubs", level, f"{address}: {text}", remedy, {"addr": address})
