"""What README and guide show is run as it stands there.

Every ``python`` block is a program of its own, in a fresh interpreter and an empty directory. An ``output`` block right
behind it is, to the letter, what it prints. A program that calls ``run()`` is sent SIGINT when that has been printed.
HTML comments before a block say what is different: ``<!-- same directory -->`` goes on where the block before it
stopped, ``<!-- not run: why -->`` is for people only.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from child import DEADLINE_S, ROOT
from conftest import leave

PAGES = ("README.md", "docs/guide.md", "docs/workers.md")
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n+)?^```python\n(?P<program>.*?)^```\n(?:\n*^```output\n(?P<output>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """One program of a page."""

    page: str
    line: int
    program: str
    output: str | None
    mark: str

    @property
    def runs_on(self) -> bool:
        return re.search(r"\bm\.run\(\)", self.program) is not None


def blocks_of(page: str) -> list[Block]:
    text = (ROOT / page).read_text()
    return [
        Block(
            page,
            text.count("\n", 0, found.start("program")) + 1,
            found["program"],
            found["output"],
            found["mark"] or "",
        )
        for found in _BLOCK.finditer(text)
    ]


def stories() -> list[list[Block]]:
    """Blocks that share a directory, in their order."""
    told: list[list[Block]] = []
    for page in PAGES:
        for block in blocks_of(page):
            if block.mark == "same directory":
                told[-1].append(block)
            elif not block.mark.startswith("not run: "):
                assert block.mark == "", f"{page}:{block.line}: unknown mark {block.mark!r}"
                told.append([block])
    return told


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory whose data directories are at rest in the end, with nothing of them in shared memory."""
    yield tmp_path
    for mark in tmp_path.glob("**/run/id"):
        leave(mark.parents[1])


@pytest.mark.parametrize("story", stories(), ids=lambda story: f"{story[0].page}:{story[0].line}")
def test_programs_do_what_the_page_says(story: list[Block], place: Path) -> None:
    for block in story:
        run(block, place)


def run(block: Block, place: Path) -> None:
    where = f"{block.page}:{block.line}"
    path = place / "program.py"
    path.write_text(block.program)
    output_path = place / ".output"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYOP_")}
    with output_path.open("w") as output, (place / ".errors").open("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, str(path)],
            cwd=place,
            stdout=output,
            stderr=errors,
            env={**environment, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        )
        try:
            if block.runs_on:
                assert block.output, f"{where}: what does it print?"
                wait_for(process, lambda: len(output_path.read_text()) >= len(block.output or ""))
                wait_for(process, lambda: catches(process.pid, signal.SIGTERM))  # its handler may be quicker than it
                process.send_signal(signal.SIGINT)
            code = process.wait(DEADLINE_S)
        finally:
            process.kill()
            process.wait()
        errors.seek(0)
        complaint = errors.read()
    assert code == 0, f"{where}: exit code {code}\n{complaint}"
    assert "Traceback" not in complaint, f"{where}: {complaint}"
    if block.output is not None:
        assert output_path.read_text() == block.output, f"{where}\n{complaint}"


def wait_for(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while process.poll() is None and not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process handles a signal itself: it is in `run` then. Where that cannot be seen: yes."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
    mask = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(mask >> (number - 1) & 1)


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_pages_link_to_what_is_there() -> None:
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        for target, anchor in re.findall(r"\]\((?!https:)([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
            there = page.parent / target if target else page
            assert there.exists(), f"{page}: {target}"
            assert not anchor or anchor in anchors(there), f"{page}: {target}#{anchor}"


def test_files_that_the_architecture_names_are_there() -> None:
    for page in ("docs/architecture.md", "docs/formats.md"):
        for name in set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)`", (ROOT / page).read_text())):
            assert (ROOT / "keyop" / name).exists(), f"{page}: keyop/{name}"


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    table = (ROOT / "docs" / "dependencies.md").read_text()
    for requirement in project["dependencies"]:
        name = re.split(r"[^A-Za-z0-9_.-]", requirement)[0]
        assert f"| `{name}" in table, requirement
    for extra in project["optional-dependencies"]:
        assert f"[{extra}]" in table, extra
