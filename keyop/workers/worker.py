"""One worker process: an app's handlers, from its start to its end.

The main thread waits for signals. Handlers run in the threads of their subscriptions, coroutine handlers on one event
loop in a thread of its own: nothing that a handler does keeps the process from leaving in time.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from keyop.app import App
from keyop.configuration.settings import Settings
from keyop.declared import Declared, name_of
from keyop.errors import AppError, SubscribeError
from keyop.messenger import Messenger
from keyop.readiness import say_ready
from keyop.subscriber.invoking import is_coroutine_function
from keyop.workers.command import WorkerOptions

if TYPE_CHECKING:
    from keyop.aio import Messenger as AioMessenger
    from keyop.workers.event_loop import EventLoop

EXIT_LEFT_BEHIND = 75
"""It left while a handler still ran."""


class _Told(BaseException):
    """The signal to leave came while the worker was starting."""


class Worker:
    """`run` it in the main thread, once."""

    def __init__(self, app: App, settings: Settings, options: WorkerOptions) -> None:
        """Raises `AppError` if there is nothing to handle, or ``only`` names an id that no handler has."""
        self._app = app
        self._settings = settings
        self._options = options
        self._log = logging.getLogger("keyop.worker")
        self._chosen = app.choose(options.only, options.part)
        if not app.handlers:
            raise AppError(f"{options.app}: this app declares no handlers")
        self._loop: EventLoop | None = None
        self._is_starting = True
        self._is_told = False
        # A signal handler may release a lock; what `threading.Event` does is too much for it.
        self._stop = threading.Lock()
        self._stop.acquire()

    def run(self) -> None:
        """Handle messages until SIGTERM or SIGINT. Raises `KeyopError`, and what a start hook raises.

        Ends the process itself, with exit code 75, where a handler does not end in time.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        try:
            self._run()
        except _Told:
            self._log.info("told to leave before it was ready")

    def _run(self) -> None:
        messenger, close = self._open()
        self._app.bind(messenger)
        try:
            for hook in self._app.start_hooks:
                self._begin_with(hook)
            self._is_starting = False  # from here on there is something to finish
            # A message that kills its process is not to look like an app that cannot start.
            with self._app.messenger.hold_back():
                for declared in self._chosen:
                    self._subscribe(declared)
                self._say_what_it_does()
                say_ready()
            self._stop.acquire()
            self._leave()
        finally:
            self._is_starting = False
            close()

    # ---- starting

    def _open(self) -> tuple[Messenger | AioMessenger, Callable[[], None]]:
        """A messenger of the kind that the app needs, and what closes it."""
        if not self._app.needs_event_loop:
            plain = Messenger(self._settings)
            return plain, plain.close
        from keyop.aio import Messenger as AioMessenger
        from keyop.workers.event_loop import EventLoop

        loop = self._loop = EventLoop()
        messenger = AioMessenger(self._settings)
        loop.run(messenger.start())

        def close() -> None:
            loop.run(messenger.close())
            loop.close()

        return messenger, close

    def _begin_with(self, hook: Callable[[], Any]) -> None:
        try:
            self._call(hook)
        except Exception as error:
            name = name_of(hook)
            self._log.exception("the on_start hook %s raised", name)
            raise AppError(f"the on_start hook {name} raised {type(error).__name__}: {error}") from error

    def _subscribe(self, declared: Declared) -> None:
        try:
            self._app.subscribe(declared, self._options.part)
        except SubscribeError as error:
            raise type(error)(f"{declared}: {error}") from error

    def _call(self, hook: Callable[[], Any]) -> None:
        if is_coroutine_function(hook):
            assert self._loop is not None
            self._loop.run(hook())
        else:
            hook()

    def _say_what_it_does(self) -> None:
        number, count = self._options.part
        handled = ", ".join(f"{declared.channel}/{declared.id}" for declared in self._chosen)
        process = f", process {number} of {count}" if count > 1 else ""
        self._log.info("%s%s handles %s", self._options.app, process, handled or "nothing")
        if count > 1:
            for declared in self._app.choose(self._options.only):
                if declared.options.get("exactly_once"):
                    self._log.info(
                        "%s/%s is exactly-once, which is not shared: the first process handles all of it",
                        declared.channel,
                        declared.id,
                    )

    # ---- leaving

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._is_told:
            _say(f"keyop worker: {signal.Signals(number).name} again: leaving at once; what is in hand comes again\n")
            os._exit(EXIT_LEFT_BEHIND)
        self._is_told = True
        threading.Thread(target=self._end_of_patience, name="keyop-grace", daemon=True).start()
        if self._is_starting:
            raise _Told
        self._stop.release()

    def _end_of_patience(self) -> None:
        time.sleep(self._options.grace_s)
        _say(
            f"keyop worker: {self._options.app} has not finished within {self._options.grace_s:g} s: leaving; "
            "what is in hand comes again\n"
        )
        os._exit(EXIT_LEFT_BEHIND)

    def _leave(self) -> None:
        self._log.info("finishing what is in hand, within %g s", self._options.grace_s)
        # A little longer than the whole has: whose handler hangs is named by then.
        running = self._app.messenger.end_subscriptions(max(0.0, self._options.grace_s - 0.1))
        for channel, id in running:
            names = [each.name for each in self._app.handlers if (each.channel, each.id) == (channel, id)]
            self._log.error("%s/%s: %s still runs after %g s", channel, id, ", ".join(names), self._options.grace_s)
        if running:
            # Not by the interpreter's own shutdown, nor by `close`: both would wait for the thread that hangs.
            os._exit(EXIT_LEFT_BEHIND)
        for hook in self._app.stop_hooks:
            try:
                self._call(hook)
            except Exception:
                self._log.exception("the on_stop hook %s raised", name_of(hook))
        self._log.info("has finished")


def _say(text: str) -> None:
    """Not by way of `logging`: the thread that is interrupted may hold one of its locks."""
    try:
        os.write(sys.stderr.fileno(), text.encode())
    except (OSError, ValueError):
        pass
