"""Which processes a configuration asks for, and what in it makes a difference to each."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from keyop.configuration.settings import Settings, WorkerSettings
from keyop.processes.role import Role
from keyop.protocol.writer_options import WriterOptions

_FIRST, _BETWEEN_HOSTS, _LAST = range(3)
"""Ranks. The writer is there before all others, and after them; what a worker publishes last can still be sent."""

_OF_ALL = ("name", "storage.data_dir", "storage.sync_interval_ms", "storage.max_message_bytes", "ipc")
_OF_FEDERATION = (*_OF_ALL, "tls", "federation", "dedup")
_OF_WORKERS = (*_OF_ALL, "subscribers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says for all of them."""

    log_format: str = "text"
    log_level: str = "info"
    grace_s: float = 30.0


def roles_of(settings: Settings, options: Options) -> list[Role]:
    """In the order in which they are started."""
    text = settings.to_json()
    values = asdict(settings)
    roles = [_writer(settings, options)]
    roles += _federation(settings, values, text, options)
    roles += _views(settings, values, text, options)
    roles += _workers(settings, values, text, options)
    return roles


def _writer(settings: Settings, options: Options) -> Role:
    writer = WriterOptions.from_settings(settings)
    writer.data_dir = os.path.abspath(writer.data_dir)
    command = (sys.executable, "-m", "keyop.writer", "on_demand=0", "supervised=1", *_log(options))
    return Role(name="writer", command=(*command, *writer.to_arguments()), rank=_FIRST)


def _federation(settings: Settings, values: dict[str, Any], text: str, options: Options) -> Iterator[Role]:
    for name, enabled in (("hub", settings.hub.enabled), ("client", settings.client.enabled)):
        if enabled:
            depends_on = _picked(values, (*_OF_FEDERATION, name))
            # The hub reads its list of peers again itself, and nobody is disconnected.
            depends_on.get("hub", {}).pop("allowed_peers", None)
            yield Role(
                name=name,
                command=(sys.executable, "-m", "keyop.federation", name, *_log(options)),
                rank=_BETWEEN_HOSTS,
                settings=text,
                depends_on=json.dumps(depends_on),
            )


def _views(settings: Settings, values: dict[str, Any], text: str, options: Options) -> Iterator[Role]:
    for name, enabled in (("metrics", settings.metrics.enabled), ("dashboard", settings.dashboard.enabled)):
        if enabled:
            yield Role(
                name=name,
                command=(sys.executable, "-m", f"keyop.{name}", *_log(options)),
                rank=_LAST,
                settings=text,
                depends_on=json.dumps(_picked(values, ("storage.data_dir", name))),
            )


def _workers(settings: Settings, values: dict[str, Any], text: str, options: Options) -> Iterator[Role]:
    if not settings.workers:
        return
    from keyop.workers.command import WorkerOptions
    from keyop.workers.loading import parse

    names = _names(settings.workers)
    depends_on = json.dumps(_picked(values, _OF_WORKERS))
    for name, worker in zip(names, settings.workers, strict=True):
        for number in range(1, worker.processes + 1):
            told = WorkerOptions(
                app=parse(worker.app),
                only=worker.only,
                part=(number, worker.processes),
                # It names the handler that hangs before it is killed itself.
                grace_s=options.grace_s * 0.6,
                log_format=options.log_format,
                log_level=options.log_level,
            )
            yield Role(
                name=name if worker.processes == 1 else f"{name}/{number}",
                command=told.to_command(),
                rank=_LAST,
                settings=text,
                depends_on=depends_on,
            )


def _names(workers: tuple[WorkerSettings, ...]) -> list[str]:
    """One for each entry; those without one are called like their module, numbered if that is taken."""
    taken = {worker.name for worker in workers} | {"writer", "hub", "client", "metrics", "dashboard", "supervisor"}
    names = []
    for worker in workers:
        name = worker.name
        if not name:
            stem = worker.app.partition(":")[0].rpartition(".")[2].lower()
            candidates = (stem if number == 1 else f"{stem}-{number}" for number in range(1, len(taken) + 2))
            name = next(candidate for candidate in candidates if candidate not in taken)
            taken.add(name)
        names.append(name)
    return names


def _picked(values: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """The values of sections and dotted keys."""
    picked = {}
    for key in keys:
        value: Any = values
        for part in key.split("."):
            value = value[part]
        picked[key] = dict(value) if isinstance(value, dict) else value
    return picked


def _log(options: Options) -> tuple[str, str]:
    return f"log_format={options.log_format}", f"log_level={options.log_level}"
