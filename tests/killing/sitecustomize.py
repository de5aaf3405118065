"""Kills a hub or client process at a chosen step: put this directory first on PYTHONPATH.

``KEYOP_TEST_KILL_AT=module:Class.method:before|after:count`` kills it with SIGKILL before or after the call of that
function for the count-th time. Only the process that runs ``keyop.federation`` is concerned.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import os
import signal
import sys
from importlib.abc import MetaPathFinder
from typing import Any

module_name, _, step = os.environ.get("KEYOP_TEST_KILL_AT", "").partition(":")


def _wrap(module: Any) -> None:
    path, when, count = step.split(":")
    *owners, name = path.split(".")
    owner = module
    for part in owners:
        owner = getattr(owner, part)
    original = getattr(owner, name)
    assert inspect.isfunction(original), path
    calls = 0

    def die_if(place: str) -> None:
        if place == when and calls >= int(count):
            os.kill(os.getpid(), signal.SIGKILL)

    @functools.wraps(original)
    def whole(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        die_if("before")
        result = original(*arguments, **named)
        die_if("after")
        return result

    @functools.wraps(original)
    async def awaited(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        die_if("before")
        result = await original(*arguments, **named)
        die_if("after")
        return result

    setattr(owner, name, awaited if inspect.iscoroutinefunction(original) else whole)


class _Finder(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname != module_name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_wrap(module: Any) -> None:
            execute(module)
            _wrap(module)

        spec.loader.exec_module = execute_and_wrap  # type: ignore[method-assign]
        return spec


if module_name and "keyop.federation" in sys.orig_argv:
    sys.meta_path.insert(0, _Finder())
