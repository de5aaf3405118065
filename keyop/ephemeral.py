"""The messenger without a data directory, for threads: `keyop.EphemeralMessenger`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from keyop.aio_ephemeral import EphemeralMessenger as AsyncEphemeralMessenger
from keyop.errors import ClosedError

if TYPE_CHECKING:
    from keyop.config import Config
    from keyop.configuration.settings import Settings

Handler = TypeVar("Handler", bound=Callable[..., Any])
_Result = TypeVar("_Result")


class EphemeralMessenger:
    """Publishes to a hub and hears what comes there, without a data directory.

    ``publish`` returns when the hub has the message on its disk. `subscribe` hears only what comes while it is
    connected. Nothing is kept here: for messages that must not be lost while the hub is away, use `Messenger`.
    Any number of threads may use it. Close it, or use it in a ``with`` block.
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
        """Arguments as for `keyop.aio.EphemeralMessenger`. It connects in the background.

        Raises `ConfigError`, `CertificateError`.
        """
        self._loop = asyncio.new_event_loop()
        self._closed = False
        self._core = AsyncEphemeralMessenger(
            hub,
            cert=cert,
            key=key,
            ca=ca,
            source=source,
            name=name,
            auto_reconnect=auto_reconnect,
            on_fatal=on_fatal,
            logger=logger,
        )
        self._thread = threading.Thread(target=self._loop.run_forever, name="keyop-ephemeral", daemon=True)
        self._thread.start()
        self._do(self._core.__aenter__())

    def _do(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        if self._closed:
            work.close()
            raise ClosedError("this messenger is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise ClosedError("this messenger was closed") from None
        except BaseException:
            future.cancel()  # Ctrl-C: what was not sent yet is not sent any more
            raise

    @property
    def instance_name(self) -> str:
        """The ``origin`` of what this messenger publishes."""
        return self._core.instance_name

    def register_payload_type(self, name: str, kind: Any) -> None:
        """As `keyop.Messenger.register_payload_type`."""
        self._core.register_payload_type(name, kind)

    def publish(
        self,
        channel: str,
        payload: Any,
        *,
        payload_type: str | None = None,
        correlation_id: str | None = None,
        service_name: str | None = None,
        timeout: float | None = None,
    ) -> str:
        """As `keyop.aio.EphemeralMessenger.publish`."""
        return self._do(
            self._core.publish(
                channel,
                payload,
                payload_type=payload_type,
                correlation_id=correlation_id,
                service_name=service_name,
                timeout=timeout,
            )
        )

    @overload
    def subscribe(self, channel: str, handler: Handler) -> Handler: ...

    @overload
    def subscribe(self, channel: str, handler: None = None) -> Callable[[Handler], Handler]: ...

    def subscribe(self, channel: str, handler: Handler | None = None) -> Handler | Callable[[Handler], Handler]:
        """As `keyop.aio.EphemeralMessenger.subscribe`. Handlers are called one after the other, in other threads."""
        if handler is None:
            return lambda given: self.subscribe(channel, given)
        self._do(self._subscribe(channel, handler))
        return handler

    async def _subscribe(self, channel: str, handler: Callable[..., Any]) -> None:
        self._core.subscribe(channel, handler)

    def wait_connected(self, timeout: float | None = None) -> None:
        """Wait until there is a connection. Raises `TimeoutError`; it is tried further then.

        Raises `HubRefused` when the hub refuses for good, without ``auto_reconnect`` `ConnectionLost`.
        """
        self._do(self._core.start(timeout))

    def close(self) -> None:
        """Wait for what is under way, and disconnect."""
        if self._closed:
            return
        self._do(self._core.close())
        self._closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
