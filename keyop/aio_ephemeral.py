"""The messenger without a data directory, for asyncio: `keyop.aio.EphemeralMessenger`."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from keyop.configuration.address import checked_address
from keyop.configuration.lookup import settings_for
from keyop.configuration.settings import HubReference, Settings, StorageSettings
from keyop.deadline import deadline_in
from keyop.errors import ConfigError
from keyop.federation.ephemeral import EphemeralClient
from keyop.federation.record import Record
from keyop.messages.envelope import BadLine, decode_line_raw
from keyop.messages.message import Message
from keyop.messages.payload_types import PayloadTypes
from keyop.names import check_channel
from keyop.publishing.envelopes import Envelopes
from keyop.publishing.handling import Handling, handling
from keyop.subscriber.invoking import is_coroutine_function

if TYPE_CHECKING:
    from keyop.config import Config

Handler = TypeVar("Handler", bound=Callable[..., Any])


def ephemeral_settings(
    source: str | os.PathLike[str] | Config | Settings | None,
    hub: str | None,
    cert: str | None,
    key: str | None,
    ca: str | None,
) -> Settings:
    """The settings of an ephemeral messenger: arguments before what the configuration says. Raises `ConfigError`."""
    if source is not None:
        settings = settings_for(source)
    else:
        settings = Settings(storage=StorageSettings(data_dir=""))
    there = settings.tls
    tls = replace(there, cert=str(cert or there.cert), key=str(key or there.key), ca=str(ca or there.ca))
    reference = settings.client.hubs[0] if settings.client.hubs else HubReference()
    if hub:
        reference = replace(reference, addr=hub)
    if not reference.addr:
        raise ConfigError("an ephemeral messenger needs a hub: hub='host:7740', or client.hubs in the configuration")
    try:
        host, _port = checked_address(reference.addr)
    except ValueError as error:
        raise ConfigError(f"hub: {error}") from error
    if not host:
        raise ConfigError(f"hub: {reference.addr!r} names no host, as hub.example:7740 does")
    if not (tls.cert and tls.key and tls.ca):
        raise ConfigError("an ephemeral messenger needs cert, key and ca; `keyop keygen` makes them")
    return replace(settings, tls=tls, client=replace(settings.client, hubs=(reference,)))


class EphemeralMessenger:
    """Publishes to a hub and hears what comes there, without a data directory. Use it in an ``async with`` block.

    ``publish`` returns when the hub has the message on its disk. `subscribe` hears only what comes while it is
    connected. Nothing is kept here: for messages that must not be lost while the hub is away, use `Messenger`.
    """

    def __init__(
        self,
        hub: str | None = None,
        *,
        cert: str | None = None,
        key: str | None = None,
        ca: str | None = None,
        source: str | os.PathLike[str] | Config | Settings | None = None,
        name: str | None = None,
        auto_reconnect: bool = True,
        on_fatal: Callable[[Exception], None] | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        """``hub`` is ``host:port``; ``cert``, ``key`` and ``ca`` are paths of PEM files. What is not given comes from
        ``source``, a configuration file or `Config`: the first of ``client.hubs``, and section ``tls``.

        ``name`` goes into each message as its ``origin``; without it that is the certificate's CN. Without
        ``auto_reconnect`` a lost connection is the end. ``on_fatal`` is called once when the hub refuses for good.

        Raises `ConfigError`, `CertificateError`.
        """
        settings = ephemeral_settings(source, hub, cert, key, ca)
        self._log = logger or logging.getLogger("keyop.ephemeral")
        self._types = PayloadTypes()
        self._handlers: dict[str, list[Callable[[Any], Any]]] = {}
        self._handling = Handling()
        self._client = EphemeralClient(
            settings.client.hubs[0],
            settings.tls,
            settings.federation,
            name=name or settings.name,
            on_record=self._deliver,
            auto_reconnect=auto_reconnect,
            on_fatal=on_fatal,
            logger=self._log,
        )
        limit, limit_key = min(
            (settings.storage.max_message_bytes, "storage.max_message_bytes"),
            (settings.federation.max_batch_bytes, "federation.max_batch_bytes"),
        )
        self._envelopes = Envelopes(self._types, self._client.name, limit, limit_key)

    @property
    def instance_name(self) -> str:
        """The ``origin`` of what this messenger publishes."""
        return self._client.name

    def register_payload_type(self, name: str, kind: Any) -> None:
        """As `keyop.Messenger.register_payload_type`."""
        self._types.register(name, kind)

    async def publish(
        self,
        channel: str,
        payload: Any,
        *,
        payload_type: str | None = None,
        correlation_id: str | None = None,
        service_name: str | None = None,
        timeout: float | None = None,
    ) -> str:
        """Publish one message and return its id when the hub has it on disk. Waits while the hub is away.

        Raises `ConnectionLost` (the hub may have it or not), `HubRefused`, `ClosedError`, after ``timeout`` seconds
        `TimeoutError` (it may still be sent if it was under way), and what `keyop.Messenger.publish` raises.
        """
        deadline_in(timeout)
        message_id, _name, line = self._envelopes.make(channel, payload, payload_type, correlation_id, service_name)
        try:
            async with asyncio.timeout(timeout):
                await self._client.publish(line[:-1])
        except TimeoutError:
            raise TimeoutError(self._too_late("the hub has not acknowledged the message", timeout)) from None
        return message_id

    @overload
    def subscribe(self, channel: str, handler: Handler) -> Handler: ...

    @overload
    def subscribe(self, channel: str, handler: None = None) -> Callable[[Handler], Handler]: ...

    def subscribe(self, channel: str, handler: Handler | None = None) -> Handler | Callable[[Handler], Handler]:
        """Call a handler, ``def`` or ``async def``, for each message that comes; call or decorator.

        Several may listen to one channel: they are called one after the other. What they raise is logged. A channel
        that is new makes a new connection where there is one already.
        """
        if handler is None:
            return lambda given: self.subscribe(channel, given)
        check_channel(channel)
        self._handlers.setdefault(channel, []).append(handler)
        if channel not in self._client.channels:
            self._client.channels.add(channel)
            self._client.resubscribe()
        return handler

    async def start(self, timeout: float | None = None) -> Self:
        """Connect, and wait until that has succeeded. Raises `TimeoutError`; it is tried further then.

        Raises `HubRefused` when the hub refuses for good, without ``auto_reconnect`` `ConnectionLost`.
        """
        deadline_in(timeout)
        try:
            async with asyncio.timeout(timeout):
                await self._client.reach()
        except TimeoutError:
            raise TimeoutError(self._too_late("no connection to the hub", timeout)) from None
        return self

    def _too_late(self, what: str, timeout: float | None) -> str:
        trouble = self._client.trouble
        return f"{what} within {timeout} s" + (f": {trouble}" if trouble else "")

    async def _deliver(self, record: Record) -> None:
        """Hand a record to its handlers."""
        envelope = decode_line_raw(record.line)
        if isinstance(envelope, BadLine):
            return
        text = bytes(envelope.payload)
        try:
            known, payload = self._types.decode(envelope.payload_type, text)
            if not known:
                payload = self._types.decode_plain(text)
        except ValueError as error:
            self._log.warning("%s: %s is passed over: %s", envelope.channel, envelope.id, error)
            return
        message = Message(envelope, payload)
        for handler in self._handlers.get(envelope.channel, ()):
            try:
                await self._call(handler, message)
            except Exception:
                self._log.exception("%s: a handler failed at %s", envelope.channel, envelope.id)

    async def _call(self, handler: Callable[[Any], Any], message: Message[Any]) -> None:
        self._handling.message = message
        token = handling.set(self._handling)
        try:
            if is_coroutine_function(handler):
                coroutine: Coroutine[Any, Any, Any] = handler(message)
                await coroutine
            else:
                await asyncio.to_thread(handler, message)
        finally:
            handling.reset(token)
            self._handling.message = None

    async def close(self) -> None:
        """Wait for what is under way, and disconnect."""
        await self._client.close()

    async def __aenter__(self) -> Self:
        self._client.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
