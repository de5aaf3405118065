"""Asking a supervisor: ``keyop status``, ``restart``, ``stop``, and what the socket makes of others."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from child import ROOT, eventually
from conftest import end_writer
from parents import kill
from supervised import Site, all_gone, keyop, site

from keyop.storage.directory import DataDirectory
from keyop.supervisor.asking import ask

pytestmark = pytest.mark.alone


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as there:
        there.with_worker(name="clerks", only=["clerk"])
        yield there


def test_status_has_a_row_for_each_process(here: Site) -> None:
    up = here.up()
    rows = here.rows()
    assert list(rows) == ["supervisor", "writer", "clerks"]
    assert rows["supervisor"]["pid"] == up.pid
    for row in rows.values():
        assert row["restarts"] == 0
        assert row["uptime_s"] >= 0
        assert row["rss_bytes"] > 1 << 20
        assert row["cpu_s"] > 0
        assert row["cpu_percent"] > 0
        assert row["reason"] == ""
    text = keyop("status", "-d", here.data_dir)
    assert text.returncode == 0
    for row in rows.values():
        assert f"{row['role']} " in text.stdout
        assert str(row["pid"]) in text.stdout
    assert here.status()["supervisor"]["config_file"] == str(here.config_path)
    assert up.stop() == 0


def test_status_without_a_supervisor(here: Site) -> None:
    here.publish("a", 1)
    assert here.status()["supervisor"] is None


def test_restart_waits_until_it_is_at_work_again(here: Site) -> None:
    up = here.up()
    before = here.pids()
    done = keyop("restart", "clerks", "-d", here.data_dir)
    after = here.pids()
    assert done.returncode == 0
    assert done.stdout == f"clerks is at work again, pid {after['clerks']}\n"
    assert after["clerks"] != before["clerks"]
    assert after["writer"] == before["writer"]
    assert "clerks has left (exit code 0)" in up.log  # finished what was in hand
    assert up.stop() == 0


def test_a_shell_completes_the_roles(here: Site) -> None:
    here.sections["workers"][0]["processes"] = 2
    up = here.up()
    words = f"keyop restart -d {here.data_dir} "
    variables = {"_KEYOP_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "4"}
    done = subprocess.run(
        [sys.executable, "-m", "keyop"], env={**os.environ, "PYTHONPATH": str(ROOT), **variables}, capture_output=True
    )
    assert done.stdout.decode().split() == ["plain,clerks", "plain,clerks/1", "plain,clerks/2", "plain,writer"]
    assert up.stop() == 0


def test_restart_of_nobody_and_of_what_cannot_start(here: Site) -> None:
    up = here.up()
    unknown = keyop("restart", "clerk", "-d", here.data_dir)
    assert unknown.returncode == 1
    assert "there is no role 'clerk'; there are writer, clerks" in unknown.stderr
    (here.path / "shop.py").write_text("raise OSError('the shop is closed')\n")
    failed = keyop("restart", "clerks", "-d", here.data_dir)
    assert failed.returncode == 1
    assert "the shop is closed" in failed.stderr
    assert up.stop() == 0


def test_stop_waits_for_the_end(here: Site) -> None:
    up = here.up()
    pids = here.pids()
    done = keyop("stop", "-d", here.data_dir)
    assert (done.returncode, done.stdout) == (0, f"stopped, pid {up.pid}\n")
    assert up.process.wait(1) == 0
    all_gone(pids)
    again = keyop("stop", "-d", here.data_dir)
    assert again.returncode == 69
    assert "no supervisor runs here" in again.stderr
    assert keyop("restart", "writer", "-d", here.data_dir).returncode == 69


def test_what_needs_a_process_gone_says_how_under_a_supervisor(here: Site) -> None:
    """To kill the process would be in vain: it is started again."""
    up = here.up()
    there = ("-d", here.data_dir, "--yes")
    for arguments in (
        ("offsets", "forget", "orders", "clerk"),
        ("channel", "delete", "orders"),
        ("verify", "--repair"),
    ):
        refused = keyop(*arguments, *there)
        assert refused.returncode in (1, 69)
        assert "(where `keyop up` runs it: `keyop stop`)" in refused.stderr
    assert keyop("stop", "-d", here.data_dir).returncode == 0
    assert up.process.wait(5) == 0
    done = keyop("offsets", "forget", "orders", "clerk", *there)
    assert done.returncode == 0
    end_writer(here.data_dir)


def test_a_file_that_was_broken_meanwhile_hinders_nobody_from_looking_and_stopping(here: Site) -> None:
    up = here.up()
    here.sections["storage"]["max_file"] = 3
    path = here.write_config()
    up.wait_for("what was read before stays in force")
    there = ("-c", path)
    looked = keyop("status", *there)
    assert looked.returncode == 0
    assert "clerks" in looked.stdout
    assert f"{path}:" in looked.stderr
    assert "storage.max_file is not a key" in looked.stderr
    assert f"of it this takes the data directory alone: {here.data_dir}" in looked.stderr
    assert keyop("restart", "clerks", *there).returncode == 0
    assert keyop("publish", "orders", "1", *there).returncode == 2  # that goes by the other settings, too
    assert keyop("stop", *there).returncode == 0
    assert up.process.wait(5) == 0
    here.write_config(f"storage: {{data_dir: {here.path / 'elsewhere'}, max_file: 3}}")
    refused = keyop("status", *there)
    assert refused.returncode == 2
    assert "takes the data directory" not in refused.stderr


def test_stop_says_when_it_takes_longer(here: Site) -> None:
    (here.path / "shop.py").write_text(
        "import keyop, time\napp = keyop.App()\n"
        "@app.on('orders', id='clerk', start='earliest')\n"
        "def clerk(msg):\n    print('hangs', flush=True)\n    time.sleep(3600)\n"
    )
    up = here.up()
    here.publish("orders", 1)
    up.wait_for("hangs")
    done = keyop("stop", "-d", here.data_dir, "--timeout", "0.1")
    assert done.returncode == 75
    assert "still stopping" in done.stderr
    refused = keyop("restart", "writer", "-d", here.data_dir)
    assert refused.returncode == 1
    assert "the supervisor is stopping" in refused.stderr
    up.process.send_signal(signal.SIGTERM)
    assert up.stop() == 0
    assert here.up().stop() == 0  # sweeps what had to be left


def test_a_directory_whose_path_is_longer_than_a_sockets_may_be(here: Site) -> None:
    here.data_dir = here.path / ("deep" * 30) / "data"
    here.sections["storage"]["data_dir"] = str(here.data_dir)
    here.data_dir.parent.mkdir()
    up = here.up()
    assert len(str(here.data_dir / "run" / "supervisor.sock")) > 108
    assert here.rows()["supervisor"]["pid"] == up.pid
    assert keyop("stop", "-d", here.data_dir).returncode == 0
    assert up.process.wait(5) == 0


def test_only_the_owner_may_ask(here: Site) -> None:
    up = here.up()
    status = (here.data_dir / "run" / "supervisor.sock").stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_uid == os.geteuid()
    assert up.stop() == 0


def test_a_socket_that_a_killed_one_left_is_in_nobodys_way(here: Site) -> None:
    up = here.up()
    pids = here.pids()
    kill(up.pid)
    all_gone(pids)
    assert (here.data_dir / "run" / "supervisor.sock").exists()
    assert keyop("stop", "-d", here.data_dir).returncode == 69
    again = here.up()
    assert here.rows()["supervisor"]["pid"] == again.pid
    assert again.stop() == 0


@pytest.mark.parametrize(
    "request_",
    [b"nonsense\n", b"7\n", b'{"command": "dance"}\n', b"{}\n", b'{"command": ["stop"]}\n', b"\xff\xfe\n"],
)
def test_nonsense_is_answered(here: Site, request_: bytes) -> None:
    up = here.up()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(here.data_dir / "run" / "supervisor.sock"))
        connection.sendall(request_)
        assert "error" in json.loads(connection.recv(4096))
    assert up.stop() == 0


def _is_hung_up(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:  # with what it had not read yet
        return True


def test_who_says_nothing_or_too_much_is_hung_up_and_others_are_served(here: Site) -> None:
    up = here.up()
    path = str(here.data_dir / "run" / "supervisor.sock")
    silent = [socket.socket(socket.AF_UNIX) for _ in range(40)]
    try:
        for connection in silent:
            connection.settimeout(10)
            connection.connect(path)
        silent[0].sendall(b"x" * 10_000)
        assert _is_hung_up(silent[0])
        # Those that were one too many are closed at once, the others after a while; then there is room again.
        assert _is_hung_up(silent[-1])
        assert _is_hung_up(silent[1])
        eventually(lambda: ask(DataDirectory(here.data_dir), "status")["pid"] == up.pid)
    finally:
        for connection in silent:
            connection.close()
    assert up.stop() == 0
