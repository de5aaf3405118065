"""Correlation id and service name of what is published, for a block of code or a handler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple


class PublishContext(NamedTuple):
    """What a publish takes where the call itself says nothing."""

    correlation_id: str = ""
    service_name: str = ""


current: ContextVar[PublishContext] = ContextVar("keyop_context", default=PublishContext())  # noqa: B039 - a tuple


@contextmanager
def context(*, correlation_id: str | None = None, service_name: str | None = None) -> Iterator[None]:
    """Give everything that is published in the block a correlation id, a service name, or both.

    Blocks nest; what an inner one does not name stays. Works for threads and for asyncio tasks.
    """
    outer = current.get()
    inner = PublishContext(
        outer.correlation_id if correlation_id is None else correlation_id,
        outer.service_name if service_name is None else service_name,
    )
    token = current.set(inner)
    try:
        yield
    finally:
        current.reset(token)
