"""Making a connection to a hub: TCP, TLS, WebSocket, and a look at who is there."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

from keyop.configuration.address import host_and_port
from keyop.configuration.settings import HubReference
from keyop.federation.identity import peer_name, reason
from keyop.federation.limits import Limits

if TYPE_CHECKING:
    from keyop.federation.websocket import WebSocket

DIAL_TIMEOUT_S = 10.0


async def dial(reference: HubReference, context: ssl.SSLContext, limits: Limits) -> tuple[WebSocket, str]:
    """A WebSocket to a hub, and the hub's name by its certificate.

    Raises `OSError` (`TimeoutError` and `ssl.SSLError` are some) and `PeerRefused`; `why` makes a sentence of them.
    """
    from keyop.federation import websocket

    host, port = host_and_port(reference.addr)
    async with asyncio.timeout(DIAL_TIMEOUT_S):
        made = await websocket.dial(
            host or "localhost", port, context, limits.handshake_bytes, compression=limits.compression
        )
        try:
            await made.secure()
            name = peer_name(made.certificate, reference.expect_hub)
            await made.shake_hands()
        except BaseException:
            made.abort()
            raise
    return made, name


def why(error: Exception) -> str:
    """Why a hub could not be reached, as the end of a sentence."""
    if isinstance(error, ssl.SSLError):
        return reason(error)
    if isinstance(error, TimeoutError):
        return f"no answer within {DIAL_TIMEOUT_S:.0f} s"
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return "the other end dropped the connection"
    return str(error) or type(error).__name__
