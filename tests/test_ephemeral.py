"""Messengers without a data directory, against a real hub."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from child import DEADLINE_S, eventually
from conftest import leave
from inbox import Inbox
from pydantic import BaseModel
from test_federate import Site, role_pid

from keyop import ClosedError, ConfigError, ConnectionLost, EphemeralMessenger, HubRefused, Message, Messenger, aio


class Reading(BaseModel):
    value: float


class Place(Site):
    """A hub that runs, and certificates for those who come."""

    def arguments(self, name: str = "host2") -> dict[str, Any]:
        tls = self.tls[name]
        return {"hub": self.address, "cert": tls.cert, "key": tls.key, "ca": tls.ca}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    leave(tmp_path / "hub1")


@pytest.fixture
def hub(place: Place) -> Iterator[Messenger]:
    with Messenger(place.hub(), federate=True) as messenger:
        yield messenger


def test_published_is_on_the_hubs_disk(place: Place, hub: Messenger) -> None:
    with EphemeralMessenger(**place.arguments()) as m:
        ids = [m.publish("up", number, payload_type="t", correlation_id="c") for number in range(20)]
        inbox = Inbox()
        hub.subscribe("up", "s", inbox, start="earliest")
        found = [inbox.next() for _ in ids]
    assert [(message.id, message.payload) for message in found] == list(zip(ids, range(20), strict=True))
    assert (found[0].origin, found[0].correlation_id) == ("host2", "c")


def test_it_hears_what_comes_now_and_not_what_was(place: Place, hub: Messenger) -> None:
    hub.publish("down", {"value": 1}, payload_type="reading")
    heard: list[Message[Reading]] = []
    with EphemeralMessenger(**place.arguments()) as m:
        m.register_payload_type("reading", Reading)
        m.subscribe("down", heard.append)

        @m.subscribe("down")
        async def and_this(message: Message[Reading]) -> None:
            raise RuntimeError("of one handler the next one hears nothing")

        more = Inbox()
        m.subscribe("down", more)
        eventually(lambda: (hub.publish("down", {"value": 2}, payload_type="reading"), not more.messages.empty())[1])
        assert heard[0].payload == Reading(value=2)
        hub.publish("down", {"value": "no number"}, payload_type="reading")
        hub.publish("down", {"value": 3}, payload_type="reading")
        eventually(lambda: heard[-1].payload.value == 3)
        assert {message.payload.value for message in heard} == {2, 3}
    assert not list((place.path / "hub1" / "subscribers").rglob("fed-*"))


def test_its_own_messages_do_not_come_back(place: Place, hub: Messenger) -> None:
    with EphemeralMessenger(**place.arguments()) as m:
        inbox = Inbox()
        m.subscribe("both", inbox)
        m.wait_connected(DEADLINE_S)
        m.publish("both", "own", payload_type="t")
        hub.publish("both", "other", payload_type="t")
        assert inbox.next().payload == "other"
        assert inbox.messages.empty()


def test_a_publish_waits_for_a_hub_that_is_away(place: Place) -> None:
    with EphemeralMessenger(**place.arguments()) as m:
        with pytest.raises(TimeoutError):
            m.publish("up", 0, payload_type="t", timeout=0.05)
        published = threading.Thread(target=m.publish, args=("up", 1), kwargs={"payload_type": "t"})
        published.start()
        with Messenger(place.hub(), federate=True) as hub:
            inbox = Inbox()
            hub.subscribe("up", "s", inbox, start="earliest")
            # What nobody waited for any more was not sent.
            assert inbox.next().payload == 1
            published.join(DEADLINE_S)
            assert not published.is_alive()


def test_without_reconnect_the_end_is_told(place: Place, hub: Messenger) -> None:
    m = EphemeralMessenger(**place.arguments(), auto_reconnect=False)
    m.publish("up", 1, payload_type="t")
    os.kill(role_pid(place.path / "hub1", "hub"), signal.SIGKILL)

    def lost() -> bool:
        try:
            m.publish("up", 2, payload_type="t")
        except ConnectionLost:
            return True
        return False

    eventually(lost)
    m.close()
    with pytest.raises(ClosedError):
        m.publish("up", 3, payload_type="t")


def test_who_is_not_on_the_list(place: Place, hub: Messenger) -> None:
    told: list[Exception] = []
    m = EphemeralMessenger(**place.arguments("hub1"), on_fatal=told.append)
    with pytest.raises(HubRefused, match="allowlist"):
        m.publish("up", 1, payload_type="t")
    eventually(lambda: len(told) == 1)
    with pytest.raises(HubRefused):
        m.publish("up", 1, payload_type="t")
    with pytest.raises(HubRefused):
        m.wait_connected()
    m.close()
    assert len(told) == 1


def test_waiting_for_a_connection_ends_when_there_is_none_to_come(place: Place) -> None:
    with EphemeralMessenger(**place.arguments()) as m, pytest.raises(TimeoutError, match=r"within 1 s: .*be reached"):
        m.wait_connected(1)
    with EphemeralMessenger(**place.arguments(), auto_reconnect=False) as m, pytest.raises(ConnectionLost):
        m.wait_connected()


def test_an_address_that_is_none_is_told_at_once(place: Place) -> None:
    for hub in ("http://localhost:1", "localhost:many", ":7740"):
        with pytest.raises(ConfigError, match=hub):
            EphemeralMessenger(**{**place.arguments(), "hub": hub})


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match="hub="):
        EphemeralMessenger()
    with pytest.raises(ConfigError, match="keygen"):
        EphemeralMessenger("host:7740")


def test_asyncio_many_at_once(place: Place, hub: Messenger) -> None:
    async def run() -> list[str]:
        async with aio.EphemeralMessenger(**place.arguments()) as m:
            return await asyncio.gather(*(m.publish("up", number, payload_type="t") for number in range(1000)))

    ids = asyncio.run(run())
    inbox = Inbox()
    hub.subscribe("up", "s", inbox, start="earliest")
    assert [inbox.next().id for _ in ids] == ids
