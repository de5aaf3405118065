"""From MODULE:APP to the app, and what stands in the way of that."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from keyop.errors import AppError
from keyop.workers.loading import Reference, load, parse

_numbers = itertools.count()

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a module and give its name, which no other test uses: modules are imported once."""
    monkeypatch.syspath_prepend(tmp_path)

    def write_module(source: str, file: str = "{}.py") -> str:
        name = f"loading_{next(_numbers)}"
        path = tmp_path / file.format(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
        return name

    return write_module


@pytest.mark.parametrize(
    ("text", "module", "attribute"),
    [("shop:app", "shop", "app"), ("shop", "shop", "app"), ("shop.orders:parts.till", "shop.orders", "parts.till")],
)
def test_references(text: str, module: str, attribute: str) -> None:
    assert parse(text) == Reference(module, attribute)


@pytest.mark.parametrize(
    "text", ["", ":", "shop:", ":app", "shop:app()", "shop orders:app", "shop..orders:app", "1:app"]
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(AppError, match="MODULE:APP"):
        parse(text)


@pytest.mark.parametrize("text", ["shop/orders.py", "./shop/orders.py:app", "shop/orders:app"])
def test_a_file_is_not_a_module(text: str) -> None:
    with pytest.raises(AppError, match=r"not its file: shop\.orders:app"):
        parse(text)


def test_an_app_is_found_also_inside_of_something(write: Write) -> None:
    name = write("import keyop\nclass Parts:\n    till = keyop.App()\n")
    assert load(Reference(name, "Parts.till")).handlers == []


@pytest.mark.parametrize(
    ("attribute", "texts"),
    [
        ("app", ["has no app", ":application", ":other"]),
        ("settings", ["is a dict, not a keyop.App", ":application, "]),
        ("Kind", ["is the class keyop.App itself"]),
    ],
)
def test_what_is_there_instead_is_named(write: Write, attribute: str, texts: list[str]) -> None:
    name = write("import keyop\napplication = keyop.App()\nother = keyop.App()\nsettings = {}\nKind = keyop.App\n")
    with pytest.raises(AppError) as caught:
        load(Reference(name, attribute))
    for text in texts:
        assert text in str(caught.value)


def test_a_module_without_any_app(write: Write) -> None:
    with pytest.raises(AppError, match=r"it has no keyop\.App at all"):
        load(Reference(write("x = 1"), "x"))


def test_a_module_that_is_not_there(write: Write, tmp_path: Path) -> None:
    with pytest.raises(AppError, match=f"there is no module not_there_at_all, neither in {tmp_path}"):
        load(Reference("not_there_at_all.orders", "app"))
    package = write("", "{}/__init__.py")
    with pytest.raises(AppError, match=f"{package} .*has no module orders"):
        load(Reference(f"{package}.orders", "app"))
    plain = write("")
    with pytest.raises(AppError, match=f"{plain} .*has no module orders"):
        load(Reference(f"{plain}.orders", "app"))


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ("def f():\n    return 1 / 0\nf()\n", ["raised ZeroDivisionError", "return 1 / 0", "line 3, in <module>"]),
        ("def f(:\n", ["raised SyntaxError", "def f(:"]),
        ("import not_there_either\n", ["raised ModuleNotFoundError", "import not_there_either"]),
        ("raise SystemExit(3)\n", ["ended the process", "__name__"]),
        (
            "import keyop\napp = keyop.App()\napp.on('a', id='b')(print)\napp.on('a', id='b')(print)\n",
            ["AppError", "another id"],
        ),
    ],
)
def test_a_module_that_raises_shows_its_own_lines(write: Write, source: str, texts: list[str]) -> None:
    name = write(source)
    with pytest.raises(AppError) as caught:
        load(Reference(name, "app"))
    said = str(caught.value)
    for text in texts:
        assert text in said
    assert "importlib" not in said
    assert "loading.py" not in said


def test_of_a_long_traceback_the_end_is_shown(write: Write) -> None:
    name = write("def f(n):\n    if n: f(n - 1)\n    else: raise ValueError('deep')\nf(300)\n")
    with pytest.raises(AppError) as caught:
        load(Reference(name, "app"))
    assert len(str(caught.value).splitlines()) < 30
    assert "ValueError: deep" in str(caught.value)
