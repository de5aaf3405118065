"""Reading the audit log: over rotated files, as it grows, and what a Go program wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from child import DEADLINE_S, ROOT

from keyop.inspection.audit_log import AuditLog, Wanted
from keyop.storage.audit_file import NAME, AuditFile
from keyop.storage.directory import DataDirectory

GO = ROOT / "tests" / "fixtures" / "go-datadir" / "audit"


def record(number: int, **more: str) -> dict[str, str]:
    return {"ts": f"2026-11-24T10:00:{number:02}.5Z", "event": "forward", "message_id": str(number), **more}


def line(number: int, **more: str) -> bytes:
    return json.dumps(record(number, **more)).encode() + b"\n"


def numbers(log: AuditLog) -> list[int]:
    return [int(found["message_id"]) for found in log.records()]


@pytest.fixture
def damaged() -> list[str]:
    return []


@pytest.fixture
def log(tmp_path: Path, damaged: list[str]) -> AuditLog:
    return AuditLog(tmp_path, lambda path, text: damaged.append(text))


def test_oldest_first_over_the_rotated_files(tmp_path: Path, log: AuditLog) -> None:
    file = AuditFile(tmp_path, 100, 20)
    for number in range(30):
        file.append(line(number))
        file.rotate_if_full()
    assert len(list(tmp_path.iterdir())) > 10
    assert [int(found["message_id"]) for found in log.records()] == list(range(30))


def test_it_goes_on_where_the_file_is_rotated(tmp_path: Path, log: AuditLog) -> None:
    assert numbers(log) == []
    file = AuditFile(tmp_path, 150, 10)
    seen = []
    for number in range(20):
        file.append(line(number)[:10] if number == 19 else line(number))
        file.rotate_if_full()
        if number % 5 == 4:
            seen += numbers(log)  # it was rotated more than once meanwhile
    assert seen == list(range(19))
    file.append(line(19)[10:])
    assert numbers(log) == [19]


def test_what_is_no_record_is_said_and_passed_over(tmp_path: Path, log: AuditLog, damaged: list[str]) -> None:
    (tmp_path / NAME).write_bytes(line(0) + b"[]\nhalf a rec\n\n" + line(1) + b'{"event":')
    assert numbers(log) == [0, 1]
    assert damaged == ["[]", "half a rec"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Wanted(), [0, 1, 2]),
        (Wanted(frozenset({"loop_dropped"})), [1]),
        (Wanted(peer="pi"), [1]),
        (Wanted(peer="pi:1"), [2]),
        (Wanted(channel="c"), [0]),
        (Wanted(since=datetime(2026, 11, 24, 10, 0, 1, tzinfo=UTC)), [1, 2]),
        (Wanted(peer="pi", channel="c"), []),
    ],
)
def test_what_is_wanted(wanted: Wanted, found: list[int]) -> None:
    records = [record(0, channel="c"), record(1, event="loop_dropped", peer="pi"), record(2, peer_addr="pi:1")]
    assert [int(each["message_id"]) for each in records if wanted(each)] == found


def test_a_go_programs_log(damaged: list[str]) -> None:
    log = AuditLog(GO, lambda path, text: damaged.append(text))
    assert [found["event"] for found in log.records()]
    assert not damaged
    log.close()


def audit(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "keyop", "audit", "-d", str(data_dir), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False, cwd=ROOT)


def test_the_command(tmp_path: Path) -> None:
    assert audit(tmp_path / "none").returncode == 1
    directory = DataDirectory(tmp_path)
    directory.make()
    none = audit(tmp_path)
    assert (none.returncode, none.stdout) == (0, "")
    assert "there is no audit log: no hub and no client has run here" in none.stderr
    (directory.audit / NAME).write_bytes(line(0, peer="pi\x1b[2J") + line(1, event="policy_violation", detail="why"))
    assert audit(tmp_path).stdout.splitlines() == [
        "2026-11-24T10:00:00.5Z  forward  pi\N{REPLACEMENT CHARACTER}[2J  0",
        "2026-11-24T10:00:01.5Z  policy_violation  1  why",
    ]
    found = audit(tmp_path, "--event", "policy_violation", "--json")
    assert found.stderr == ""
    assert json.loads(found.stdout) == record(1, event="policy_violation", detail="why")
    assert audit(tmp_path, "--since", "earliest").returncode == 2


def test_following(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    directory.make()
    command = [sys.executable, "-m", "keyop", "audit", "-d", str(tmp_path), "-f", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        file = AuditFile(directory.audit, 100, 2)
        for number in range(5):
            file.append(line(number))
            file.rotate_if_full()
            assert json.loads(process.stdout.readline()) == record(number)
        process.terminate()
