"""For development: workers are started again when their source changes. A broken one waits for the next change."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from keyop.processes.loop import Loop
from keyop.processes.parent import Parent
from keyop.processes.service import RUNNING, STOPPED, Service

_DEBOUNCE_MS = 200
_STEP_MS = 50
_NAMED = 3


class ReloadingParent(Parent):
    """A parent that starts nothing again by itself of what has not come to its work."""

    def on_ended(self, service: Service, code: int, reason: str) -> bool:
        """As `Parent.on_ended`."""
        if self.is_stopping or service.state == RUNNING:
            return super().on_ended(service, code, reason)
        what = reason.partition("\n")[0]  # its last lines stand above
        self._output.error(f"{service.name} {what}; waiting for the next change of the source")
        return False

    def source_changed(self, paths: list[str]) -> None:
        """Start all again."""
        if self.is_stopping:
            return
        more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
        self._output.info(f"{', '.join(sorted(paths)[:_NAMED])}{more} changed: starting again")
        for service in list(self.services.values()):
            if service.state == STOPPED:
                service.start()
            else:
                self.restart([service])


class Source:
    """Where the Python files of a module lie: its package, or for a module without one its directory."""

    def __init__(self, module: str) -> None:
        self.directory = _directory(module.partition(".")[0])

    @contextlib.contextmanager
    def watched(self, loop: Loop, changed: Callable[[list[str]], None]) -> Iterator[None]:
        """Within the block ``changed`` is called in the loop, with the paths, whenever files have changed."""
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        stop = threading.Event()
        found: list[list[str]] = []

        def watch() -> None:
            from watchfiles import PythonFilter
            from watchfiles import watch as changes

            for change in changes(
                self.directory,
                watch_filter=PythonFilter(),
                debounce=_DEBOUNCE_MS,
                step=_STEP_MS,
                stop_event=stop,
                raise_interrupt=False,
            ):
                found.append([os.path.relpath(path) for _kind, path in change])
                os.write(writing, b"!")

        def look() -> None:
            os.read(reading, 64)
            paths: set[str] = set()
            while found:
                paths.update(found.pop())
            if paths:
                changed(sorted(paths))

        loop.watch(reading, look)
        thread = threading.Thread(target=watch, name="keyop-reload", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            os.close(reading)
            os.close(writing)


def _directory(name: str) -> Path:
    """Found without importing anything."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or (spec.origin is None and not spec.submodule_search_locations):
        return Path(here)
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin or here).parent
