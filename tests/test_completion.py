"""Completion in real shells: `keyop completion` is sourced, a line is typed, and what the shell makes of it is read."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from child import DEADLINE_S, ROOT

from keyop.cli.commands import commands
from keyop.cli.names import ChannelName, SubscriberId


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A data directory with channels and ids, which nobody has opened; beside it what else can be completed."""
    data = tmp_path / "data"
    for channel in ("orders", "orders.eu", "alerts", "alerts.dead-letter"):
        (data / "channels" / channel).mkdir(parents=True)
    for channel, id in (("orders", "billing"), ("orders", "fed-pi"), ("alerts", "mailer"), ("alerts", "billing")):
        (data / "subscribers" / channel).mkdir(parents=True, exist_ok=True)
        (data / "subscribers" / channel / f"{id}.offset").write_text("0")
    (data / "subscribers" / ".patterns").mkdir()
    (tmp_path / "keyop.yaml").write_text("storage:\n  data_dir: data\n")
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "keyop"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m keyop.cli "$@"\n')
    script.chmod(0o755)
    return tmp_path


def environment(place: Path, **more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KEYOP_")}
    path = f"{place / 'bin'}:{clean['PATH']}"
    return {**clean, "PYTHONPATH": str(ROOT), "PATH": path, "HOME": str(place), "TERM": "dumb", **more}


def ask(place: Path, line: str, **more: str) -> subprocess.CompletedProcess[str]:
    """What a shell asks at the end of this line."""
    asked = {"_KEYOP_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    env = environment(place, **{**asked, **more})
    command = [sys.executable, "-m", "keyop.cli"]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=place, timeout=DEADLINE_S, check=False)


def answers(place: Path, line: str, **more: str) -> list[str]:
    done = ask(place, line, **more)
    assert done.stderr == ""
    return done.stdout.split()


# ---- what is completed


def test_names_of_channels_and_ids(place: Path) -> None:
    here = {"KEYOP_DATA_DIR": str(place / "data")}
    assert answers(place, "keyop tail ord", **here) == ["plain,orders", "plain,orders.eu"]
    assert answers(place, "keyop tail al") == ["plain,alerts", "plain,alerts.dead-letter"]  # keyop.yaml is there
    assert answers(place, "keyop tail -d data al") == ["plain,alerts", "plain,alerts.dead-letter"]
    assert answers(place, "keyop tail -c keyop.yaml al") == ["plain,alerts", "plain,alerts.dead-letter"]
    assert answers(place, "keyop publish al", **here) == ["plain,alerts"]  # it may not publish to the other
    assert answers(place, "keyop consume orders --id ", **here) == ["plain,billing"]
    assert answers(place, "keyop consume --id ", **here) == ["plain,billing", "plain,mailer"]
    assert answers(place, "keyop audit --channel ord", **here) == ["plain,orders", "plain,orders.eu"]
    assert answers(place, "keyop offsets show orders ", **here) == ["plain,billing"]
    assert answers(place, "keyop dead-letter list orders --subscriber ", **here) == ["plain,billing"]
    assert answers(place, "keyop worker shop:") == ["file,shop:"]
    assert answers(place, "keyop tail -c ") == ["file,"]
    assert answers(place, "keyop tail -d da") == ["dir,da"]


def test_nothing_is_made_or_started(place: Path) -> None:
    before = sorted(place.rglob("*"))
    answers(place, "keyop consume orders --id ", KEYOP_DATA_DIR="data")
    assert sorted(place.rglob("*")) == before


def test_it_never_says_what_went_wrong(place: Path) -> None:
    (place / "keyop.yaml").rename(place / "other.yaml")
    assert answers(place, "keyop tail o") == []
    assert answers(place, "keyop tail o", KEYOP_DATA_DIR="/nowhere") == []
    assert answers(place, "keyop tail o", KEYOP_DATA_DIR=str(place / "other.yaml")) == []
    for text in ("storage: [", "storage: 3", "", "storage:\n  data_dir: 3", "\0"):
        (place / "broken.yaml").write_text(text)
        assert answers(place, "keyop tail -c broken.yaml o") == []
    assert answers(place, "keyop no-such-command o") == []
    assert answers(place, "keyop tail 'unfinished o") == []
    done = ask(place, "keyop tail o", KEYOP_DATA_DIR="data", COMP_CWORD="x")
    assert (done.stdout, done.stderr) == ("", "")


def test_little_is_imported(place: Path) -> None:
    done = ask(place, "keyop tail -c keyop.yaml ord", PYTHONPROFILEIMPORTTIME="1")
    assert done.stdout.split() == ["plain,orders", "plain,orders.eu"]
    # The profile goes to the real standard error, which stays open; ours went nowhere.
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "yaml" in imported
    heavy = {"pydantic", "asyncio", "msgspec", "posix_ipc", "keyop.inspection", "keyop.attachment", "keyop.messenger"}
    assert imported.isdisjoint(heavy), imported & heavy


def every_parameter(group: click.Group, path: str) -> Iterator[tuple[str, click.Parameter]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from every_parameter(command, f"{path} {name}")
            continue
        for parameter in command.params:
            yield f"{path} {name} {parameter.name}", parameter


def test_every_command_completes_them() -> None:
    for where, parameter in every_parameter(commands, "keyop"):
        if isinstance(parameter, click.Option) and parameter.is_flag:
            continue
        if parameter.name == "channel":
            assert isinstance(parameter.type, ChannelName), where
        elif parameter.name in ("id", "subscriber", "subscriber_id"):
            assert isinstance(parameter.type, SubscriberId), where
        elif parameter.metavar in ("FILE", "DIR", "MODULE:APP"):
            plain = parameter._custom_shell_complete is None and not isinstance(
                parameter.type, (click.Path, click.File)
            )
            assert not plain, where


# ---- the shells


def script_of(place: Path, shell: str) -> Path:
    done = subprocess.run(
        [str(place / "bin" / "keyop"), "completion", shell],
        capture_output=True,
        text=True,
        env=environment(place),
        timeout=DEADLINE_S,
        check=True,
    )
    script = place / f"completion.{shell}"
    script.write_text(done.stdout)
    return script


def need(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")


def test_bash_calls_the_function(place: Path) -> None:
    need("bash")
    source = f"""
        source {script_of(place, "bash")}
        complete -p keyop
        COMP_WORDS=(keyop consume orders --id ''); COMP_CWORD=4
        _keyop_completion keyop consume --id
        printf '%s\\n' "${{COMPREPLY[@]}}"
        """
    done = subprocess.run(
        ["bash", "--norc", "-c", source],
        capture_output=True,
        text=True,
        env=environment(place, KEYOP_DATA_DIR="data"),
        cwd=place,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.stdout.splitlines() == ["complete -o nosort -F _keyop_completion keyop", "billing"], done.stderr


class Terminal:
    """An interactive shell at a terminal."""

    def __init__(self, place: Path, *command: str) -> None:
        self.seen = ""
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(place)
            os.execvpe(command[0], list(command), environment(place, KEYOP_DATA_DIR="data", PS1="ready> "))

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def wait_for(self, text: str) -> None:
        """Read until the terminal has shown a text since the last one."""
        deadline = time.monotonic() + DEADLINE_S
        while text not in self.seen:
            ready, _, _ = select.select([self._fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no {text!r} in {self.seen!r}"
            self.seen += os.read(self._fd, 4096).decode(errors="replace")
        self.seen = self.seen.partition(text)[2]

    def close(self) -> None:
        os.close(self._fd)  # it hangs up
        os.waitpid(self.pid, 0)


def test_bash_at_a_terminal(place: Path) -> None:
    need("bash")
    terminal = Terminal(place, "bash", "--norc", "--noprofile", "-i")
    try:
        terminal.type(f"source {script_of(place, 'bash')}\n")
        terminal.wait_for("ready> ")
        terminal.type("keyop consume orders --id bil\t")
        terminal.wait_for("billing")
        terminal.type("\x15keyop tail -c key\t")
        terminal.wait_for("keyop.yaml")
    finally:
        terminal.close()


def test_zsh_at_a_terminal(place: Path) -> None:
    need("zsh")
    terminal = Terminal(place, "zsh", "-f", "-i")
    try:
        terminal.type(f"autoload -U compinit; compinit -D -u; source {script_of(place, 'zsh')}; echo so''urced\n")
        terminal.wait_for("sourced")
        terminal.type("keyop consume orders --id bil\t")
        terminal.wait_for("billing")
        terminal.type("\x15keyop tail alerts.\t")
        terminal.wait_for("alerts.dead-letter")
    finally:
        terminal.close()


def test_fish_says_what_it_would_complete(place: Path) -> None:
    need("fish")
    script = script_of(place, "fish")
    for line, expected in (("keyop tail ord", "orders\norders.eu\n"), ("keyop consume orders --id ", "billing\n")):
        done = subprocess.run(
            ["fish", "--no-config", "-c", f"source {script}; complete -C '{line}'"],
            capture_output=True,
            text=True,
            env=environment(place, KEYOP_DATA_DIR="data"),
            cwd=place,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.stdout == expected, done.stderr
