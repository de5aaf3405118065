"""How a subscription's thread calls a handler: directly, or a coroutine function on an event loop of its own."""

from __future__ import annotations

import contextvars
import inspect
import threading
from collections.abc import Callable
from typing import Any

_loops = threading.local()


def is_coroutine_function(handler: Callable[..., Any]) -> bool:
    """Also for objects whose ``__call__`` is one."""
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004


def invoker(handler: Callable[..., Any]) -> Callable[[Any], object]:
    """A plain function that runs the handler to its end. Raises `TypeError` for what cannot be called."""
    if not callable(handler):
        raise TypeError(f"a handler is a function that takes a message, not {handler!r}")
    if not is_coroutine_function(handler):
        return handler

    def run(message: Any) -> object:
        import asyncio

        runner = getattr(_loops, "runner", None)
        if runner is None:
            runner = _loops.runner = asyncio.Runner()
        return runner.run(handler(message), context=contextvars.copy_context())

    return run
