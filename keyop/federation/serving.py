"""Hub and client as processes: started with their settings, working until a signal.

``keyop hub`` reads the configuration and then becomes this process by exec: what reading took (click, pydantic, YAML:
10 MiB) does not stay in memory for years. `Messenger(..., federate=True)` starts the same as children.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from keyop.attachment.spawn import writer_environment as child_environment
from keyop.configuration.settings import Settings
from keyop.errors import ConfigError, KeyopError
from keyop.federation.identity import Role
from keyop.readiness import say_ready

EXIT_FAILED, EXIT_USAGE, EXIT_UNAVAILABLE = 1, 2, 69
"""As those of keyop's other commands: any error, wrong configuration, somebody else is in the way."""


# A start that is under way when it is to leave: the writer may stand still.
_START_PATIENCE_S = 3.0


class Service(Protocol):
    """A hub or a client."""

    def start(self) -> Coroutine[Any, Any, Any]:
        """Begin."""

    def lost(self) -> Coroutine[Any, Any, KeyopError]:
        """Wait until it can work no more; why."""

    def close(self) -> Coroutine[Any, Any, None]:
        """Finish what is under way, and leave."""


def command_line(
    role: Role, settings: Settings, *, log_format: str, log_level: str, is_child: bool = False
) -> tuple[list[str], int]:
    """The command of such a process, and the descriptor that it inherits, with the settings in it.

    A child says a line on its standard output when it is ready, and leaves when its standard input ends.
    """
    with tempfile.TemporaryFile() as file:
        file.write(settings.to_json().encode())
        file.seek(0)
        fd = os.dup(file.fileno())
    os.set_inheritable(fd, True)
    arguments = [f"settings_fd={fd}", f"log_format={log_format}", f"log_level={log_level}", f"is_child={int(is_child)}"]
    return [sys.executable, "-m", "keyop.federation", role, *arguments], fd


def become(role: Role, settings: Settings, *, log_format: str, log_level: str) -> None:
    """Go on as such a process. Does not return. Raises `ConfigError` where the configuration switches it off."""
    section = settings.hub if role == "hub" else settings.client
    if not section.enabled and f"{role}.enabled" in settings.explicit:
        place = settings.config_file or "the configuration"
        raise ConfigError(
            f"{place}: {role}.enabled is false, so there is no {role} to run; set it to true, or leave it out"
        )
    command, _fd = command_line(role, settings, log_format=log_format, log_level=log_level)
    os.execve(sys.executable, command, child_environment())


def serve(role: Role, service: Service, describe: Callable[[Any], str], *, is_child: bool) -> None:
    """Start, say that it is ready, wait for SIGTERM, SIGINT or the parent's end, and close.

    Raises what the start raises, and why it can work no more if it is that: to be started again may help.
    """
    # Not `asyncio.run`, which waits for threads: one may wait for a writer that stands still, and this process is to
    # end. What it leaves behind the writer takes back, as from one that was killed.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(_serve(role, service, describe, is_child))


async def _serve(role: Role, service: Service, describe: Callable[[Any], str], is_child: bool) -> None:
    loop = asyncio.get_running_loop()
    log = logging.getLogger(f"keyop.{role}")
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    stopped = asyncio.create_task(stop.wait())
    starting = asyncio.create_task(service.start())
    await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait((starting,), timeout=_START_PATIENCE_S)
    if not starting.done():
        log.info("leaving before the start was done")
        return
    started = describe(starting.result())
    log.info("%s", started)
    say_ready()
    if is_child:
        sys.stdout.write(f"ready {started}\n")
        sys.stdout.flush()
        loop.add_reader(sys.stdin.fileno(), _look_at_parent, stop)
    lost = asyncio.create_task(service.lost())
    try:
        await asyncio.wait((stopped, lost), return_when=asyncio.FIRST_COMPLETED)
        log.info("leaving: batches under way are finished")
        if lost.done():
            raise lost.result()
    finally:
        stopped.cancel()
        lost.cancel()
        await service.close()


def _look_at_parent(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        stop.set()
