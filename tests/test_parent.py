"""The parent of a set of processes: order, restarts, ends, and what is left when it is itself killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from child import ROOT, eventually
from parents import READY, SLOW, STUBBORN, WAIT, ParentProcess, kill, lives, role

from keyop.processes.backoff import HEALTHY_S, LONGEST_S, Backoff
from keyop.processes.output import Output

pytestmark = pytest.mark.alone


def _order(log: str, words: str) -> list[str]:
    """The names in the lines that have these words."""
    return [line.partition("] ")[2].split()[0] for line in log.splitlines() if words in line]


# ---- start and stop


def test_ranks_start_from_the_lowest_up_and_stop_from_the_highest_down() -> None:
    with ParentProcess(role("c", rank=2), role("a"), role("b/1", rank=1), role("b/2", rank=1)) as parent:
        parent.wait_for("c is ready")
        parent.signal(signal.SIGTERM)
        assert parent.end() == 0
    started, left = _order(parent.errors, "is ready"), _order(parent.errors, "has left")
    assert (started[0], set(started[1:3]), started[3]) == ("a", {"b/1", "b/2"}, "c")
    assert (left[0], set(left[1:3]), left[3]) == ("c", {"b/1", "b/2"}, "a")


def test_the_next_rank_waits_until_the_one_below_is_ready() -> None:
    with ParentProcess(role("a", SLOW), role("b", rank=1)) as parent:
        assert parent.states()["b"] == ["stopped", None, 0]
        parent.signal(signal.SIGTERM)  # in the middle of the start
        assert parent.end() == 0
    assert "b is ready" not in parent.errors


def test_who_does_not_leave_in_time_is_killed_and_the_others_have_time_as_well() -> None:
    with ParentProcess(role("a"), role("b", STUBBORN, rank=1), grace_s=0.6) as parent:
        parent.wait_for("b is ready")
        parent.signal(signal.SIGTERM)
        assert parent.end() == 0
    assert "b did not leave in time and is killed" in parent.errors
    assert "a did not" not in parent.errors


def test_the_second_sigterm_ends_all_at_once() -> None:
    with ParentProcess(role("a", STUBBORN), role("b", STUBBORN, rank=1), grace_s=3600) as parent:
        parent.wait_for("b is ready")
        pids = [parent.pid_of(name) for name in ("a", "b")]
        parent.signal(signal.SIGTERM)
        parent.wait_for("stopping")
        parent.signal(signal.SIGTERM)
        assert parent.end() == 0
    assert not any(map(lives, pids))


# ---- what cannot start


def test_who_cannot_start_ends_all_with_its_last_lines_and_its_code() -> None:
    fails = "import sys\nprint('one')\nprint('the port is taken', file=sys.stderr)\nsys.exit(69)"
    with ParentProcess(role("a"), role("b", fails, rank=1)) as parent:
        assert parent.end() == 69
    last = parent.errors.splitlines()[-3:]
    assert last[0].endswith("b cannot start (exit code 69)")
    assert sorted(last[1:]) == ["  one", "  the port is taken"]
    assert "a has left" in parent.errors


@pytest.mark.parametrize("command", [["/no/such/program"], ["/etc/passwd"]])
def test_a_command_that_cannot_be_run(command: list[str]) -> None:
    with ParentProcess({**role("a"), "command": command}) as parent:
        assert parent.end() == 1
    assert f"a cannot start: [Errno {2 if 'no' in command[0] else 13}]" in parent.errors.splitlines()[-1]


def test_one_that_leaves_without_having_been_ready_could_not_start() -> None:
    with ParentProcess(role("a", "pass")) as parent:
        assert parent.end() == 1
    assert "a cannot start (exit code 0)" in parent.errors


# ---- what dies


def test_what_dies_is_started_again_and_the_others_are_left_alone() -> None:
    with ParentProcess(role("a"), role("b", rank=1)) as parent:
        parent.wait_for("b is ready")
        a, b = parent.pid_of("a"), parent.pid_of("b")
        kill(a)
        parent.wait_for("a is ready", 2)
        assert parent.pid_of("a") != a
        assert parent.states()["a"][2] == 1
        assert parent.pid_of("b") == b
        parent.signal(signal.SIGTERM)
        assert parent.end() == 0
    assert "a ended (killed by SIGKILL) after" in parent.errors


def test_what_keeps_dying_is_tried_less_and_less_often_and_stopped_in_a_pause(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    code = f"import os, sys\nif os.path.exists({str(broken)!r}): sys.exit('no')\n{WAIT}"
    with ParentProcess(role("a", code)) as parent:
        parent.wait_for("a is ready")
        broken.touch()
        kill(parent.pid_of("a"))
        parent.wait_for(r"a cannot start \(exit code 1\); the next one is started in 0.8 s")
        assert parent.states()["a"][0] == "pausing"
        parent.signal(signal.SIGTERM)
        assert parent.end() == 0


def test_a_restart_by_hand_ends_a_pause(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    code = f"import os, sys\nif os.path.exists({str(broken)!r}): sys.exit('no')\n{WAIT}"
    with ParentProcess(role("a", code), role("b")) as parent:
        parent.wait_for("a is ready").wait_for("b is ready")
        broken.touch()
        kill(parent.pid_of("a"))
        parent.wait_for("started in 1.6 s")
        broken.unlink()
        parent.say("restart a")
        parent.wait_for("a is ready", 2, timeout=1.5)


def test_pauses_grow_to_half_a_minute_and_begin_anew_after_good_work() -> None:
    backoff = Backoff()
    pauses = [backoff.next_s(0.0) for _ in range(100)]
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_S
    assert backoff.next_s(HEALTHY_S - 0.1) == LONGEST_S
    assert backoff.next_s(HEALTHY_S) == 0.1


# ---- other roles


def test_replacing_roles_touches_only_what_differs() -> None:
    with ParentProcess(role("a"), role("b"), role("c")) as parent:
        parent.wait_for("is ready", 3)
        a, b = parent.pid_of("a"), parent.pid_of("b")
        roles = [role("a", settings="others, which make no difference"), role("b", rank=1), role("d")]
        assert parent.ask(f"replace {json.dumps(roles)}") == ["c is stopped", "b is started again", "d is started"]
        parent.wait_for("b is ready", 2).wait_for("d is ready").wait_for("c has left")
        states = parent.states()
        assert sorted(states) == ["a", "b", "d"]
        assert states["a"][1] == a
        assert states["b"][1] != b


def test_a_role_that_comes_back_while_it_leaves() -> None:
    with ParentProcess(role("a"), role("b", STUBBORN), grace_s=0.5) as parent:
        parent.wait_for("is ready", 2)
        assert parent.ask(f"replace {json.dumps([role('a')])}") == ["b is stopped"]
        assert parent.ask(f"replace {json.dumps([role('a'), role('b')])}") == ["b is started again"]
        parent.wait_for("b is ready", 2)
        assert parent.states()["b"][0] == "running"


def test_settings_come_in_a_file_and_variables_in_the_environment() -> None:
    code = f"import os, sys\nfd = int(sys.argv[1][12:])\nprint(os.read(fd, 99), os.environ['X'], flush=True)\n{WAIT}"
    with ParentProcess(role("a", code, settings="the settings", environment={"X": "y"})) as parent:
        parent.wait_for("is ready").wait_for(r"a \| b'the settings' y")


# ---- no orphans, no leaks


def test_nobody_outlives_a_parent_that_is_killed_not_even_who_ignores_sigterm() -> None:
    with ParentProcess(role("a"), role("b", STUBBORN)) as parent:
        parent.wait_for("is ready", 2)
        pids = [parent.pid_of(name) for name in ("a", "b")]
        assert all(map(lives, pids))
        parent.kill()
        eventually(lambda: not any(map(lives, pids)))


def _somebody_has(word: str) -> bool:
    """Whether this stands on the command line of any process; a child that has not come to exec has its parent's."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes() and lives(int(path.parent.name)):
                return True
        except OSError:
            continue
    return False


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 8])
def test_at_no_moment_of_the_start_either(count: int) -> None:
    word = f"marked-{os.getpid()}-{count}"
    with ParentProcess(*(role(f"r{number}", f"'{word}'\n{WAIT}") for number in range(10))) as parent:
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        eventually(lambda: len(children.read_text().split()) >= count)
        parent.kill()
        eventually(lambda: not _somebody_has(word))


def test_nor_do_the_children_of_a_child_that_is_a_parent_itself() -> None:
    inner = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from keyop.readiness import say_ready\n"
        "from keyop.processes.output import Output\n"
        "from keyop.processes.parent import Parent\n"
        "from keyop.processes.role import Role\n"
        f"parent = Parent([Role(name='inner', command=(sys.executable, '-I', '-S', '-c', {STUBBORN!r}))], Output())\n"
        "def tell():\n"
        "    print('inner pid', parent.services['inner'].child.pid, flush=True)\n"
        "    say_ready()\n"
        "parent.on_change = tell\n"
        "sys.exit(parent.run())"
    )
    outer = {**role("outer"), "command": [sys.executable, "-c", inner]}
    with ParentProcess(outer) as parent:
        parent.wait_for("outer is ready")
        pid = int(parent.errors.partition("inner pid ")[2].split()[0])
        assert lives(pid)
        parent.kill()
        eventually(lambda: not lives(pid))


def test_two_hundred_restarts_leave_neither_descriptors_nor_memory_behind() -> None:
    """The child is a trivial one, so that it is quick: what is looked for is in the parent."""
    with ParentProcess(role("a")) as parent:
        parent.wait_for("a is ready")

        def restart(times: int) -> tuple[int, int]:
            for _ in range(times):
                count = parent.states()["a"][2] + 1
                parent.say("restart a")
                eventually(lambda count=count: parent.states()["a"][::2] == ["running", count])
            descriptors, resident_kib = parent.ask("usage")
            return descriptors, resident_kib

        before = restart(20)
        after = restart(180)
        assert after[0] == before[0]
        assert after[1] - before[1] < 512
        parent.signal(signal.SIGTERM)
        assert parent.end() == 0


# ---- output


def _written(path: Path, log_format: str) -> list[str]:
    with path.open("wb") as file:
        output = Output(log_format, "supervisor", file.fileno())
        output.child_line("hub", 7, '{"message":"mine"}')
        output.child_line("billing/1", 8, "printed")
        output.warning("a sentence")
    return path.read_text().splitlines()


def test_text_has_the_role_before_each_line(tmp_path: Path) -> None:
    lines = _written(tmp_path / "log", "text")
    assert lines[:2] == ['hub | {"message":"mine"}', "billing/1 | printed"]
    assert lines[2].endswith(f"warning supervisor[{os.getpid()}] a sentence")


def test_json_of_children_passes_through_and_their_prints_become_json(tmp_path: Path) -> None:
    lines = _written(tmp_path / "log", "json")
    assert lines[0] == '{"message":"mine"}'
    printed, own = map(json.loads, lines[1:])
    assert (printed["logger"], printed["pid"], printed["message"]) == ("keyop.billing/1", 8, "printed")
    assert (own["logger"], own["level"], own["message"]) == ("keyop.supervisor", "warning", "a sentence")


def test_a_line_without_end_is_cut_and_bytes_that_are_no_text_pass() -> None:
    code = f"import os\nos.write(1, b'x' * 100_000)\nos.write(2, b'\\xff\\n')\n{WAIT}"
    with ParentProcess(role("a", code)) as parent:
        parent.wait_for("a is ready").wait_for("\ufffd")
        longest = max(len(line) for line in parent.errors.splitlines())
        assert 16_000 < longest < 100_000
        assert "x" * 16_384 in parent.errors


@contextmanager
def _talkative(done: Path) -> Iterator[subprocess.Popen[str]]:
    """A parent whose child has written more than pipe and memory hold, while nobody read it."""
    code = f"{READY}\nfor _ in range(40_000): print('x' * 60, flush=True)\nopen({str(done)!r}, 'w')\ntime.sleep(1000)"
    source = (
        "import sys\nfrom keyop.processes.output import Output\nfrom keyop.processes.parent import Parent\n"
        "from keyop.processes.role import Role\n"
        "sys.exit(Parent([Role(name='a', command=(sys.executable, '-I', '-S', '-c', sys.argv[1]))], Output()).run())"
    )
    command = [sys.executable, "-c", source, code]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as parent:
        eventually(done.exists)
        yield parent


def test_what_nobody_reads_in_time_is_dropped_and_counted(tmp_path: Path) -> None:
    with _talkative(tmp_path / "done") as parent:
        assert parent.stderr is not None
        said = next(line for line in iter(parent.stderr.readline, "") if "were dropped" in line)
        assert 10_000 < int(said.split("] ")[1].split()[0]) < 40_000
        parent.terminate()
        assert "a has left" in parent.stderr.read()
        assert parent.wait(20) == 0


def test_what_nobody_reads_at_all_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with _talkative(tmp_path / "done") as parent:
        parent.terminate()
        assert parent.wait(20) == 0
