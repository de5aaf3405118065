"""An app: handlers that are declared without a messenger, for a worker to attach later.

    app = keyop.App()

    @app.on("alerts", id="notifier", max_retries=5)
    async def notify(msg: Message[Alert]) -> None: ...

``keyop worker MODULE:app`` runs it. Importing the module that declares an app connects to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from keyop.configuration.settings import SubscriberSettings
from keyop.declared import Declared, name_of, overlap
from keyop.errors import AppError
from keyop.messages.payload_types import check_payload_type
from keyop.names import check_channel_or_pattern, check_subscriber_id
from keyop.subscriber.invoking import is_coroutine_function
from keyop.subscriber.options import Start, checked_age, checked_key, checked_start, retry_policy

if TYPE_CHECKING:
    from keyop.aio import Messenger as AioMessenger
    from keyop.messenger import Messenger, Transaction

Handler = TypeVar("Handler", bound=Callable[..., Any])
Hook = TypeVar("Hook", bound=Callable[[], Any])
Kind = TypeVar("Kind")


class App:
    """Handlers, payload types and hooks of one program.

    While a worker runs it, `publish`, `publish_batch` and `atomic` publish from handlers and hooks that are plain
    functions, and `aio` has the same for those that are coroutine functions.
    """

    def __init__(self) -> None:
        self.handlers: list[Declared] = []
        """In the order of their declaration."""
        self.payload_types: dict[str, Any] = {}
        """Registered classes by the names of their types."""
        self.start_hooks: list[Callable[[], Any]] = []
        """What `on_start` was given."""
        self.stop_hooks: list[Callable[[], Any]] = []
        """What `on_stop` was given."""
        self._messenger: Messenger | None = None
        self._aio: AioMessenger | None = None

    # ---- declaring

    def on(
        self,
        channel: str,
        *,
        id: str,
        start: Start = "latest",
        max_retries: int | None = None,
        retry_backoff: tuple[float, float] | None = None,
        max_age: float | timedelta | None = None,
        exactly_once: bool = False,
        require_type: bool = False,
        key: Callable[[Any], str] | None = None,
    ) -> Callable[[Handler], Handler]:
        """Declare a handler for the messages of a channel, or of all channels that a pattern fits.

        A decorator for functions and coroutine functions; the options are those of `keyop.Messenger.subscribe`.
        ``key`` counts where several worker processes share the work: messages of one key stay in order.

        Raises `ChannelNameError`, `SubscriberIdError`, `ValueError`, `TypeError`, and `AppError` if another handler has
        the channel under this id already.
        """
        check_channel_or_pattern(channel)
        check_subscriber_id(id)
        retry_policy(max_retries, retry_backoff, SubscriberSettings())
        checked_start(start)
        checked_age(max_age)
        checked_key(key)
        given = {
            "start": start,
            "max_retries": max_retries,
            "retry_backoff": retry_backoff,
            "max_age": max_age,
            "exactly_once": exactly_once,
            "require_type": require_type,
            "key": key,
        }
        options = {name: value for name, value in given.items() if value is not None and value is not False}

        def declare(handler: Handler) -> Handler:
            if not callable(handler):
                raise AppError(f"{channel}/{id}: a handler is a function that takes a message, not {handler!r}")
            self._refuse_twice(channel, id, handler)
            self.handlers.append(Declared(channel, id, handler, options))
            return handler

        return declare

    def _refuse_twice(self, channel: str, id: str, handler: Callable[..., Any]) -> None:
        for other in self.handlers:
            if other.id == id and overlap(other.channel, channel):
                raise AppError(
                    f"{channel}/{id} is handled by {other.name} already"
                    + (f", as {other.channel}" if other.channel != channel else "")
                    + f", and cannot be by {name_of(handler)} as well: give one of them another id"
                )

    def register_payload_type(self, name: str, kind: Any) -> None:
        """Tie a payload type's name to a class, as `keyop.Messenger.register_payload_type`.

        Raises `PayloadTypeError` if the name is registered already.
        """
        check_payload_type(name, kind, self.payload_types)
        self.payload_types[name] = kind

    def payload_type(self, name: str) -> Callable[[Kind], Kind]:
        """The same as a decorator for a class."""

        def register(kind: Kind) -> Kind:
            self.register_payload_type(name, kind)
            return kind

        return register

    def on_start(self, hook: Hook) -> Hook:
        """A decorator: run this before the first message is handled. If it raises, the worker does not start.

        Coroutine functions run on the event loop of the coroutine handlers.
        """
        self.start_hooks.append(hook)
        return hook

    def on_stop(self, hook: Hook) -> Hook:
        """A decorator: run this when no handler runs any more. It may still publish."""
        self.stop_hooks.append(hook)
        return hook

    @property
    def needs_event_loop(self) -> bool:
        """Whether anything in it is a coroutine function."""
        functions = [declared.handler for declared in self.handlers] + self.start_hooks + self.stop_hooks
        return any(is_coroutine_function(function) for function in functions)

    # ---- attached

    def attach(
        self,
        messenger: Messenger | AioMessenger,
        *,
        only: Collection[str] = (),
        part: tuple[int, int] = (1, 1),
    ) -> list[Declared]:
        """Subscribe the handlers, those with the ids ``only`` if some are named, and return which these are.

        ``part`` = (k, n): this is process k of n that share the work. Subscriptions with ``exactly_once`` are the
        first one's alone.

        Raises `AppError` if it is attached already or has no such id, and what `keyop.Messenger.subscribe` raises.
        """
        chosen = self.choose(only, part)
        self.bind(messenger)
        try:
            for declared in chosen:
                self.subscribe(declared, part)
        except BaseException:
            self.release()
            raise
        return chosen

    def subscribe(self, declared: Declared, part: tuple[int, int] = (1, 1)) -> None:
        """Subscribe one handler with the messenger that the app is bound to. Raises as `keyop.Messenger.subscribe`."""
        options = dict(declared.options)
        if part[1] > 1 and not declared.options.get("exactly_once"):
            options["part"] = part
        # As a decorator: the same for both messengers.
        (self._aio or self.messenger).subscribe(declared.channel, declared.id, **options)(declared.handler)

    def choose(self, only: Collection[str] = (), part: tuple[int, int] = (1, 1)) -> list[Declared]:
        """The handlers that `attach` subscribes. Raises `AppError` for an id that no handler has."""
        known = {declared.id for declared in self.handlers}
        if unknown := sorted(set(only) - known):
            raise AppError(
                f"no handler has the id {', '.join(unknown)}; there are {', '.join(sorted(known)) or 'none'}"
            )
        return [
            declared
            for declared in self.handlers
            if (not only or declared.id in only) and (part[0] == 1 or not declared.options.get("exactly_once"))
        ]

    def bind(self, messenger: Messenger | AioMessenger) -> None:
        """Have handlers and hooks publish through a messenger, which gets the payload types. Nothing is subscribed.

        Raises `AppError` if there is one already that is not closed.
        """
        if self.is_attached:
            raise AppError("this app is attached to a messenger already")
        for name, kind in self.payload_types.items():
            messenger.register_payload_type(name, kind)
        # Not by their classes, to import neither.
        blocking: Messenger | None = getattr(messenger, "blocking", None)
        if blocking is None:
            self._messenger, self._aio = cast("Messenger", messenger), None
        else:
            self._messenger, self._aio = blocking, cast("AioMessenger", messenger)

    def release(self) -> None:
        """Undo `bind`."""
        self._messenger = self._aio = None

    @property
    def is_attached(self) -> bool:
        """Whether it has a messenger that is not closed."""
        return self._messenger is not None and not self._messenger.is_closed

    @property
    def messenger(self) -> Messenger:
        """The messenger that the app is attached to, for threads. Raises `AppError` if there is none."""
        if self._messenger is None:
            raise AppError(
                "this app is not attached: it publishes in handlers and hooks, while a worker runs it; elsewhere use a "
                "keyop.Messenger"
            )
        return self._messenger

    @property
    def aio(self) -> AioMessenger:
        """The same messenger for coroutine functions: ``await app.aio.publish(...)``.

        Raises `AppError` if the app is not attached, or none of its handlers and hooks is a coroutine function.
        """
        if self._aio is None:
            self.messenger  # noqa: B018 - says what is wrong if there is none at all
            raise AppError("this app is attached to a messenger for threads: nothing in it is a coroutine function")
        return self._aio

    def publish(self, channel: str, payload: Any, **options: Any) -> str:
        """As `keyop.Messenger.publish`. In a coroutine function use ``await app.aio.publish(...)``."""
        return self.messenger.publish(channel, payload, **options)

    def publish_batch(self, channel: str, payloads: Iterable[Any], **options: Any) -> list[str]:
        """As `keyop.Messenger.publish_batch`."""
        return self.messenger.publish_batch(channel, payloads, **options)

    def atomic(self, *, timeout: float | None = None) -> AbstractContextManager[Transaction]:
        """As `keyop.Messenger.atomic`."""
        return self.messenger.atomic(timeout=timeout)

    def __repr__(self) -> str:
        return f"<keyop.App: {len(self.handlers)} handlers{', attached' if self._messenger is not None else ''}>"
