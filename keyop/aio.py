"""The messenger for asyncio: the same names as `keyop.Messenger`, awaited.

``publish`` returns when its message is committed; thousands may be in flight, which is how one process fills a group
commit. Handlers that are coroutine functions run on the event loop, others in threads of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from keyop.attachment.acknowledgements import Acknowledgements
from keyop.attachment.attachment import Attachment
from keyop.configuration.settings import Settings
from keyop.deadline import deadline_in
from keyop.messenger import CLOSE_TIMEOUT_S
from keyop.messenger import Messenger as ThreadMessenger
from keyop.publishing.handling import Handling, handling
from keyop.publishing.publisher import Publisher, begin_atomic
from keyop.statistics import Statistics
from keyop.subscriber.invoking import invoker, is_coroutine_function
from keyop.subscriber.options import Start
from keyop.subscriber.share import Key

if TYPE_CHECKING:
    from keyop.aio_ephemeral import EphemeralMessenger
    from keyop.config import Config

Handler = TypeVar("Handler", bound=Callable[..., Any])

__all__ = ["EphemeralMessenger", "Messenger", "Transaction"]


def __getattr__(name: str) -> Any:
    """`EphemeralMessenger` brings TLS with it, and is imported when it is first used."""
    if name != "EphemeralMessenger":
        raise AttributeError(f"module 'keyop.aio' has no attribute {name!r}")
    from keyop.aio_ephemeral import EphemeralMessenger

    return EphemeralMessenger


class _LoopMessenger(ThreadMessenger):
    """A messenger whose coroutine handlers run on one event loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, source: Any, name: str | None, logger: Any, federate: bool
    ) -> None:
        super().__init__(source, name=name, logger=logger, federate=federate)
        self._loop = loop

    def _invoker(self, handler: Callable[..., Any]) -> Callable[[Any], object]:
        if not is_coroutine_function(handler):
            return invoker(handler)
        loop = self._loop
        return lambda message: asyncio.run_coroutine_threadsafe(handler(message), loop).result()

    @property
    def publisher(self) -> Publisher:
        return self._publisher

    @property
    def attachment(self) -> Attachment:
        return self._attachment


class Transaction:
    """What ``async with messenger.atomic() as tx`` gives."""

    def __init__(self, publisher: Publisher, inside: Handling) -> None:
        self._publisher = publisher
        self._inside = inside

    async def publish(
        self,
        channel: str,
        payload: Any,
        *,
        payload_type: str | None = None,
        correlation_id: str | None = None,
        service_name: str | None = None,
    ) -> str:
        """Add a message to the transaction and return its id. It is published when the block ends.

        Also from a task that was there before. Raises `AtomicError` after the end of the block.
        """
        token = handling.set(self._inside)
        try:
            return self._publisher.publish(channel, payload, payload_type, correlation_id, service_name, None, None)
        finally:
            handling.reset(token)


class Messenger:
    """Durable publish/subscribe on one data directory, for asyncio. Use it in an ``async with`` block.

    Arguments as for `keyop.Messenger`. It belongs to the event loop in which it was entered.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Config | Settings | None = None,
        *,
        name: str | None = None,
        logger: logging.Logger | None = None,
        federate: bool = False,
    ) -> None:
        self._arguments = (source, name, logger, federate)
        self._types: list[tuple[str, Any]] = []
        self._core: _LoopMessenger | None = None
        self._starting: asyncio.Lock | None = None

    async def start(self) -> Self:
        """Attach; ``async with`` and the first publish do it by themselves. Raises as `keyop.Messenger`."""
        if self._core is None:
            if self._starting is None:
                self._starting = asyncio.Lock()
            async with self._starting:
                if self._core is None:
                    loop = asyncio.get_running_loop()
                    core = await asyncio.to_thread(_LoopMessenger, loop, *self._arguments)
                    self._enter(core, loop)
        return self

    def _enter(self, core: _LoopMessenger, loop: asyncio.AbstractEventLoop) -> None:
        for name, kind in self._types:
            core.register_payload_type(name, kind)
        self._acknowledgements = Acknowledgements(core.attachment, loop)
        self._publisher = core.publisher
        self._core = core

    def _started(self) -> _LoopMessenger:
        """The core; attached on the spot, blocking the loop for it, where nobody awaited `start` before."""
        if self._core is None:
            loop = asyncio.get_running_loop()
            self._enter(_LoopMessenger(loop, *self._arguments), loop)
        assert self._core is not None
        return self._core

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ---- who and what

    @property
    def instance_name(self) -> str:
        """The ``origin`` of what this messenger publishes."""
        return self._started().instance_name

    @property
    def blocking(self) -> ThreadMessenger:
        """The same messenger for threads: with it plain functions publish, also those that it calls as handlers."""
        return self._started()

    def register_payload_type(self, name: str, kind: Any) -> None:
        """As `keyop.Messenger.register_payload_type`."""
        if self._core is None:
            self._types.append((name, kind))
        else:
            self._core.register_payload_type(name, kind)

    def stats(self) -> Statistics:
        """As `keyop.Messenger.stats`."""
        return self._started().stats()

    # ---- publishing

    async def publish(
        self,
        channel: str,
        payload: Any,
        *,
        payload_type: str | None = None,
        correlation_id: str | None = None,
        service_name: str | None = None,
        sync: bool | None = None,
        timeout: float | None = None,
    ) -> str:
        """Publish one message and return its id when it is committed. Raises as `keyop.Messenger.publish`."""
        if self._core is None:
            await self.start()
        message_id, transaction, must_sync = self._publisher.prepare(
            channel, payload, payload_type, correlation_id, service_name, sync
        )
        if transaction is not None:
            await self._commit(transaction, channel, must_sync, timeout)
        return message_id

    async def publish_batch(
        self,
        channel: str,
        payloads: Iterable[Any],
        *,
        payload_type: str | None = None,
        correlation_id: str | None = None,
        service_name: str | None = None,
        sync: bool | None = None,
        timeout: float | None = None,
    ) -> list[str]:
        """Publish several messages to one channel in one transaction. Raises as `keyop.Messenger.publish_batch`."""
        if self._core is None:
            await self.start()
        ids, transaction, must_sync = self._publisher.prepare_batch(
            channel, payloads, payload_type, correlation_id, service_name, sync
        )
        if transaction is not None:
            await self._commit(transaction, channel, must_sync, timeout)
        return ids

    async def _commit(self, transaction: bytes, channel: str, must_sync: bool, timeout: float | None) -> None:
        deadline = deadline_in(timeout)
        began_ns = time.perf_counter_ns()
        position = await self._acknowledgements.send(transaction, deadline)
        if self._publisher.returns_early(position, channel, must_sync):
            return
        await self._acknowledgements.committed(position, deadline)
        self._publisher.committed(position, channel, must_sync, began_ns)

    @contextlib.asynccontextmanager
    async def atomic(self, *, timeout: float | None = None) -> AsyncIterator[Transaction]:
        """As `keyop.Messenger.atomic`, for ``async with``."""
        deadline_in(timeout)
        await self.start()
        outbox, inside = begin_atomic(self._publisher)
        token = handling.set(inside)
        try:
            yield Transaction(self._publisher, inside)
        finally:
            outbox.open = False
            handling.reset(token)
        transaction = self._publisher.outbox_transaction(outbox)
        if transaction is not None:
            await self._commit(transaction, "", True, timeout)

    # ---- subscribing

    @overload
    def subscribe(
        self,
        channel: str,
        id: str,
        handler: Handler,
        *,
        start: Start = ...,
        max_retries: int | None = ...,
        retry_backoff: tuple[float, float] | None = ...,
        max_age: float | timedelta | None = ...,
        exactly_once: bool = ...,
        require_type: bool = ...,
        part: tuple[int, int] | None = ...,
        key: Key | None = ...,
    ) -> Coroutine[Any, Any, Handler]: ...

    @overload
    def subscribe(
        self,
        channel: str,
        id: str,
        handler: None = None,
        *,
        start: Start = ...,
        max_retries: int | None = ...,
        retry_backoff: tuple[float, float] | None = ...,
        max_age: float | timedelta | None = ...,
        exactly_once: bool = ...,
        require_type: bool = ...,
        part: tuple[int, int] | None = ...,
        key: Key | None = ...,
    ) -> Callable[[Handler], Handler]: ...

    def subscribe(
        self, channel: str, id: str, handler: Handler | None = None, **options: Any
    ) -> Coroutine[Any, Any, Handler] | Callable[[Handler], Handler]:
        """As `keyop.Messenger.subscribe`: ``await m.subscribe(channel, id, handler)``, or a decorator.

        The decorator asks the writer on the spot: it blocks the loop for about a millisecond.
        """
        if handler is not None:
            return self._subscribe(channel, id, handler, options)
        return lambda given: self._started().subscribe(channel, id, given, **options)

    async def _subscribe(self, channel: str, id: str, handler: Handler, options: dict[str, Any]) -> Handler:
        await self.start()
        core = self._started()
        return await asyncio.to_thread(lambda: core.subscribe(channel, id, handler, **options))

    async def unsubscribe(self, channel: str, id: str, *, timeout: float | None = CLOSE_TIMEOUT_S) -> None:
        """As `keyop.Messenger.unsubscribe`."""
        await asyncio.to_thread(lambda: self._started_or_fail(channel, id).unsubscribe(channel, id, timeout=timeout))

    def _started_or_fail(self, channel: str, id: str) -> _LoopMessenger:
        if self._core is None:
            raise KeyError((channel, id))
        return self._core

    async def drain(self, timeout: float | None = None) -> bool:
        """As `keyop.Messenger.drain`."""
        await self.start()
        return await asyncio.to_thread(self._started().drain, timeout)

    # ---- the end

    async def run(self) -> None:
        """Wait until SIGINT or SIGTERM, then close."""
        await self.start()
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        try:
            await stop.wait()
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            await self.close()

    async def close(self, timeout: float = CLOSE_TIMEOUT_S) -> None:
        """As `keyop.Messenger.close`."""
        if self._core is None:
            return
        await asyncio.to_thread(self._core.close, timeout)
        self._acknowledgements.close()
        self._acknowledgements.resolve()
