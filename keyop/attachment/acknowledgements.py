"""Commits awaited on an event loop: thousands may be in flight, which is how one process fills a group commit."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque

from keyop.attachment.attachment import Attachment
from keyop.errors import PublishTimeout, SharedMemoryError


class Acknowledgements:
    """Futures of publishes in flight, resolved as the committed position passes them.

    A thread waits for the writer's semaphore while there are any, and wakes the loop once for each group commit.
    """

    def __init__(self, attachment: Attachment, loop: asyncio.AbstractEventLoop) -> None:
        self._attachment = attachment
        self._loop = loop
        self._pending: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._some = threading.Event()
        self._woken = True
        self._closed = False
        threading.Thread(target=self._watch, name="keyop-acknowledge", daemon=True).start()

    async def send(self, transaction: bytes, deadline: float | None = None) -> int:
        """As `Attachment.send`, without blocking the loop."""
        attachment = self._attachment
        position = attachment.try_send(transaction)
        if position is None and attachment.fits_ring(transaction):
            # Full of what came before: room is made by its commit. To wait for that in a thread costs more.
            with contextlib.suppress(PublishTimeout):
                await self.committed(attachment.room_for(transaction), deadline)
                position = attachment.try_send(transaction)
        if position is None:
            # The transaction is to be spilled, or the writer has to be found: that may block.
            position = await asyncio.to_thread(attachment.send, transaction, deadline)
        return position

    async def committed(self, position: int, deadline: float | None = None) -> None:
        """Return when the position is committed. Raises `PublishTimeout`, `SharedMemoryError`."""
        future = self.future(position)
        if deadline is None:
            await future
            return
        try:
            await asyncio.wait_for(future, max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise self._attachment.timed_out(position) from None

    def future(self, position: int) -> asyncio.Future[None]:
        """A future that is done when the position is committed; a `SharedMemoryError` if it never will be."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._pending.append((position, future))
        if self._woken:
            self._woken = False
            self._some.set()
        return future

    def resolve(self) -> None:
        """On the loop: finish what is committed."""
        pending = self._pending
        is_poisoned = self._attachment.is_poisoned
        is_committed = self._attachment.is_committed
        while pending and is_committed(pending[0][0]):
            future = pending.popleft()[1]
            if not future.done():
                future.set_result(None)
        if is_poisoned and pending:
            self._refuse_all()
        if pending:
            self._some.set()
        else:
            self._woken = True

    def _refuse_all(self) -> None:
        try:
            self._attachment.refuse_poisoned()
        except SharedMemoryError as error:
            while self._pending:
                future = self._pending.popleft()[1]
                if not future.done():
                    future.set_exception(error)

    def _watch(self) -> None:
        gate = self._attachment.commit_gate
        while True:
            self._some.wait()
            self._some.clear()
            if self._closed:
                return
            try:
                position = self._pending[0][0]
            except IndexError:
                continue
            gate.wait(lambda p=position: self._over(p))  # type: ignore[misc]
            try:
                self._loop.call_soon_threadsafe(self.resolve)
            except RuntimeError:
                return  # the loop is closed

    def _over(self, position: int) -> bool:
        attachment = self._attachment
        return self._closed or attachment.is_committed(position) or attachment.is_poisoned

    def close(self) -> None:
        self._closed = True
        self._some.set()
        self._attachment.commit_gate.knock()
