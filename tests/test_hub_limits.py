"""What a peer with a good certificate may cost a hub before and after its handshake (cases 52 and 54)."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from child import DEADLINE_S, eventually
from conftest import leave
from test_federate import Site
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from keyop import Messenger
from keyop.federation.wire import client_hello, frame_of

pytestmark = pytest.mark.alone

HELLO = client_hello("host2", (), False, ())
LIMITS = {"handshake_timeout_ms": 1_500, "max_unfinished": 3}


class Place(Site):
    """A hub that is tested, and connections to it that say what they like."""

    @contextmanager
    def connection(self) -> Iterator[ClientConnection]:
        tls = self.tls["host2"]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(tls.ca)
        context.load_cert_chain(tls.cert, tls.key)
        with connect(f"wss://{self.address}/", ssl=context, compression=None, proxy=None, close_timeout=1) as websocket:
            yield websocket


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    config = place.config(
        "hub1",
        hub={"enabled": True, "listen_addr": place.address, "allowed_peers": [{"name": "host2"}]},
        federation=LIMITS,
    )
    with Messenger(config, federate=True):
        yield place
    leave(tmp_path / "hub1")


def closed(websocket: ClientConnection) -> tuple[int, str]:
    """How the hub closes this connection."""
    with pytest.raises(ConnectionClosed) as caught:
        websocket.recv(timeout=DEADLINE_S)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def test_a_long_message_is_taken_after_the_handshake_and_not_before(place: Place) -> None:
    with place.connection() as websocket:
        websocket.send("x" * 70_000)
        assert closed(websocket)[0] == 1009
    with place.connection() as websocket:
        websocket.send(HELLO)
        assert json.loads(websocket.recv(timeout=DEADLINE_S))["role"] == "hub"
        websocket.send(frame_of([b"x" * 3_000_000]))
        assert websocket.recv(timeout=DEADLINE_S) == '{"last_id":""}'


def test_who_says_nothing_is_closed(place: Place) -> None:
    with place.connection() as websocket:
        assert closed(websocket) == (1002, "no handshake within 1.5 s")


def test_many_that_say_nothing_do_not_become_more(place: Place) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(place.connection()) for _ in range(LIMITS["max_unfinished"])]
        with place.connection() as websocket:
            websocket.send(HELLO)
            assert json.loads(websocket.recv(timeout=DEADLINE_S))["role"] == "hub"
            assert closed(silent[0]) == (1013, "too many handshakes")

    def is_let_in() -> bool:
        with place.connection() as websocket:
            websocket.send(HELLO)
            try:
                return json.loads(websocket.recv(timeout=DEADLINE_S))["role"] == "hub"
            except ConnectionClosed:
                return False

    eventually(is_let_in)
