"""``keyop up``: everything that a configuration asks for, as processes that are looked after."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from child import ROOT, eventually, writer_pid
from conftest import objects_of
from federation import Process, free_port
from parents import kill, lives
from supervised import Site, all_gone, keyop, nothing_left, site
from writers import Writer

from keyop import Messenger, follow

pytestmark = pytest.mark.alone


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as there:
        yield there


@pytest.fixture
def full(here: Site) -> Site:
    """With everything in it."""
    here.with_hub()
    here.with_client()
    here.with_worker(name="clerks", only=["clerk"])
    here.with_worker(only=["book"])
    return here


def test_it_starts_all_in_order_and_stops_them_in_reverse(full: Site) -> None:
    up = full.up()
    pids = full.pids()
    assert list(pids) == ["supervisor", "writer", "hub", "client", "clerks", "shop"]
    full.publish("orders", 1)
    up.wait_for("clerks | clerk 1").wait_for("shop | book 1")
    assert up.stop() == 0
    ready = [line.split()[3] for line in up.lines if "is ready" in line]
    left = [line.split()[3] for line in up.lines if "has left" in line]
    assert (ready[0], set(ready[1:3]), set(ready[3:])) == ("writer", {"hub", "client"}, {"clerks", "shop"})
    assert (set(left[:2]), set(left[2:4]), left[4]) == ({"clerks", "shop"}, {"hub", "client"}, "writer")
    all_gone(pids)
    nothing_left(full.data_dir)


@pytest.mark.parametrize("role", ["writer", "hub", "client", "clerks"])
def test_what_is_killed_is_started_again_and_works(full: Site, role: str) -> None:
    up = full.up()
    before = full.pids()
    full.publish("orders", 1)
    up.wait_for("clerk 1")
    kill(before[role])
    up.wait_for(f"{role} ended (killed by SIGKILL)").wait_for(f"{role} is ready", 2)
    rows = full.rows()
    assert {name for name, row in rows.items() if row["pid"] != before[name]} == {role}
    assert rows[role]["restarts"] == 1
    full.publish("orders", 2)
    up.wait_for("clerk 2").wait_for("book 2")
    assert up.log.count("clerk 1") == 1
    assert up.stop() == 0
    nothing_left(full.data_dir)


def test_two_processes_share_an_apps_work(here: Site) -> None:
    here.with_worker(name="clerks", processes=2, only=["clerk"])
    up = here.up()
    assert list(here.pids()) == ["supervisor", "writer", "clerks/1", "clerks/2"]
    here.publish("orders", *range(20))
    eventually(lambda: up.log.count("| clerk ") == 20)
    assert "clerks/1 | clerk" in up.log
    assert "clerks/2 | clerk" in up.log
    assert up.stop() == 0


def test_metrics_and_dashboard_are_served(here: Site) -> None:
    for section in ("metrics", "dashboard"):
        here.sections[section] = {"enabled": True, "listen_addr": f"127.0.0.1:{free_port()}"}
    up = here.up()
    assert list(here.pids()) == ["supervisor", "writer", "metrics", "dashboard"]
    for section, path in (("metrics", "/metrics"), ("dashboard", "/")):
        with urllib.request.urlopen(f"http://{here.sections[section]['listen_addr']}{path}", timeout=5) as answer:
            assert answer.status == 200
            assert b"keyop" in answer.read()
    assert up.stop() == 0
    nothing_left(here.data_dir)


def test_nobody_outlives_it_when_it_is_killed_and_the_next_one_starts(full: Site) -> None:
    up = full.up()
    pids = full.pids()
    full.publish("orders", 1)
    up.wait_for("clerk 1")
    up.kill()
    all_gone(pids)
    again = full.up()
    full.publish("orders", 2)
    again.wait_for("clerk 2")
    assert again.stop() == 0
    nothing_left(full.data_dir)


def test_restarts_of_the_writer_leave_nothing_in_shared_memory(here: Site) -> None:
    up = here.up()
    with Messenger(str(here.data_dir)) as messenger:
        messenger.publish("a", 0, payload_type="t")
        before = objects_of(here.data_dir)
        for number in range(1, 6):
            pid = writer_pid(here.data_dir)
            assert pid is not None
            kill(pid)
            messenger.publish("a", number, payload_type="t")
            assert len(objects_of(here.data_dir)) == len(before)
    assert up.stop() == 0
    nothing_left(here.data_dir)


def test_with_the_configuration_of_the_demonstration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hosts, as ``./scripts/demo`` sets them up, each under a supervisor of its own."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from demonstration import ALERTS
    from demonstration.hosts import CLIENT, HUB, commands, configure

    for command in commands():
        subprocess.run([sys.executable, "-m", "keyop", *command], cwd=tmp_path, check=True, capture_output=True)
    configure(tmp_path, "127.0.0.1:1")
    there = ("env", "-C", str(tmp_path))  # its paths are relative
    first = Process("up", tmp_path / f"{HUB}.yaml", prefix=there).wait_for("all is up")
    try:
        configure(tmp_path, first.log.partition("listening at ")[2].split()[0])
        second = Process("up", tmp_path / f"{CLIENT}.yaml", prefix=there).wait_for(f"connected to {HUB}")
        try:
            with Messenger(str(tmp_path / CLIENT)) as messenger:
                messenger.publish(ALERTS, {"text": "hot"}, payload_type="t")
            eventually(lambda: list(follow(tmp_path / HUB, ALERTS, "earliest", wait=False)))
        finally:
            assert second.stop() == 0
    finally:
        assert first.stop() == 0
    nothing_left(tmp_path / HUB)
    nothing_left(tmp_path / CLIENT)


# ---- what cannot start


def test_a_port_in_use_is_told_in_the_hubs_own_words(full: Site) -> None:
    with socket.create_server(("127.0.0.1", full.port)):
        up = full.start()
        assert up.process.wait(20) == 1
    up.stop()
    assert "hub cannot start (exit code 1)" in up.log
    assert "another program listens there" in up.lines[-1]
    nothing_left(full.data_dir)


def test_a_worker_whose_module_is_not_there(here: Site) -> None:
    here.with_worker()
    here.sections["workers"][0]["app"] = "nowhere:app"
    up = here.start()
    up.process.wait(20)
    assert up.stop() == 1
    assert "nowhere cannot start (exit code 1)" in up.log
    assert "there is no module nowhere" in up.lines[-1]


def test_a_second_one_is_refused(here: Site) -> None:
    up = here.up()
    second = keyop("up", "-c", here.config_path)
    assert second.returncode == 69
    assert f"(pid {up.pid}); `keyop stop` ends a supervisor" in second.stderr
    assert up.stop() == 0


def test_a_writer_in_the_foreground_is_in_the_way(here: Site) -> None:
    here.write_config()
    foreground = subprocess.Popen(
        [sys.executable, "-m", "keyop", "writer", "-d", str(here.data_dir)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    with foreground:
        eventually(lambda: writer_pid(here.data_dir) == foreground.pid)
        refused = keyop("up", "-c", here.config_path)
        assert refused.returncode == 69
        assert f"(pid {foreground.pid})" in refused.stderr
        foreground.terminate()


def test_a_writer_that_was_started_on_demand_makes_room(here: Site) -> None:
    with Writer(here.data_dir, on_demand=True) as writer, Messenger(str(here.data_dir)) as messenger:
        messenger.publish("orders", 1, payload_type="t")
        up = here.up()
        assert writer.end() == 0
        messenger.publish("orders", 2, payload_type="t")
        messenger.close()
        assert up.stop() == 0


def test_without_a_configuration_the_way_to_one_is_told(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "keyop", "up"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "`keyop init` writes one" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_root_does_not_run_in_somebody_elses_directory(here: Site) -> None:
    here.data_dir.mkdir()
    os.chown(here.data_dir, 12345, 12345)
    up = here.start()
    up.process.wait(20)
    assert up.stop() == 1
    assert "belongs to user 12345, and this is root" in up.log
    assert list(here.data_dir.iterdir()) == []


# ---- signals


def test_sigterm_at_any_moment_of_the_start_leaves_nothing(full: Site) -> None:
    for moment in ("writer | ", "writer is ready", "hub | ", "client is ready", "handles orders"):
        up = full.start().wait_for(moment)
        up.process.send_signal(signal.SIGTERM)
        assert up.stop() == 0
        nothing_left(full.data_dir)


def test_two_sigterms_end_it_at_once_even_where_a_handler_hangs(here: Site) -> None:
    (here.path / "shop.py").write_text(
        "import keyop, time\napp = keyop.App()\n"
        "@app.on('orders', id='clerk', start='earliest')\n"
        "def clerk(msg):\n    print('hangs', flush=True)\n    time.sleep(3600)\n"
    )
    here.with_worker()
    up = here.up()
    pids = here.pids()
    here.publish("orders", 1)
    up.wait_for("hangs")
    up.process.send_signal(signal.SIGTERM)
    up.wait_for("finishing what is in hand")
    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(5) == 0
    all_gone(pids)
    # What had to be left is swept by the next one.
    assert here.up().stop() == 0
    nothing_left(here.data_dir)


def test_a_handler_that_hangs_costs_the_grace_and_no_more(here: Site) -> None:
    (here.path / "shop.py").write_text(
        "import keyop, time\napp = keyop.App()\n"
        "@app.on('orders', id='clerk', start='earliest')\n"
        "def clerk(msg):\n    print('hangs', flush=True)\n    time.sleep(3600)\n"
    )
    here.with_worker()
    here.write_config()
    up = subprocess.Popen(
        [sys.executable, "-m", "keyop", "up", "-c", str(here.config_path), "--grace", "1.5"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{here.path}"},
        stderr=subprocess.PIPE,
        text=True,
    )
    with up:
        eventually(lambda: here.data_dir.exists() and keyop("status", "-d", here.data_dir).returncode == 0)
        here.publish("orders", 1)
        assert up.stderr is not None
        lines = iter(up.stderr.readline, "")
        assert any("hangs" in line for line in lines)
        up.terminate()
        rest = list(lines)
        assert up.wait(10) == 0
    assert any("still runs" in line for line in rest)
    assert any("writer has left (exit code 0)" in line for line in rest)


@pytest.mark.parametrize("ignored", [False, True])
def test_the_end_of_its_terminal_ends_it_unless_told_by_nohup(here: Site, ignored: bool) -> None:
    """SIGHUP alone means: read the file again. With a terminal that is gone it means what it always has."""
    import pty

    config = here.write_config()
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
        os.environ["PYTHONPATH"] = str(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "keyop", "up", "-c", str(config)])
    try:
        heard = b""
        while b"all is up" not in heard:
            heard += os.read(terminal, 4096)
        pids = here.pids()
        os.close(terminal)
        if ignored:
            kill(pids["writer"])  # it is well, and looks after what has died
            eventually(lambda: here.rows()["writer"]["restarts"] == 1)
            pids = here.pids()
            kill(pid, signal.SIGTERM)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        all_gone(pids)
    finally:
        if lives(pid):
            kill(pid)
