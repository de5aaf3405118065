"""The command line, as processes: what it prints, its exit codes, its signals."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import click
import pytest
from child import DEADLINE_S, ROOT, eventually, freeze, kill_writer, writer_pid

from keyop import Messenger, follow
from keyop.cli.commands import commands

GO_DATADIR = Path(__file__).parent / "fixtures" / "go-datadir"

_COMMAND = [sys.executable, "-m", "keyop.cli"]


class Cli:
    """Runs ``keyop`` on one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        clean = {name: value for name, value in os.environ.items() if not name.startswith("KEYOP_")}
        self.env = {**clean, "PYTHONPATH": str(ROOT), "KEYOP_DATA_DIR": str(data_dir)}

    def __call__(
        self, *arguments: object, stdin: str | bytes = b"", code: int = 0, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end; its exit code is to be this one."""
        done = subprocess.run(
            [*_COMMAND, *map(str, arguments)],
            input=stdin if isinstance(stdin, bytes) else stdin.encode(),
            capture_output=True,
            env=self.env if env is None else env,
            timeout=DEADLINE_S,
            check=False,
        )
        result = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
        assert result.returncode == code, result
        assert "Traceback" not in result.stderr, result.stderr
        return result

    def json(self, *arguments: object, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code).stdout)

    def start(self, *arguments: object, stdin: int | None = subprocess.DEVNULL) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*_COMMAND, *map(str, arguments)],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env,
        )

    def payloads(self, channel: str) -> list[Any]:
        return [message.payload for message in follow(self.data_dir, channel, "earliest", wait=False)]


@pytest.fixture
def cli(data_dir: Path) -> Cli:
    return Cli(data_dir)


@pytest.fixture
def running(cli: Cli) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts commands that are killed at the end if they still run."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, stdin: int | None = subprocess.DEVNULL) -> subprocess.Popen[str]:
        started.append(cli.start(*arguments, stdin=stdin))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def stream(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def end(process: subprocess.Popen[str], number: int) -> tuple[int, str, str]:
    """Send a signal, wait; exit code, what was left to read, and standard error."""
    process.send_signal(number)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert "Traceback" not in err, err
    return process.returncode, out, err


# ---- publish


def test_publish_prints_the_id(cli: Cli) -> None:
    message_id = cli("publish", "c", '{"x": 1}', "-t", "com.example.x.v1", "--service-name", "s").stdout.strip()
    (message,) = follow(cli.data_dir, "c", "earliest", wait=False)
    assert (message.id, message.payload_type, message.service_name) == (message_id, "com.example.x.v1", "s")
    assert cli.json("publish", "c", "5")["channel"] == "c"
    cli("publish", "c", "--", "-5")
    assert cli.payloads("c") == [{"x": 1}, 5, -5]


def test_lines_of_input(cli: Cli) -> None:
    done = cli("publish", "c", stdin="".join(f"{number}\n\n" for number in range(1000)) + "1000")
    assert done.stdout == ""
    assert done.stderr == "keyop: 1,001 messages published\n"
    assert cli("publish", "d", stdin="1\n").stderr == "keyop: 1 message published\n"
    assert cli.payloads("c") == list(range(1001))


def test_a_bad_line_stops_behind_what_came_before_it(cli: Cli) -> None:
    done = cli("publish", "c", stdin="1\n\n2\n{3\n4\n", code=1)
    assert "line 4: '{3' is not JSON" in done.stderr
    assert "2 messages published" in done.stderr
    assert cli.payloads("c") == [1, 2]
    done = cli("publish", "c", "--skip-bad", "--json", stdin=b"5\nNaN\n" + b"x" * 11_000_000 + b"\n6\n\xff\n")
    assert json.loads(done.stdout) == {"channel": "c", "published": 2, "skipped": 3}
    assert "line 2" in done.stderr
    assert "line 3: too long" in done.stderr
    assert cli.payloads("c") == [1, 2, 5, 6]


def test_an_envelope_over_the_limit_is_refused_alone(cli: Cli) -> None:
    long = json.dumps("x" * 10_485_700)
    done = cli("publish", "c", "--skip-bad", stdin=f"1\n{long}\n2\n")
    assert "storage.max_message_bytes" in done.stderr
    assert cli.payloads("c") == [1, 2]


def test_progress_on_a_terminal(cli: Cli, tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_text("".join(f"{number}\n" for number in range(1000)))
    ours, theirs = pty.openpty()
    with lines.open() as file, os.fdopen(ours, "rb", buffering=0) as terminal:
        process = subprocess.Popen([*_COMMAND, "publish", "c"], stdin=file, stderr=theirs, env=cli.env)
        os.close(theirs)
        assert process.wait(DEADLINE_S) == 0
        shown = terminal.read(4096).decode()
    assert "publishing [" in shown
    assert "%  250 messages" in shown
    assert shown.endswith("keyop: 1,000 messages published\r\n")


def test_plain_text(cli: Cli) -> None:
    cli("publish", "c", "--raw", stdin='say "hi"\nüber\n')
    assert cli.payloads("c") == ['say "hi"', "über"]


def test_lines_are_published_as_they_come(cli: Cli, running: Callable[..., subprocess.Popen[str]]) -> None:
    process = running("publish", "c", stdin=subprocess.PIPE)
    pipe = stream(process.stdin)
    for number in range(3):
        pipe.write(f"{number}\n")
        pipe.flush()
        eventually(lambda: (cli.data_dir / "channels" / "c").exists())
        eventually(lambda expected=number: cli.payloads("c")[-1:] == [expected])
    code, _, err = end(process, signal.SIGINT)
    assert code == 130
    assert "3 messages published before the interruption" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("publish", "a/b", "1"), "not a channel name: 'a/b'"),
        (("publish", "c.dead-letter", "1"), "written by keyop alone"),
        (("publish", "c", "{"), "not JSON"),
        (("publish", "c", "1", "--timeout", "soon"), "not a duration"),
        (("consume", "c", "--id", "fed-x"), "not a subscriber id"),
        (("tail", "c", "--from", "yesterday"), "none of earliest, latest"),
        (("tial", "c"), "did you mean 'tail'?"),
        (("consume", "c"), "Missing option '--id'"),
    ],
)
def test_what_bad_arguments_get(cli: Cli, arguments: tuple[str, ...], said: str) -> None:
    cli.data_dir.mkdir()
    (cli.data_dir / "channels").mkdir()
    done = cli(*arguments, code=1 if said == "not JSON" else 2)
    assert said in done.stderr
    assert done.stdout == ""


def test_where_there_is_no_data_directory(cli: Cli, tmp_path: Path) -> None:
    without = {name: value for name, value in cli.env.items() if name != "KEYOP_DATA_DIR"}
    assert "KEYOP_DATA_DIR" in cli("channels", code=2, env=without).stderr
    assert "no such directory" in cli("channels", code=1).stderr
    file = tmp_path / "file"
    file.write_text("")
    for command in (["channels"], ["publish", "c", "1"], ["verify"], ["recover"]):
        assert "is a file" in cli(*command, "-d", file, code=1).stderr


def test_a_configuration_file(cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "keyop.yaml"
    config.write_text(f"name: kitchen\nstorage:\n  data_dir: {cli.data_dir}\n  sync_interval_ms: 200\n")
    without = {name: value for name, value in cli.env.items() if name != "KEYOP_DATA_DIR"}
    cli("publish", "c", "1", "-c", config, env=without)
    assert next(iter(follow(cli.data_dir, "c", "earliest", wait=False))).origin == "kitchen"
    status = json.loads(cli("status", "--json", env={**without, "KEYOP_CONFIG": str(config)}).stdout)
    assert (status["mode"], status["sync_interval_ms"]) == ("periodic", 200)
    config.write_text("storage:\n  data_dri: x\n")
    assert "data_dri" in cli("publish", "c", "1", "-c", config, code=2, env=without).stderr


# ---- tail


def test_tail_of_a_copy(cli: Cli) -> None:
    shutil.copytree(GO_DATADIR, cli.data_dir)
    assert len(cli("tail", "bulk").stdout.splitlines()) == 10
    assert len(cli("tail", "bulk", "--from", "earliest").stdout.splitlines()) == 1300
    (line,) = cli("tail", "bulk", "-n", "1", "--json").stdout.splitlines()
    segment = sorted((GO_DATADIR / "channels" / "bulk").iterdir())[-1]
    assert line == segment.read_text().splitlines()[-1]
    assert len(cli("tail", "bulk", "--from", "1048372", "-n", "3").stdout.splitlines()) == 3
    assert cli("tail", "bulk", "--from", "1s").stdout == ""
    assert "there are: alerts, alerts.dead-letter, bulk" in cli("tail", "bluk", code=1).stderr
    assert not (cli.data_dir / "run").exists()


def test_tail_follows_a_channel_that_is_not_there_yet(cli: Cli, running: Callable[..., subprocess.Popen[str]]) -> None:
    with Messenger(cli.data_dir) as m:
        process = running("tail", "c", "-f")
        m.publish("other", 0, payload_type="t")
        for number in range(3):
            m.publish("c", number, payload_type="t")
            assert stream(process.stdout).readline().endswith(f"  t  {number}\n")
        assert end(process, signal.SIGINT) == (130, "", "")


def test_tail_ends_when_nobody_reads(cli: Cli, running: Callable[..., subprocess.Popen[str]]) -> None:
    cli("publish", "c", "1")
    process = running("tail", "c", "-f")
    assert stream(process.stdout).readline().endswith("1\n")
    stream(process.stdout).close()
    process.stdout = None
    assert process.communicate(timeout=DEADLINE_S)[1] == ""
    assert process.returncode == 0


def test_tail_waits_for_one_message(cli: Cli, running: Callable[..., subprocess.Popen[str]]) -> None:
    cli("publish", "c", "1")
    process = running("tail", "c", "-f", "--from", "latest", "-n", "1", "--json")
    with Messenger(cli.data_dir) as m:

        def published() -> bool:
            m.publish("c", 2, payload_type="t")
            return process.poll() is not None

        eventually(published)
    assert json.loads(stream(process.stdout).read())["payload"] == 2


def test_a_terminal_is_not_steered(cli: Cli) -> None:
    with Messenger(cli.data_dir) as m:
        m.publish("c", "a\x9b31mb", payload_type="t\x1b[2J")
    out = cli("tail", "c").stdout
    assert "\x1b" not in out
    assert "\x9b" not in out


# ---- consume


def test_consume_prints_and_goes_on_where_it_stopped(cli: Cli) -> None:
    cli("publish", "c", stdin="1\n2\n3\n")
    first = cli("consume", "c", "--id", "s", "--start", "earliest", "--count", "2")
    envelopes = [json.loads(line) for line in first.stdout.splitlines()]
    assert [envelope["payload"] for envelope in envelopes] == [1, 2]
    assert list(envelopes[0]) == ["v", "id", "ts", "channel", "origin", "payload_type", "payload"]
    assert cli("consume", "c", "--id", "s", "--count", "1", "--payload").stdout == "3\n"
    (report,) = cli.json("subscribers", "c")
    assert (report["id"], report["lag_bytes"], report["lag_messages"]) == ("s", 0, 0)


def test_consume_stops_cleanly(cli: Cli, running: Callable[..., subprocess.Popen[str]]) -> None:
    cli("publish", "c", "1")
    for number in (signal.SIGTERM, signal.SIGINT):
        process = running("consume", "c", "--id", f"s{number}", "--start", "earliest", "--payload")
        assert stream(process.stdout).readline() == "1\n"
        assert end(process, number) == (0, "", "")


def test_what_nobody_reads_is_not_handled(cli: Cli, running: Callable[..., subprocess.Popen[str]]) -> None:
    cli("publish", "c", "1")
    process = running("consume", "c", "--id", "s", "--start", "earliest", "--payload")
    assert stream(process.stdout).readline() == "1\n"
    stream(process.stdout).close()
    process.stdout = None
    cli("publish", "c", "2")
    assert process.communicate(timeout=DEADLINE_S)[1] == ""
    assert process.returncode == 0
    assert cli("consume", "c", "--id", "s", "--count", "1", "--payload").stdout == "2\n"


def test_exec_hands_the_message_over(cli: Cli) -> None:
    cli("publish", "c", '{"x": 1}', "--correlation-id", "cause", "-t", "com.example.x")
    script = 'cat; echo "$KEYOP_CHANNEL $KEYOP_ATTEMPT $KEYOP_TYPE $KEYOP_CORRELATION_ID $KEYOP_OFFSET $KEYOP_DATA_DIR"'
    done = cli("consume", "c", "--id", "s", "--start", "earliest", "--count", "1", "--exec", script)
    message, variables = done.stdout.splitlines()
    assert json.loads(message)["payload"] == {"x": 1}
    assert variables == f"c 1 com.example.x cause 0 {cli.data_dir}"


def test_a_command_publishes_and_inherits_the_correlation_id(cli: Cli) -> None:
    message_id = cli("publish", "c", "1").stdout.strip()
    publish = f"{sys.executable} -m keyop.cli publish out 2"
    cli("consume", "c", "--id", "s", "--start", "earliest", "--count", "1", "--exec", publish)
    (message,) = follow(cli.data_dir, "out", "earliest", wait=False)
    assert (message.payload, message.correlation_id) == (2, message_id)


def test_exit_codes_of_a_command(cli: Cli, running: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """75 waits without using up a retry; any other failure ends in the dead letters, with what it said."""
    later = tmp_path / "later"
    script = f"""
        read p
        test $p = 2 && {{ echo "no $p" >&2; exit 3; }}
        test -e {later} || {{ touch {later}; exit 75; }}
    """
    process = running(
        "consume", "c", "--id", "s", "--start", "earliest", "--payload", "--max-retries", "1", "--exec", script
    )
    cli("publish", "c", stdin="1\n2\n")
    eventually(lambda: (cli.data_dir / "channels" / "c.dead-letter").exists())
    eventually(lambda: cli.payloads("c.dead-letter"))
    code, _, err = end(process, signal.SIGTERM)
    assert code == 0
    assert "attempt 2 failed" in err
    (letter,) = cli.payloads("c.dead-letter")
    assert letter["original"]["payload"] == 2
    assert letter["last_error"].endswith("exit code 3: no 2")


def test_a_dead_letter_counts_as_done(cli: Cli) -> None:
    cli("publish", "c", stdin="1\n2\n")
    consume = ("consume", "c", "--id", "s", "--start", "earliest", "--payload", "--count", "1")
    cli(*consume, "--max-retries", "1", "--exec", "exit 3")
    (letter,) = cli.payloads("c.dead-letter")
    assert letter["original"]["payload"] == 1
    assert cli(*consume).stdout == "2\n"


def test_a_large_message_for_a_command_that_does_not_read(cli: Cli) -> None:
    cli("publish", "c", json.dumps("x" * 100_000))
    count = ["consume", "c", "--start", "earliest", "--count", "1"]
    assert cli(*count, "--id", "a", "--exec", "true").stdout == ""
    assert len(cli(*count, "--id", "b", "--payload", "--exec", "cat").stdout) == 100_003


def test_a_busy_subscriber(cli: Cli, running: Callable[..., subprocess.Popen[str]]) -> None:
    cli("publish", "c", "1")
    process = running("consume", "c", "--id", "s", "--start", "earliest")
    assert stream(process.stdout).readline()
    assert f"pid {process.pid}" in cli("consume", "c", "--id", "s", code=1).stderr
    (report,) = cli.json("subscribers")
    assert report["pid"] == process.pid


# ---- status, verify, recover, checkpoint


def test_status(cli: Cli) -> None:
    with Messenger(cli.data_dir) as m:
        m.publish("c", 1, payload_type="t")
        m.subscribe("c", "s", lambda message: None)
        status = cli.json("status")
        assert status["running"]
        assert status["writer_pid"] == writer_pid(cli.data_dir)
        assert (status["state"], status["mode"], status["at_rest"]) == ("open", "strict", False)
        (process,) = status["attached"]
        assert (process["pid"], process["role"]) == (os.getpid(), "subscriber")
        assert process["subscriptions"][0]["channel"] == "c"
        assert f"pid {os.getpid()}  subscriber  c/s" in cli("status").stdout
    kill_writer(cli.data_dir)
    status = cli.json("status", code=3)
    assert status["contents"]["channels"] == 1
    assert (status["running"], status["writer_pid"], status["state"]) == (False, None, "not running")
    assert not status["at_rest"]
    cli("recover")
    assert cli.json("status", code=3)["at_rest"]


def test_status_says_how_much_is_there_and_who_is_furthest_behind(cli: Cli) -> None:
    with Messenger(cli.data_dir) as m:
        for channel, id in (("a", "s"), ("b", "s"), ("b", "t")):
            m.subscribe(channel, id, lambda message: None)
        m.publish("a", 1, payload_type="t")
        m.drain(timeout=20)
        m.unsubscribe("b", "s")
        m.publish("b", 2, payload_type="t")
        m.drain(timeout=20)
    contents = cli.json("status")["contents"]
    assert (contents["channels"], contents["subscribers"], contents["behind"], contents["furthest"]) == (2, 2, 0, None)
    assert "2 channels, " in cli("status").stdout
    cli("publish", "b", "3")
    contents = cli.json("status")["contents"]
    end = (cli.data_dir / "channels" / "b" / "00000000000000000000.jsonl").stat().st_size
    behind = end - int((cli.data_dir / "subscribers" / "b" / "t.offset").read_text())
    assert behind > 0
    assert contents["furthest"] == {"channel": "b", "id": "t", "lag_bytes": behind}
    assert f"; 2 subscribers, 1 behind, most b/t with {behind} B" in cli("status").stdout


def test_verify(cli: Cli) -> None:
    shutil.copytree(GO_DATADIR, cli.data_dir)
    assert cli("verify").stdout.startswith("clean, 0 notes: 3 channels")
    (cli.data_dir / "channels" / "alerts" / "x.txt").write_text("")
    assert cli("verify", code=1).stdout.startswith("problem: ")
    report = cli.json("verify", code=1)
    assert not report["clean"]
    assert report["problems"][0]["kind"] == "foreign"


def test_recover(cli: Cli) -> None:
    with Messenger(cli.data_dir) as m:
        m.publish("c", 1, payload_type="t")
    refused = cli("recover", code=69)
    assert f"pid {writer_pid(cli.data_dir)}" in refused.stderr
    assert "keyop checkpoint" in refused.stderr
    kill_writer(cli.data_dir)
    assert cli("recover").stdout.startswith("at rest: ")
    assert writer_pid(cli.data_dir) is None
    assert cli.payloads("c") == [1]


def test_checkpoint(cli: Cli) -> None:
    with Messenger(cli.data_dir) as m:
        m.publish("c", 1, payload_type="t")
        before = writer_pid(cli.data_dir)
        result = cli.json("checkpoint")
        assert (result["at_rest"], result["writer_pid"], result["attached"]) == (True, before, 1)
        assert cli.json("status")["at_rest"]
    kill_writer(cli.data_dir)
    assert cli.json("checkpoint")["writer_runs"] is False


def test_a_checkpoint_that_takes_too_long(cli: Cli) -> None:
    cli("publish", "c", "1")
    pid = writer_pid(cli.data_dir)
    assert pid is not None
    freeze(pid)
    try:
        said = cli("checkpoint", "--timeout", "300ms", code=75).stderr
    finally:
        os.kill(pid, signal.SIGCONT)
    assert f"the writer (pid {pid}) has not brought the journal to its places within 0.3 s" in said


def test_reading_starts_and_makes_nothing(cli: Cli) -> None:
    shutil.copytree(GO_DATADIR, cli.data_dir)
    before = sorted(path for path in cli.data_dir.rglob("*"))
    for command in (["channels", "--count"], ["subscribers"], ["verify"], ["tail", "alerts"]):
        cli(*command)
    cli("status", code=3)
    assert sorted(path for path in cli.data_dir.rglob("*")) == before
    (report,) = cli.json("subscribers", "alerts")
    assert (report["id"], report["lag_messages"]) == ("notifier", 0)
    channels = {report["channel"]: report for report in cli.json("channels", "--count")}
    assert channels["bulk"]["records"] == 1300
    assert channels["alerts"]["subscribers"] == 1


@pytest.mark.parametrize("role", ["hub", "client"])
def test_a_role_that_is_switched_off_is_not_run(cli: Cli, tmp_path: Path, role: str) -> None:
    config = tmp_path / "keyop.yaml"
    config.write_text(f"storage: {{data_dir: {cli.data_dir}}}\n{role}: {{enabled: false}}\n")
    done = cli(role, "-c", config, code=2)
    assert f"{config}: {role}.enabled is false" in done.stderr
    assert not cli.data_dir.exists()


def test_an_empty_type_is_refused(cli: Cli) -> None:
    assert "payload_type is ''" in cli("publish", "c", "1", "--type", "", code=1).stderr


# ---- the writer, and the rest


def test_a_writer_in_the_foreground(cli: Cli, running: Callable[..., subprocess.Popen[str]]) -> None:
    cli("publish", "c", "1")
    on_demand = writer_pid(cli.data_dir)
    process = running("writer", "--log-format", "json")
    # The one on demand leaves, and this very process becomes the writer.
    eventually(lambda: writer_pid(cli.data_dir) == process.pid)
    assert on_demand != process.pid
    cli("publish", "c", "2")
    assert cli.json("status")["supervised"]
    assert "foreground" in cli("writer", "--idle-exit", "1s", code=69).stderr
    assert "foreground" in cli("writer", code=69).stderr
    code, _, err = end(process, signal.SIGTERM)
    assert code == 0
    events = [json.loads(line)["event"] for line in err.splitlines()]
    assert events[0] == "open"
    assert events[-1] == "leaving"
    assert cli.json("status", code=3)["at_rest"]
    assert cli.payloads("c") == [1, 2]


def test_a_writer_leaves_when_nobody_is_attached(cli: Cli) -> None:
    began = time.monotonic()
    assert "nobody is attached" in cli("writer", "--idle-exit", "100ms").stderr
    cli("publish", "c", "1")
    before = writer_pid(cli.data_dir)
    done = cli("writer", "--idle-exit", "100ms", "--log-format", "json")  # it takes over from the one on demand
    assert f'"pid": {before}' not in done.stderr
    assert json.loads(done.stderr.splitlines()[0])["event"] == "open"
    assert writer_pid(cli.data_dir) is None
    assert not cli.json("status", code=3)["supervised"]
    assert time.monotonic() - began < 10


def test_interrupted_before_it_has_begun(cli: Cli, tmp_path: Path) -> None:
    """Its own modules are imported for a tenth of a second: Ctrl-C says nothing of that."""
    (tmp_path / "click.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    cli.env["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{cli.env['PYTHONPATH']}"
    assert cli("channels", code=130).stderr == ""


def test_version_and_help(cli: Cli) -> None:
    assert cli("version").stdout == cli("--version").stdout
    assert set(cli.json("version")) == {"version", "python", "platform"}
    assert "Exit codes:" in cli("--help").stdout
    for name in commands.list_commands(None):  # type: ignore[arg-type]
        command = commands.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        assert command.help is not None
        assert "Examples:" in command.help


def test_the_lists_of_commands_are_whole_in_80_columns(cli: Cli) -> None:
    cli.env["COLUMNS"] = "80"
    context = click.Context(commands)
    names = commands.list_commands(context)
    groups = [name for name in names if isinstance(commands.get_command(context, name), click.Group)]
    assert "dead-letter" in groups
    for words in ([], *([name] for name in groups)):
        text = cli(*words, "--help").stdout.partition("Options:")[2]
        assert "..." not in text
        assert max(map(len, text.splitlines())) <= 80
    listed = re.findall(r"^  ([a-z-]+)  +[A-Z]", cli("--help").stdout, re.MULTILINE)
    assert listed == names


def test_completion(cli: Cli) -> None:
    cli("publish", "orders", "1")
    cli("consume", "orders", "--id", "billing", "--start", "earliest", "--count", "1")

    def complete(words: str) -> list[str]:
        env = {**cli.env, "_KEYOP_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        return [line.partition(",")[2] for line in cli(env=env).stdout.split()]

    assert complete("keyop che") == ["checkpoint"]
    assert complete("keyop tail o") == ["orders"]
    assert complete("keyop consume orders --id ") == ["billing"]
    for shell in ("bash", "zsh", "fish"):
        assert "_KEYOP_COMPLETE" in cli("completion", shell).stdout


def test_what_a_command_does_not_import(cli: Cli) -> None:
    cli("publish", "c", "1")
    for command, foreign in ((["version"], ("keyop.storage", "json", "msgspec")), (["channels"], ("pydantic", "yaml"))):
        done = cli(*command, env={**cli.env, "PYTHONPROFILEIMPORTTIME": "1"})
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert imported.isdisjoint(foreign), imported & set(foreign)
