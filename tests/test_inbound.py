"""What hub and client hand to the writer: lines of which it leaves out those it knows, and lines of the audit log."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from child import eventually, kill_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from keyop.attachment.attachment import Attachment
from keyop.configuration.lookup import settings_for
from keyop.errors import PublishError
from keyop.protocol import entry, inbound
from keyop.storage.audit_file import NAME, AuditFile
from keyop.storage.directory import DataDirectory
from keyop.storage.segments import list_segments
from keyop.writer import audit as audit_module
from keyop.writer.audit import Audit
from keyop.writer.seen import TAIL_IDS, SeenIds


def line(id: str, pad: int = 0) -> bytes:
    return json.dumps({"v": 1, "id": id, "payload": "x" * pad}, separators=(",", ":")).encode() + b"\n"


def received(ids: list[str], channel: bytes = b"c", pad: int = 0) -> bytes:
    """A batch of messages from a peer as a transaction."""
    lines = [line(id, pad) for id in ids]
    data = inbound.pack(lines, [inbound.id_hash(id.encode()) for id in ids])
    return entry.TRANSACTION.pack(entry.SYNC) + entry.encode(entry.INBOUND, channel, data=data)


def ids_in(data_dir: Path, channel: str = "c") -> list[str]:
    files = [segment.path.read_bytes() for segment in list_segments(DataDirectory(data_dir).channel(channel))[0]]
    return [json.loads(text)["id"] for text in b"".join(files).splitlines()]


@pytest.fixture
def attachment(data_dir: Path) -> Iterator[Attachment]:
    attached = Attachment(settings_for(data_dir))
    yield attached
    attached.close()


# ---- the entry's form


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.binary(max_size=50)), min_size=1))
def test_what_is_packed_is_unpacked(lines: list[tuple[int, bytes]]) -> None:
    hashes = [hash for hash, _ in lines]
    whole = [text.replace(b"\n", b" ") + b"\n" for _, text in lines]
    data = inbound.pack(whole, hashes)
    spans = inbound.unpack(data)
    assert [hash for hash, _, _ in spans] == hashes
    assert [data[start:end] for _, start, end in spans] == whole


@given(st.binary(max_size=100))
def test_anything_else_is_refused(data: bytes) -> None:
    try:
        spans = inbound.unpack(data)
    except ValueError:
        return
    assert spans[-1][2] == len(data)


def test_the_id_of_a_line() -> None:
    assert inbound.line_hash(line("abc")) == inbound.id_hash(b"abc")
    assert inbound.line_hash(b'{"id":"abc"}\n') is None


# ---- the table


@settings(max_examples=50)
@given(st.lists(st.integers(0, 9)), st.integers(1, 6))
def test_the_oldest_goes(added: list[int], size: int) -> None:
    seen = SeenIds(size)
    kept: list[int] = []
    for hash in added:
        seen.add(hash)
        if hash not in kept:
            kept = [*kept, hash][-size:]
    assert [hash for hash in range(10) if hash in seen] == sorted(kept)


def test_the_tail_of_a_channel_over_segments_and_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyop.writer.seen._STEP_BYTES", 37)
    first = b"".join(line(f"a{number}") for number in range(20))
    second = b"torn " + b"".join(line(f"b{number}", number) for number in range(20)) + b'{"v":1,"id":"unfinished'
    (tmp_path / f"{0:020d}.jsonl").write_bytes(first)
    (tmp_path / f"{len(first):020d}.jsonl").write_bytes(second)
    seen = SeenIds(30)
    seen.load(b"c", tmp_path)
    known = [f"{letter}{number}" for letter in "ab" for number in range(20)]
    # The torn bytes spoil b0; the oldest of the rest have no room.
    assert [id for id in known if inbound.id_hash(id.encode()) in seen] == known[9:20] + known[21:]


# ---- through the ring


def test_a_message_that_is_known_is_left_out(attachment: Attachment, data_dir: Path) -> None:
    assert attachment.transact(received(["1", "2", "3"]), "c") == [0]
    assert attachment.transact(received(["4", "2", "5", "3", "6"]), "c") == [2]
    assert attachment.transact(received(["6", "6"]), "c") == [2]
    assert attachment.transact(received(["7", "7"]), "c") == [1]
    assert ids_in(data_dir) == list("1234567")
    eventually(lambda: attachment.writer.board.counters()["duplicates"] == 5)


def test_two_channels_in_one_transaction(attachment: Attachment, data_dir: Path) -> None:
    attachment.transact(received(["1"]), "c")
    both = received(["1", "2"]) + received(["3"], b"d")[entry.TRANSACTION.size :]
    assert attachment.transact(both, "c") == [1]
    assert (ids_in(data_dir), ids_in(data_dir, "d")) == (["1", "2"], ["3"])


def test_a_new_writer_reads_the_tail_back(attachment: Attachment, data_dir: Path) -> None:
    attachment.transact(received([str(number) for number in range(100)]), "c")
    kill_writer(data_dir)
    assert attachment.transact(received(["98", "99", "100"]), "c") == [2]
    assert ids_in(data_dir) == [str(number) for number in range(101)]


def test_a_spilled_batch(attachment: Attachment, data_dir: Path) -> None:
    attachment.transact(received(["1", "4"]), "c")
    assert attachment.transact(received(["1", "2", "3", "4", "5"], pad=50_000), "c") == [2]
    assert ids_in(data_dir) == ["1", "4", "2", "3", "5"]
    eventually(lambda: not attachment.replies.pending())


def test_a_malformed_batch_is_refused_and_the_next_taken(attachment: Attachment, data_dir: Path) -> None:
    broken = entry.TRANSACTION.pack(0) + entry.encode(entry.INBOUND, b"c", data=b"\1\0\0\0" + bytes(12))
    with pytest.raises(PublishError):
        attachment.transact(broken, "c")
    attachment.transact(received(["1"]), "c")
    assert ids_in(data_dir) == ["1"]


def test_only_so_many_are_read_back(tmp_path: Path) -> None:
    lines = b"".join(line(str(number)) for number in range(TAIL_IDS + 2))
    (tmp_path / f"{0:020d}.jsonl").write_bytes(lines)
    seen = SeenIds(2 * TAIL_IDS)
    seen.load(b"c", tmp_path)
    assert [inbound.id_hash(str(number).encode()) in seen for number in (0, 1, 2, TAIL_IDS + 1)] == [
        False,
        False,
        True,
        True,
    ]


# ---- the audit log


def test_audit_lines_are_appended(attachment: Attachment, data_dir: Path) -> None:
    for number in range(3):
        lines = b'{"event":"%d"}\n' % number
        attachment.transact(entry.TRANSACTION.pack(0) + entry.encode(entry.AUDIT, data=lines), "")
    path = data_dir / "audit" / NAME
    eventually(lambda: path.exists() and path.read_bytes().count(b"\n") == 3)
    assert [json.loads(text)["event"] for text in path.read_text().splitlines()] == ["0", "1", "2"]


def test_an_audit_line_without_its_end_is_refused(attachment: Attachment) -> None:
    with pytest.raises(PublishError):
        attachment.transact(entry.TRANSACTION.pack(0) + entry.encode(entry.AUDIT, data=b"{}"), "")


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("max_files", [1, 2])
def test_the_audit_log_rotates(tmp_path: Path, max_files: int) -> None:
    file = AuditFile(tmp_path, 10, max_files)
    for number in range(8):
        file.append(b"line%d\n" % number)
        file.rotate_if_full()
    file.close()
    rotated = {f"{NAME}.1": b"line6\nline7\n", f"{NAME}.2": b"line4\nline5\n"}
    assert contents(tmp_path) == dict(list(rotated.items())[:max_files])


def test_rotation_with_files_of_another_program(tmp_path: Path) -> None:
    for number in range(1, 13):
        (tmp_path / f"{NAME}.{number}").write_bytes(b"old%d" % number)
    (tmp_path / f"{NAME}.01").write_bytes(b"no number")
    (tmp_path / NAME).write_bytes(b"0123456789")
    file = AuditFile(tmp_path, 10, 10)
    file.append(b"new\n")
    file.rotate_if_full()
    file.close()
    found = contents(tmp_path)
    assert found.pop(f"{NAME}.01") == b"no number"
    assert found == {f"{NAME}.1": b"0123456789new\n"} | {f"{NAME}.{n + 1}": b"old%d" % n for n in range(1, 10)}


def test_a_log_that_was_removed_is_begun_again(tmp_path: Path) -> None:
    file = AuditFile(tmp_path, 100, 1)
    file.append(b"1\n")
    (tmp_path / NAME).unlink()
    file.append(b"2\n")
    file.close()
    assert contents(tmp_path) == {NAME: b"2\n"}


class Said:
    def __init__(self) -> None:
        self.events: list[str] = []

    def warning(self, event: str, **_: object) -> None:
        self.events.append(event)


def test_what_cannot_be_written_is_dropped_and_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = Said()
    audit = Audit(AuditFile(tmp_path / "missing", 100, 1), said)  # type: ignore[arg-type]
    for _ in range(3):
        audit.add(b"1\n2\n")
        audit.flush()
    assert (audit.dropped, said.events) == (6, ["audit_dropped"])
    (tmp_path / "missing").mkdir()
    monkeypatch.setattr(audit_module, "MAX_ROUND_BYTES", 5)
    for _ in range(3):
        audit.add(b"3\n")
    audit.flush()
    assert (tmp_path / "missing" / NAME).read_bytes() == b"3\n3\n"
    assert audit.dropped == 7


def test_half_a_line_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AuditFile(tmp_path, 100, 1)
    file.append(b"whole\n")
    real = os.write
    monkeypatch.setattr(
        "keyop.storage.audit_file.os", SimpleNamespace(**{**vars(os), "write": lambda fd, data: real(fd, data[:3])})
    )
    with pytest.raises(OSError) as raised:
        file.append(b"not whole\n")
    assert raised.value.errno == errno.ENOSPC
    monkeypatch.undo()
    file.append(b"next\n")
    file.close()
    assert contents(tmp_path) == {NAME: b"whole\nnext\n"}


def test_a_rotation_that_fails_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = Said()
    audit = Audit(AuditFile(tmp_path, 4, 1), said)  # type: ignore[arg-type]

    def no(*_: object) -> None:
        raise OSError(errno.EACCES, "no")

    monkeypatch.setattr("keyop.storage.audit_file.disk.rename", no)
    for number in range(3):
        audit.add(b"line%d\n" % number)
        audit.flush()
    assert (contents(tmp_path), audit.dropped, said.events) == (
        {NAME: b"line0\nline1\nline2\n"},
        0,
        ["audit_not_rotated"],
    )
    audit.close()
