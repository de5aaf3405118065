"""Running a handler with one message, without a data directory and without a process."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from keyop.app import App
from keyop.declared import Declared
from keyop.errors import AppError, PayloadError
from keyop.messages.message import Message
from keyop.names import is_pattern, matches
from keyop.publishing.handling import Handling, handling
from keyop.subscriber.invoking import is_coroutine_function
from keyop.testing.recorder import AioRecorder, Recorder

Handler = Callable[[Message[Any]], Any]


@dataclass
class Delivered:
    """What became of a delivery."""

    message: Message[Any]
    """What the handlers were given."""
    results: list[Any] = field(default_factory=list)
    """What each handler returned."""
    published: list[Message[Any]] = field(default_factory=list)
    """What they published through the app, in order, as another program would read it."""

    def payloads(self, channel: str) -> list[Any]:
        """The payloads published to a channel."""
        return [message.payload for message in self.published if message.channel == channel]


def deliver(
    target: App | Handler,
    payload: Any,
    *,
    channel: str | None = None,
    id: str | None = None,
    payload_type: str | None = None,
    correlation_id: str = "",
    service_name: str = "",
    attempt: int = 1,
) -> Delivered:
    """Give a message to a handler, or to those of an app that have the channel (under ``id``, if it is named).

    The payload makes the way that it would make between processes: to JSON and back, into the class that the app has
    registered for its type. What handlers publish through the app is recorded and goes nowhere, unless the app is
    attached to a messenger. Hooks are not run. What a handler raises, `RetryLater` too, comes out of here.

    Raises `AppError` if the app has no such handler, `PayloadError` for what would be a dead letter at once.
    """
    texts = {"correlation_id": correlation_id, "service_name": service_name}
    recorder = Recorder()
    if not isinstance(target, App):
        only = Declared(channel or "test", id or "test", target, {})
        message = recorder.incoming_object(only.channel, payload, payload_type, attempt, **texts)
        return _run(recorder, [only], message)
    handlers = _chosen(target, channel, id)
    with _recording(target, recorder):
        message = recorder.incoming(channel or handlers[0].channel, payload, payload_type, attempt, **texts)
        return _run(recorder, handlers, message)


@contextlib.contextmanager
def _recording(app: App, recorder: Recorder) -> Iterator[None]:
    """Have the app publish to the recorder, unless it is attached to a messenger."""
    if app.is_attached:
        for name, kind in app.payload_types.items():
            recorder.register_payload_type(name, kind)
        yield
        return
    app.bind(cast(Any, AioRecorder(recorder)))
    try:
        yield
    finally:
        app.release()


def _chosen(app: App, channel: str | None, id: str | None) -> list[Declared]:
    """The handlers that a message on the channel would come to."""
    found = [
        declared
        for declared in app.handlers
        if (id is None or declared.id == id) and (channel is None or _has(declared.channel, channel))
    ]
    if channel is None and (len(found) > 1 or (found and is_pattern(found[0].channel))):
        raise AppError(f"name the channel: the app has {', '.join(map(str, app.handlers))}")
    if not found:
        what = " and ".join(filter(None, [channel and f"channel {channel!r}", id and f"id {id!r}"])) or "anything"
        raise AppError(f"the app has no handler for {what}; it has {', '.join(map(str, app.handlers)) or 'none'}")
    return found


def _has(declared: str, channel: str) -> bool:
    return matches(declared, channel) if is_pattern(declared) else declared == channel


def _run(recorder: Recorder, handlers: list[Declared], message: Message[Any]) -> Delivered:
    delivered = Delivered(message, published=recorder.messages)
    for declared in handlers:
        if declared.options.get("require_type") and not recorder.knows(message.payload_type):
            raise PayloadError(f"payload type {message.payload_type!r} is not registered: it would be a dead letter")
        token = handling.set(Handling(message))
        try:
            with recorder.atomic():
                delivered.results.append(_call(declared.handler, message))
        finally:
            handling.reset(token)
    return delivered


def _call(handler: Handler, message: Message[Any]) -> Any:
    if not is_coroutine_function(handler):
        return handler(message)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(handler(message))
    return _in_a_thread(handler, message)


def _in_a_thread(handler: Handler, message: Message[Any]) -> Any:
    """A test that runs on an event loop itself cannot wait on it for another coroutine."""
    context = contextvars.copy_context()
    results: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(context.run(asyncio.run, handler(message)))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="keyop-deliver")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
