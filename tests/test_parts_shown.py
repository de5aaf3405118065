"""What commands and statistics say of a subscriber whose work several processes share."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import end_writer
from inbox import DEADLINE_S, Inbox
from test_parts import customer, divided, end, filed, keys_of, publish

from keyop import Messenger
from keyop.cli.status import command as status
from keyop.cli.subscribers import command as subscribers
from keyop.inspection import survey
from keyop.inspection.verification import verify
from keyop.storage.directory import DataDirectory
from keyop.storage.offset_file import write_parts


def report_of(data_dir: Path) -> survey.SubscriberReport:
    (report,) = survey.subscribers(DataDirectory(data_dir), "c")
    return report


@pytest.mark.parametrize("held", [(1, 2), (2,), (1,), ()])
def test_the_part_that_is_furthest_behind_counts(data_dir: Path, held: tuple[int, ...]) -> None:
    least = divided(data_dir)
    with Messenger(data_dir) as m:
        stuck = Inbox(lambda _message: blocked.get(timeout=DEADLINE_S))
        blocked = Inbox().messages
        for number in held:
            m.subscribe("c", "s", stuck if number == 1 else Inbox(), part=(number, 2), key=customer)
        if 1 in held:
            least = stuck.next().offset
        report = report_of(data_dir)
        assert (report.offset, report.parts, report.parts_held) == (least, 2, len(held))
        assert report.lag_bytes == end(data_dir) - least
        assert report.pid == (os.getpid() if held else None)
        for _ in range(20):
            blocked.put(None)  # type: ignore[arg-type]


def test_what_is_printed(data_dir: Path) -> None:
    divided(data_dir, parts=3)
    with Messenger(data_dir) as m:
        for number in (1, 3):
            m.subscribe("c", "s", print, part=(number, 3), key=customer)
        assert "2 of 3 parts" in CliRunner().invoke(subscribers, ["-d", str(data_dir)]).output
        (row,) = json.loads(CliRunner().invoke(subscribers, ["-d", str(data_dir), "--json"]).output)
        assert (row["parts"], row["parts_held"]) == (3, 2)
        output = CliRunner().invoke(status, ["-d", str(data_dir)]).output
        assert "c/s (part 1 of 3), c/s (part 3 of 3)" in output
        assert [(each.part, each.parts) for each in m.stats().subscribers] == [(1, 3), (3, 3)]
        m.subscribe("c", "plain", print)
        assert [each.parts for each in survey.subscribers(DataDirectory(data_dir), "c")] == [1, 3]


def test_counts_are_those_of_all_parts(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        for number in (1, 2):
            m.subscribe("c", "s", Inbox(), part=(number, 2), key=customer)
        publish(m, keys_of(1, 2, 1)[0], *keys_of(2, 2, 3))
        assert m.drain(DEADLINE_S)
        assert sum(each.handled for each in m.stats().subscribers) == 4
        assert report_of(data_dir).handled == 4


def findings(data_dir: Path) -> list[tuple[str, str, str]]:
    return [(found.severity, found.kind, Path(found.path).name) for found in verify(data_dir).findings]


def test_verify_knows_the_file(data_dir: Path) -> None:
    divided(data_dir)
    end_writer(data_dir)
    directory = DataDirectory(data_dir)
    path = directory.parts_file("c", "s")
    assert findings(data_dir) == []
    where = filed(data_dir)

    def with_parts(offsets: Any) -> list[tuple[str, str, str]]:
        write_parts(path, offsets)
        return findings(data_dir)

    assert with_parts([where[0], where[1] - 1]) == [("problem", "parts", "s.parts")]
    assert with_parts([where[0], where[1] + 100]) == [("problem", "parts", "s.parts")]
    assert with_parts([where[1], where[1]]) == [("note", "parts", "s.parts")]
    path.write_bytes(b"nonsense")
    assert findings(data_dir) == [("problem", "parts", "s.parts")]
    write_parts(path, where)
    directory.offset_file("c", "s").rename(directory.offset_file("c", "other"))
    assert findings(data_dir) == [("note", "foreign", "s.parts")]
