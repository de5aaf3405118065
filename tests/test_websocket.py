"""One WebSocket over TLS, both ends in one event loop: limits, back-pressure, ends, compression."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from child import DEADLINE_S
from federation import net_at, to_hub
from pki import Pki

from keyop.federation import websocket
from keyop.federation.credentials import Credentials
from keyop.federation.websocket import WebSocket, WebSocketEnded

LIMIT = 1 << 16


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


class Ends:
    """A hub's end and a client's."""

    def __init__(self, hub: WebSocket, client: WebSocket) -> None:
        self.hub = hub
        self.client = client


@asynccontextmanager
async def joined(pki: Pki, *, hub_compresses: bool = False, client_compresses: bool = False) -> AsyncIterator[Ends]:
    server = Credentials(pki.instance("hub1"), "hub").server_context
    client = Credentials(pki.instance("host2"), "client").client_context()
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)

        async def take() -> WebSocket:
            plain, _ = await loop.sock_accept(listening)
            accepted = await websocket.accept(plain, server, LIMIT, compression=hub_compresses)
            await accepted.secure()
            await accepted.shake_hands()
            return accepted

        async def dial() -> WebSocket:
            port = listening.getsockname()[1]
            dialled = await websocket.dial("127.0.0.1", port, client, LIMIT, compression=client_compresses)
            await dialled.secure()
            await dialled.shake_hands()
            return dialled

        async with asyncio.timeout(DEADLINE_S):
            hub_end, client_end = await asyncio.gather(take(), dial())
    try:
        yield Ends(hub_end, client_end)
    finally:
        hub_end.abort()
        client_end.abort()
        await asyncio.sleep(0)


def play(pki: Pki, scene: Callable[[Ends], Awaitable[None]], **options: bool) -> None:
    async def run() -> None:
        async with joined(pki, **options) as ends, asyncio.timeout(DEADLINE_S):
            await scene(ends)

    asyncio.run(run())


async def ended(end: WebSocket) -> tuple[int, str]:
    try:
        while True:
            await end.receive()
    except WebSocketEnded as end_:
        return end_.code, end_.reason


def test_messages_both_ways(pki: Pki) -> None:
    async def scene(ends: Ends) -> None:
        for one, other in ((ends.hub, ends.client), (ends.client, ends.hub)):
            for message in ("text", "ü\u2028", b"", b"bytes", os.urandom(60_000)):
                await one.send(message)
                assert await other.receive() == message

    play(pki, scene)


def test_the_limit_of_a_message_can_be_raised(pki: Pki) -> None:
    async def scene(ends: Ends) -> None:
        ends.hub.limit_messages(1 << 20)
        await ends.client.send(b"x" * (1 << 19))
        assert len(await ends.hub.receive()) == 1 << 19
        await ends.client.send(b"x" * ((1 << 20) + 1))
        assert (await ended(ends.hub))[0] == 1009
        assert (await ended(ends.client))[0] == 1009

    play(pki, scene)


def test_before_it_is_raised_it_is_low(pki: Pki) -> None:
    async def scene(ends: Ends) -> None:
        sending = asyncio.create_task(ends.client.send(b"x" * (8 << 20)))
        assert (await ended(ends.hub))[0] == 1009
        await ends.hub.leave()
        assert (await ended(ends.client))[0] == 1009
        await sending

    play(pki, scene)


def test_who_is_not_read_from_is_stopped_and_pings_are_answered_until_then(pki: Pki) -> None:
    async def scene(ends: Ends) -> None:
        for _ in range(10):
            await ends.client.send("short")
        ends.client.ping()
        while not ends.client.round_trip_s:
            await asyncio.sleep(0.001)
        ends.hub.limit_messages(1 << 24)
        count = 40

        async def send() -> None:
            for _ in range(count):
                await ends.client.send(b"x" * 1_000_000)

        sending = asyncio.create_task(send())
        while not ends.hub.is_deaf:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.2)
        assert not sending.done()
        assert ends.hub._waiting_bytes < 4_000_000
        for _ in range(10):
            assert await ends.hub.receive() == "short"
        for _ in range(count):
            assert len(await ends.hub.receive()) == 1_000_000
        await sending
        assert not ends.hub.is_deaf

    play(pki, scene)


def test_pings_of_somebody_who_does_not_read_take_no_memory(pki: Pki) -> None:
    async def scene(ends: Ends) -> None:
        ends.client._transport.pause_reading()
        sent = 0
        while ends.hub._writable.is_set():  # its answers fill the buffers of the kernel first
            ends.client._protocol.send_ping(b"x" * 125)
            ends.client._flush()
            sent += 1
            if sent % 100 == 0:
                await ends.client._writable.wait()
                await asyncio.sleep(0)
        for number in range(20_000):
            ends.client._protocol.send_ping(b"x" * 125)
            ends.client._flush()
            if number % 100 == 0:
                await ends.client._writable.wait()
                await asyncio.sleep(0)
        assert ends.hub._transport.get_write_buffer_size() < 1 << 18
        await ends.client.send("and then something else")
        assert await ends.hub.receive() == "and then something else"

    play(pki, scene)


def test_a_close_has_a_code_and_a_reason(pki: Pki) -> None:
    async def scene(ends: Ends) -> None:
        await ends.hub.send("last words")
        closing = asyncio.create_task(ends.hub.close(4409, "replaced"))
        assert await ends.client.receive() == "last words"
        assert await ended(ends.client) == (4409, "replaced")
        await ends.client.leave()
        await closing
        await ends.client.send("too late")
        await ends.client.close(1000, "")

    play(pki, scene)


def test_a_connection_that_is_gone_says_1006(pki: Pki) -> None:
    async def scene(ends: Ends) -> None:
        ends.client.abort()
        assert (await ended(ends.hub))[0] == 1006

    play(pki, scene)


def test_text_that_is_none(pki: Pki) -> None:
    async def scene(ends: Ends) -> None:
        ends.client._protocol.send_text(b"\xff\xfe")
        ends.client._flush()
        assert await ended(ends.hub) == (1007, "text that is no UTF-8")

    play(pki, scene)


@pytest.mark.parametrize(("hub", "client"), [(True, True), (True, False), (False, True), (False, False)])
def test_compression_where_both_want_it(pki: Pki, hub: bool, client: bool) -> None:
    async def scene(ends: Ends) -> None:
        both = hub and client
        assert (ends.hub.is_compressed, ends.client.is_compressed) == (both, both)
        for one, other in ((ends.hub, ends.client), (ends.client, ends.hub)):
            for _ in range(3):
                await one.send(b"the same again and again " * 100)
                assert len(await other.receive()) == 2_500

    play(pki, scene, hub_compresses=hub, client_compresses=client)


def test_what_is_small_only_on_the_wire_is_not_taken(pki: Pki) -> None:
    async def scene(ends: Ends) -> None:
        await ends.client.send(b"\0" * (1 << 24))
        assert (await ended(ends.hub))[0] == 1009

    play(pki, scene, hub_compresses=True, client_compresses=True)


def test_a_certificate_that_is_refused(pki: Pki, tmp_path: Path) -> None:
    """Both ends say why."""
    other = Pki(tmp_path / "other")

    async def scene() -> None:
        server = Credentials(pki.instance("hub1"), "hub").server_context
        client = Credentials(other.instance("host2"), "client").client_context()
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            dialled = await websocket.dial("127.0.0.1", listening.getsockname()[1], client, LIMIT, compression=False)
            plain, _ = await loop.sock_accept(listening)
            accepted = await websocket.accept(plain, server, LIMIT, compression=False)
            with pytest.raises(ssl.SSLCertVerificationError):
                await accepted.secure()
            leaving = asyncio.create_task(accepted.leave())
            await dialled.secure()  # in TLS 1.3 the client thinks so
            with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
                await dialled.shake_hands()
            dialled.abort()
            await leaving

    asyncio.run(scene())


def test_hub_and_client_compress_where_both_are_told_to(tmp_path: Path) -> None:
    with net_at(tmp_path) as net:
        hub = net.host("hub1").is_hub("host2").configure(federation={"compression": True})
        proxy = net.proxy(hub)
        client = net.host("host2").configure(federation={"compression": True})
        client.is_client(to_hub(proxy.address, publish=("up",)))
        hub.start_hub(wait=False)
        client.start_client().wait_for("connected to hub1")
        before = proxy.passed[0]
        client.messenger.publish_batch("up", ["the same again and again " * 40] * 500, payload_type="t")
        hub.has("up", 500)
        assert proxy.passed[0] - before < 150_000  # of 600,000
