"""The dashboard as a process: until a signal."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from keyop.dashboard.server import Dashboard, Options
from keyop.readiness import say_ready
from keyop.storage.directory import DataDirectory


def run(directory: DataDirectory, options: Options, started: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; `started` is told the page's address.

    Raises `DashboardError`, `TokenError`, `DataDirectoryError`.
    """
    asyncio.run(_run(directory, options, started))


async def _run(directory: DataDirectory, options: Options, started: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    dashboard = Dashboard(directory, options)
    try:
        started(await dashboard.start())
        say_ready()
        await stop.wait()
    finally:
        await dashboard.close()
