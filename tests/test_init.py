"""``keyop init``: a first configuration, which loads and runs as it is."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from child import DEADLINE_S, ROOT
from conftest import end_writer
from federation import Process, free_port
from supervised import keyop, nothing_left

from keyop.config import Config
from keyop.configuration.keys import KEYS
from keyop.configuration.starter import Starter


def _up(config: Path) -> None:
    """Run it as it is, and stop it."""
    up = Process("up", config).wait_for("all is up")
    try:
        assert up.stop() == 0
    finally:
        if up.process.poll() is None:
            up.kill()
    nothing_left(Path(Config.load(config).storage.data_dir))


def test_what_it_writes_runs(tmp_path: Path) -> None:
    config = tmp_path / "keyop.yaml"
    done = keyop("init", config)
    assert done.returncode == 0
    assert f"`keyop up -c {config}` runs it" in done.stdout
    assert config.stat().st_mode & 0o777 == 0o644
    settings = Config.load(config).to_settings()
    assert settings.storage.data_dir == str(tmp_path / "data")
    assert not settings.hub.enabled
    assert not settings.client.enabled
    _up(config)


def _certificates(said: str, folder: Path) -> None:
    """Do what it says."""
    for line in said.splitlines():
        if line.startswith("  keyop "):
            command = [sys.executable, "-m", *shlex.split(line)]
            subprocess.run(command, cwd=folder, check=True, capture_output=True, env={"PYTHONPATH": str(ROOT)})


def test_with_a_hub_and_the_certificates_that_it_names(tmp_path: Path) -> None:
    config = tmp_path / "keyop.yaml"
    done = keyop("init", "--hub", config)
    _certificates(done.stdout, tmp_path)
    config.write_text(config.read_text().replace('":7740"', f'"127.0.0.1:{free_port()}"'))
    _up(config)


def test_with_a_client(tmp_path: Path) -> None:
    config = tmp_path / "keyop.yaml"
    done = keyop("init", config, "--client", f"127.0.0.1:{free_port()}", "--data-dir", "my data: #1")
    keyop("keygen", "ca", "--out-cert", tmp_path / "ca.crt", "--out-key", tmp_path / "ca.key")
    _certificates(done.stdout, tmp_path)
    assert Config.load(config).storage.data_dir == str(tmp_path / "my data: #1")
    _up(config)


def test_it_overwrites_nothing_unless_told(tmp_path: Path) -> None:
    config = tmp_path / "keyop.yaml"
    config.write_text("mine")
    done = keyop("init", config)
    assert done.returncode == 1
    assert "is there already; --force replaces it" in done.stderr
    assert config.read_text() == "mine"
    assert keyop("init", config, "--force").returncode == 0
    assert Config.load(config)
    assert [path.name for path in tmp_path.iterdir()] == ["keyop.yaml"]


@pytest.mark.parametrize("address", ["http://hub/", "hub:many", ":7740", "hub:0"])
def test_an_address_that_is_none(tmp_path: Path, address: str) -> None:
    done = keyop("init", tmp_path / "keyop.yaml", "--client", address)
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    done = keyop("init", tmp_path / "no" / "keyop.yaml")
    assert done.returncode == 1
    assert done.stderr == f"keyop: {tmp_path / 'no'}: there is no such directory\n"


def _every_key(values: dict[str, Any], prefix: str = "") -> set[str]:
    found = set()
    for key, value in values.items():
        found.add(prefix + key)
        if isinstance(value, dict):
            found |= _every_key(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            found |= _every_key(value[0], f"{prefix}{key}[].")
    return found


def test_what_stands_in_comments_is_right_too() -> None:
    """With the # taken away before each key, only keys that there are remain, and they load."""
    text = Starter(data_dir="data", certificates="host", ca="ca.crt").text()
    lines = [line[1:] if line.startswith("#") and not line.startswith("# ") else line for line in text.splitlines()]
    values = yaml.safe_load("\n".join(lines))
    assert {"hub", "client", "workers", "tls", "storage"} == set(values)
    assert _every_key(values) <= set(KEYS)
    Config(**values)


def test_the_name_of_the_certificate_is_the_hosts(tmp_path: Path) -> None:
    done = keyop("init", "--hub", tmp_path / "keyop.yaml")
    assert f"--name {socket.gethostname().partition('.')[0]}" in done.stdout


def test_other_commands_find_it_too(tmp_path: Path) -> None:
    """In the directory of ``keyop.yaml`` nothing else need be named, nor for the shell's completion."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "keyop", *arguments],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )

    assert run("publish", "alerts", "1").returncode == 2
    assert run("init").returncode == 0
    try:
        assert run("publish", "alerts", "1").returncode == 0
        assert "alerts" in run("channels").stdout
        completed = run(_KEYOP_COMPLETE="bash_complete", COMP_WORDS="keyop tail ", COMP_CWORD="2")
        assert completed.stdout.split() == ["plain,alerts"]
        elsewhere = run("channels", KEYOP_DATA_DIR=str(tmp_path / "other"))
        assert elsewhere.returncode == 1
    finally:
        end_writer(tmp_path / "data")
    nothing_left(tmp_path / "data")
