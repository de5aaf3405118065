"""The package's face: every public name is what it says, whatever was imported before."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

import keyop
import keyop.aio
import keyop.inspection.following
import keyop.messenger


@pytest.mark.parametrize("name", keyop.__all__)
def test_no_module_stands_in_the_place_of_a_public_name(name: str) -> None:
    """A submodule of that name would, as soon as anything imports it."""
    assert not isinstance(getattr(keyop, name), ModuleType)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = keyop.nothing  # type: ignore[attr-defined]


def test_the_names_are_listed_and_star_imported() -> None:
    assert set(keyop.__all__) <= set(dir(keyop))
    names: dict[str, object] = {}
    exec("from keyop import *", names)
    assert set(keyop.__all__) <= set(names)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, keyop; from keyop import Messenger; "
        "print(sorted({'pydantic', 'asyncio', 'click', 'watchfiles', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
