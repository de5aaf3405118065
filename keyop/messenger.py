"""The messenger for threads: publish, subscribe, close."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from keyop.attachment.attachment import Attachment
from keyop.configuration.lookup import settings_for
from keyop.configuration.settings import Settings
from keyop.deadline import deadline_in
from keyop.errors import CertificateError, ClosedError, KeyopError, PublishTimeout, SubscriberBusy
from keyop.messages.payload_types import PayloadTypes
from keyop.names import check_channel_or_pattern, check_subscriber_id, is_pattern, is_reserved
from keyop.protocol.writer_options import WriterOptions
from keyop.publishing.handling import Handling, handling
from keyop.publishing.publisher import Publisher, begin_atomic
from keyop.statistics import Statistics, gather
from keyop.storage.segments import channel_end
from keyop.subscriber.exactly_once import ExactlyOnceSubscription
from keyop.subscriber.invoking import invoker
from keyop.subscriber.options import (
    Start,
    SubscribeOptions,
    checked_age,
    checked_key,
    checked_part,
    checked_start,
    retry_policy,
)
from keyop.subscriber.part_subscription import PartSubscription
from keyop.subscriber.replays import Replays
from keyop.subscriber.share import Key
from keyop.subscriber.subscription import Subscription

if TYPE_CHECKING:
    from keyop.config import Config
    from keyop.federation.children import Children
    from keyop.subscriber.member import Member
    from keyop.subscriber.pattern import PatternSubscription

    Opened = Subscription | PatternSubscription

Handler = TypeVar("Handler", bound=Callable[..., Any])
Kind = TypeVar("Kind", bound=Subscription)
CLOSE_TIMEOUT_S = 10.0


class Transaction:
    """What ``with messenger.atomic() as tx`` gives: publishes that are committed together or not at all."""

    def __init__(self, publisher: Publisher, inside: Handling) -> None:
        self._publisher = publisher
        self._inside = inside

    def publish(
        self,
        channel: str,
        payload: Any,
        *,
        payload_type: str | None = None,
        correlation_id: str | None = None,
        service_name: str | None = None,
    ) -> str:
        """Add a message to the transaction and return its id. It is published when the block ends.

        Also from another thread. Raises `AtomicError` after the end of the block, and what `Messenger.publish` raises.
        """
        token = handling.set(self._inside)
        try:
            return self._publisher.publish(channel, payload, payload_type, correlation_id, service_name, None, None)
        finally:
            handling.reset(token)


class Messenger:
    """Durable publish/subscribe on one data directory.

    Any number of processes may each have one; the writer process behind them is started when there is none. A
    messenger may be used by any number of threads. Close it, or use it in a ``with`` block.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Config | Settings | None = None,
        *,
        name: str | None = None,
        logger: logging.Logger | None = None,
        federate: bool = False,
    ) -> None:
        """Attach to a data directory.

        ``source`` is the directory's path, a configuration file's, a `Config`, or None for what ``KEYOP_CONFIG`` or
        ``KEYOP_DATA_DIR`` name. ``name`` goes into each message as its ``origin``. ``logger`` is used instead of
        ``logging.getLogger("keyop")``. With ``federate`` the hub and the client that the configuration enables run
        as child processes until `close`; without it they are processes of their own, ``keyop hub`` and
        ``keyop client``.

        Raises `ConfigError`, `DataDirectoryError`, `SharedMemoryError`, `WriterUnavailable`, with ``federate`` also
        `FederationError`.
        """
        self._settings = settings_for(source)
        self._log = logger or logging.getLogger("keyop")
        self._name = name or self._settings.name or self._own_name()
        self._types = PayloadTypes()
        self._attachment = Attachment(self._settings, self._log)
        try:
            self._publisher = Publisher(self._attachment, self._types, self._name, always_sync=self._wants_strict())
            self._children = self._federate(federate)
        except BaseException:
            self._attachment.close()
            raise
        self._subscriptions: dict[tuple[str, str, int], Opened] = {}
        self._held_back: list[Opened] | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._attachment.tick_listeners.append(self._report_refusals)
        self._warn_of_differences()
        _messengers.append(self)

    def _own_name(self) -> str:
        """What peers know this host by, if it has a certificate; else what it calls itself."""
        if self._settings.tls.cert:
            from keyop.federation.common_name import common_name

            try:
                return common_name(self._settings.tls.cert)
            except CertificateError as error:
                self._log.warning("the origin of messages is the host name, not the name in tls.cert: %s", error)
        return socket.gethostname()

    def _federate(self, federate: bool) -> Children | None:
        """The hub and the client of this program; a warning where nobody runs what the configuration enables."""
        if not (self._settings.hub.enabled or self._settings.client.enabled):
            return None
        from keyop.federation.children import Children, missing

        if federate:
            return Children(self._settings, self._log)
        for role in missing(self._settings):
            self._log.warning(
                "%s: %s.enabled is set, but no %s runs on this data directory: start `keyop %s`, or use "
                "Messenger(..., federate=True)",
                self._settings.storage.data_dir,
                role,
                role,
                role,
            )
        return None

    def _wants_strict(self) -> bool:
        return "storage.sync_interval_ms" in self._settings.explicit and self._settings.storage.sync_interval_ms == 0

    def _warn_of_differences(self) -> None:
        """The settings of whoever started the writer count; who asked for others explicitly is told."""
        running = self._attachment.writer.options()
        wanted = WriterOptions.from_settings(self._settings)
        if running is None:
            return
        keys = WriterOptions.keys()
        for key in sorted(self._settings.explicit & keys.keys() - {"storage.data_dir"}):
            name = keys[key]
            here, there = getattr(wanted, name), getattr(running, name)
            if here != there:
                self._log.warning(
                    "%s: %s is %s here, but the writer that runs was started with %s: %s",
                    self._settings.storage.data_dir,
                    key,
                    here,
                    there,
                    "this process's publishes are synced all the same"
                    if name == "sync_interval_ms" and here == 0
                    else "that one's value counts until it is restarted",
                )

    # ---- who and what

    @property
    def instance_name(self) -> str:
        """The ``origin`` of what this messenger publishes."""
        return self._name

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise ClosedError("this messenger is closed")

    def register_payload_type(self, name: str, kind: Any) -> None:
        """Tie a payload type's name to a class: a pydantic model, dataclass, TypedDict, anything that a pydantic
        `TypeAdapter` takes. Payloads of that type are validated into it; publishing an instance names the type.

        Raises `PayloadTypeError` if the name is registered already.
        """
        self._types.register(name, kind)

    def stats(self) -> Statistics:
        """Traffic, errors, saturation and latency: of the writer, of this messenger's subscriptions and publishes, and
        of the peers of hub and client."""
        self._refuse_when_closed()
        opened = list(self._subscriptions.values())
        return gather(
            self._attachment, self._publisher.times, [each for subscription in opened for each in subscription.each()]
        )

    # ---- publishing

    def publish(
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
        """Publish one message and return its id.

        Strict (the default): returns when the message is on the device. Periodic: when it is in memory that outlives
        every process; ``sync=True`` waits for the device all the same. ``timeout`` is in seconds.

        Raises `ChannelNameError`, `ReservedChannelError`, `PayloadError`, `PayloadTypeError`, `MessageTooLarge`,
        `PublishTimeout` (it may still be committed), `PublishRefused`, `WriterUnavailable`, `ClosedError`.
        """
        return self._publisher.publish(channel, payload, payload_type, correlation_id, service_name, sync, timeout)

    def publish_batch(
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
        """Publish several messages to one channel in one transaction and return their ids. Raises as `publish`."""
        return self._publisher.publish_batch(
            channel, payloads, payload_type, correlation_id, service_name, sync, timeout
        )

    @contextlib.contextmanager
    def atomic(self, *, timeout: float | None = None) -> Iterator[Transaction]:
        """Publish to any channels, all or none, across a power cut too.

        The messages are committed, synced, when the block ends; an exception in it publishes nothing. Raises
        `AtomicError` inside another ``atomic()`` or an exactly-once handler, and what `publish` raises.
        """
        deadline_in(timeout)  # one that is none is told before the block
        outbox, inside = begin_atomic(self._publisher)
        token = handling.set(inside)
        try:
            yield Transaction(self._publisher, inside)
        except BaseException:
            outbox.open = False
            raise
        finally:
            handling.reset(token)
        self._publisher.commit_outbox(outbox, timeout)

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
    ) -> Handler: ...

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
        self,
        channel: str,
        id: str,
        handler: Handler | None = None,
        *,
        start: Start = "latest",
        max_retries: int | None = None,
        retry_backoff: tuple[float, float] | None = None,
        max_age: float | timedelta | None = None,
        exactly_once: bool = False,
        require_type: bool = False,
        part: tuple[int, int] | None = None,
        key: Key | None = None,
    ) -> Handler | Callable[[Handler], Handler]:
        """Handle the messages of a channel, one at a time, in order; a call or a decorator.

        ``channel`` may be a pattern, such as ``sensors.*``: then the handler is given the messages of all channels that
        it fits, also of those that come later, these from their start on. ``start`` counts for the channels that there
        are when the pattern is followed under this id for the first time.

        ``id`` names the subscriber: it resumes where it stopped, in whatever process. ``handler`` takes a `Message`
        and is a function or a coroutine function. If it raises, the message is tried again after
        ``retry_backoff`` = (first, longest) seconds, ``max_retries`` times, then it goes to the dead-letter channel;
        `RetryLater` pauses instead. ``start`` counts for a new id: ``"latest"``, ``"earliest"``, an offset or a
        `datetime`. Older messages than ``max_age`` (seconds) are passed over at the start. With ``exactly_once`` what
        the handler publishes and the move of the offset commit together. With ``require_type`` payloads of
        unregistered types go to the dead letters; otherwise they arrive as plain JSON.

        With ``part`` = (k, n) this is part k of n, counted from 1, that share the work of ``id``, in as many processes
        or in one. ``key`` takes a `Message` and gives a str: messages with the same key are handled by the same part,
        in their order. It has to be the same in all parts, and to go by the message alone. Without it, and where it
        gives None, the message's id decides.

        Raises `ChannelNameError`, `SubscriberIdError`, `SubscriberBusy`, `OffsetDamaged`, `WriterUnavailable`.
        """
        check_channel_or_pattern(channel)
        check_subscriber_id(id)
        options = SubscribeOptions(
            retry_policy(max_retries, retry_backoff, self._settings.subscribers),
            checked_start(start),
            checked_age(max_age),
            exactly_once,
            require_type,
            *checked_part(part, exactly_once),
            checked_key(key),
        )
        if handler is None:
            return lambda given: self._open(channel, id, given, options)
        return self._open(channel, id, handler, options)

    def _open(self, channel: str, id: str, handler: Handler, options: SubscribeOptions) -> Handler:
        invoke = self._invoker(handler)
        subscription: Opened
        if is_pattern(channel):
            subscription = self._pattern(channel, id, invoke, options)
        else:
            kind = _kind(options)
            subscription = self._equip(kind(self._attachment, self._types, channel, id, invoke, options))
        with self._lock:
            if self._closed:
                raise ClosedError("this messenger is closed")
            if (channel, id, options.part) in self._subscriptions:
                raise SubscriberBusy(f"this messenger handles channel {channel!r} as subscriber {id!r} already")
            self._subscriptions[channel, id, options.part] = subscription
        try:
            subscription.open()
        except BaseException:
            with self._lock:
                self._subscriptions.pop((channel, id, options.part), None)
            raise
        with self._lock:
            if self._held_back is not None:
                self._held_back.append(subscription)
                return handler
        subscription.start()
        return handler

    @contextlib.contextmanager
    def hold_back(self) -> Iterator[None]:
        """Subscriptions that are made in the block begin to deliver at its end, all together; none if it raises."""
        with self._lock:
            self._held_back = []
        try:
            yield
        except BaseException:
            with self._lock:
                self._held_back = None
            raise
        with self._lock:
            there = set(self._subscriptions.values())
            opened, self._held_back = [each for each in self._held_back if each in there], None
        for subscription in opened:
            subscription.start()

    def _pattern(
        self, pattern: str, id: str, invoke: Callable[[Any], object], options: SubscribeOptions
    ) -> PatternSubscription:
        from keyop.subscriber.member import ExactlyOnceMember, Member, PartMember
        from keyop.subscriber.pattern import PatternSubscription

        kind: type[Member] = PartMember if options.parts > 1 else Member
        if options.exactly_once:
            kind = ExactlyOnceMember

        def make(channel: str, start: Start) -> Member:
            given = options._replace(start=start)
            return self._equip(kind(self._attachment, self._types, channel, id, invoke, given))

        return PatternSubscription(self._attachment, pattern, id, options.start, make)

    def _equip(self, subscription: Kind) -> Kind:
        if isinstance(subscription, ExactlyOnceSubscription):
            subscription.publisher = self._publisher
        if not is_reserved(subscription.channel):
            subscription.replays = Replays(subscription, self._attachment)
        return subscription

    def _invoker(self, handler: Callable[..., Any]) -> Callable[[Any], object]:
        return invoker(handler)

    def unsubscribe(self, channel: str, id: str, *, timeout: float | None = CLOSE_TIMEOUT_S) -> None:
        """End a subscription of this messenger and forget its offset: the next one under this id begins anew.

        Waits for the handler that runs, at most ``timeout`` seconds, and may be called again if that was not enough.
        Called by the handler itself it returns at once, and the subscription ends when the handler has returned.
        Of an id that several parts share this messenger's are given up, and the offset is forgotten if none is held.

        Raises `KeyError` if there is no such subscription, `PublishTimeout`, `ClosedError`.
        """
        deadline_in(timeout)  # one that is none is told before anything ends
        with self._lock:
            self._refuse_when_closed()
            parts = [each for each in self._subscriptions.values() if (each.channel, each.id) == (channel, id)]
            if not parts:
                raise KeyError(f"this messenger does not handle channel {channel!r} as subscriber {id!r}")
        for subscription in parts:
            subscription.stop()
        if any(subscription.is_current_thread for subscription in parts):
            _after_the_handler(lambda: self._forget_all(parts, None), self._log)
        else:
            self._forget_all(parts, timeout)

    def _forget_all(self, parts: list[Opened], timeout: float | None) -> None:
        deadline = deadline_in(timeout)
        for subscription in parts:
            self._forget(subscription, deadline)

    def _forget(self, subscription: Opened, deadline: float | None) -> None:
        if not subscription.join(None if deadline is None else max(0.0, deadline - time.monotonic())):
            raise PublishTimeout(
                f"{subscription.channel}/{subscription.id}: its handler still runs; unsubscribe again when it is done"
            )
        subscription.close(forget=True, deadline=deadline)
        self._remove(subscription)

    def _remove(self, subscription: Opened) -> None:
        with self._lock:
            self._subscriptions = {key: each for key, each in self._subscriptions.items() if each is not subscription}

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until this messenger's subscriptions are done with everything that is published now.

        A message whose retries go on holds it up. Returns whether it was so within ``timeout`` seconds. Raises
        `ClosedError`.
        """
        self._refuse_when_closed()
        deadline = deadline_in(timeout)
        if not self._attachment.drain(deadline):
            return False
        with self._lock:
            opened = list(self._subscriptions.values())
        if not all(subscription.catch_up(deadline) for subscription in opened):
            return False
        subscriptions = [each for subscription in opened for each in subscription.each()]
        # By the files: after a writer was killed its board is looked at until the next tick.
        channels = self._attachment.directory.channels
        ends = [(each, channel_end(channels / each.channel)) for each in subscriptions]
        return all(subscription.wait_until(end, deadline) for subscription, end in ends)

    # ---- the end

    def end_subscriptions(self, timeout: float = CLOSE_TIMEOUT_S) -> list[tuple[str, str]]:
        """End all subscriptions, each after the message under way; publishing goes on until `close`.

        Returns the channel and the id of those whose handler still runs after ``timeout`` seconds.
        """
        with self._lock:
            subscriptions = list(self._subscriptions.values())
        running = self._close_subscriptions(subscriptions, time.monotonic() + timeout)
        for ended in set(subscriptions) - set(running):
            self._remove(ended)
        return [(subscription.channel, subscription.id) for subscription in running]

    def run(self) -> None:
        """Block until SIGINT or SIGTERM, then close. Called in the main thread."""
        stop = threading.Lock()
        stop.acquire()

        def on_signal(_number: int, _frame: object) -> None:
            with contextlib.suppress(RuntimeError):
                stop.release()

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            stop.acquire()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self.close()

    def close(self, timeout: float = CLOSE_TIMEOUT_S) -> None:
        """Stop the subscriptions, wait until all is committed and offsets stand in their files. May be repeated.

        What is not done within ``timeout`` seconds (a full disk) is logged and left to the writer, which goes on with
        it; nothing is lost. Called by a handler it returns at once, and all this is done when the handler has returned.
        """
        deadline_in(timeout)  # one that is none is told before anything ends
        with self._lock:
            if self._closed:
                return
            self._closed = True
            subscriptions = list(self._subscriptions.values())
        if any(subscription.is_current_thread for subscription in subscriptions):
            _after_the_handler(lambda: self._close(subscriptions, timeout), self._log)
        else:
            self._close(subscriptions, timeout)

    def _close(self, subscriptions: list[Opened], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        if not self._attachment.orphaned:
            if self._children is not None:
                self._children.close()
            self._close_subscriptions(subscriptions, deadline)
            self._report_refusals()
            if not self._attachment.close(max(0.0, deadline - time.monotonic())):
                self._log.warning(
                    "%s: closed before all was committed; the writer goes on with it", self._settings.storage.data_dir
                )
        with contextlib.suppress(ValueError):
            _messengers.remove(self)

    def _close_subscriptions(self, subscriptions: list[Opened], deadline: float) -> list[Opened]:
        """Give back those whose thread ends in time; the others."""
        running = []
        for subscription in subscriptions:
            subscription.stop()
        for subscription in subscriptions:
            if not subscription.join(max(0.0, deadline - time.monotonic())):
                self._log.warning(
                    "%s/%s: its handler still runs; its message comes again", subscription.channel, subscription.id
                )
                running.append(subscription)
                continue
            try:
                subscription.close(deadline=deadline)
            except KeyopError as error:
                self._log.warning("%s/%s: %s", subscription.channel, subscription.id, error)
        return running

    def _report_refusals(self) -> None:
        """Periodic publishes return before the writer can refuse them: these refusals are logged."""
        for _position, code, value in self._attachment.replies.unclaimed():
            self._log.error("a message that publish had accepted was refused: code %d, value %d", code, value)

    def _orphan(self) -> None:
        self._subscriptions.clear()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._subscriptions)} subscriptions"
        return f"<{type(self).__module__}.Messenger {self._settings.storage.data_dir!r}: {state}>"


def _kind(options: SubscribeOptions) -> type[Subscription]:
    if options.exactly_once:
        return ExactlyOnceSubscription
    return PartSubscription if options.parts > 1 else Subscription


def _after_the_handler(end: Callable[[], None], log: logging.Logger) -> None:
    """A handler cannot wait for its own end: a thread does, and the interpreter waits for that thread."""

    def run() -> None:
        try:
            end()
        except KeyopError as error:
            log.warning("%s", error)

    threading.Thread(target=run, name="keyop-end").start()


_messengers: list[Messenger] = []


def _after_fork_in_child() -> None:
    """A child keeps the messenger for publishing; the parent's subscriptions and transactions stay the parent's."""
    under_way = handling.get()
    if under_way is not None and under_way.outbox is not None:
        under_way.outbox.abandon()
    for messenger in _messengers:
        messenger._orphan()


os.register_at_fork(after_in_child=_after_fork_in_child)

__all__ = ["CLOSE_TIMEOUT_S", "Messenger", "Transaction"]
