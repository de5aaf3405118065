"""Making a connection to a hub: TCP, TLS, WebSocket, and a look at who is there."""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING

from keyop.configuration.address import host_and_port
from keyop.configuration.settings import HubReference
from keyop.errors import PeerRefused
from keyop.federation.identity import peer_name, reason
from keyop.federation.limits import Limits

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

DIAL_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0


async def dial(
    reference: HubReference, context: ssl.SSLContext, limits: Limits, logger: logging.Logger
) -> tuple[ClientConnection, str]:
    """A WebSocket to a hub, and the hub's name by its certificate.

    Raises `OSError` (`TimeoutError` and `ssl.SSLError` are some) and `PeerRefused`; `why` makes a sentence of them.
    """
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidHandshake, InvalidMessage

    name, port = host_and_port(reference.addr)
    shown = f"[{name}]" if ":" in name else name or "localhost"
    try:
        websocket = await connect(
            f"wss://{shown}:{port}/",
            ssl=context,
            compression=None,
            max_size=limits.max_message_bytes,
            open_timeout=DIAL_TIMEOUT_S,
            ping_interval=limits.ping_interval_s,
            ping_timeout=limits.ping_timeout_s,
            close_timeout=CLOSE_TIMEOUT_S,
            proxy=None,
            logger=logger.getChild("websocket"),
        )
    except (InvalidHandshake, InvalidMessage, EOFError) as error:
        raise OSError(f"no WebSocket is spoken there: {error}") from error
    try:
        return websocket, peer_name(websocket.transport.get_extra_info("ssl_object"), reference.expect_hub)
    except PeerRefused:
        await websocket.close()
        raise


def why(error: Exception) -> str:
    """Why a hub could not be reached, as the end of a sentence."""
    if isinstance(error, ssl.SSLError):
        return reason(error)
    if isinstance(error, TimeoutError):
        return f"no answer within {DIAL_TIMEOUT_S:.0f} s"
    return str(error) or type(error).__name__
