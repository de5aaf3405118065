"""The checker of ./scripts/torture has to find what is planted: one that cannot fail proves nothing."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from child import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from torturing.crew import Crew
from torturing.invariants import check
from torturing.ledger import EARLIER_NS, Ledger, Note, Notebook
from torturing.nursery import Nursery
from torturing.workload import Plan, payload

from keyop.storage import journal_file

PLAN = Plan(publishers=2, limit=150, pause_s=0.0, big=0.0, parts=2, replays=True)
Line = dict[str, Any]


class Place:
    """A directory and its ledger, with a hand to spoil them. Each channel is one segment, so that lines can move."""

    def __init__(self, data: Path, ledger: Path) -> None:
        self.data = data
        self.path = ledger

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.path)

    def kinds(self, plan: Plan = PLAN, **how: Any) -> set[str]:
        return {violation.kind for violation in check(self.data, self.ledger, plan, **how)}

    def segment(self, channel: str) -> Path:
        (path,) = sorted((self.data / "channels" / channel).iterdir())
        return path

    def lines(self, channel: str) -> list[Line]:
        return [json.loads(line) for line in self.segment(channel).read_bytes().splitlines()]

    def edit(self, channel: str, change: Callable[[list[Line]], object]) -> None:
        """Change the lines; offset files of the channel go to its end, as if everything were handled."""
        lines = self.lines(channel)
        change(lines)
        path = self.segment(channel)
        path.write_bytes(b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines))
        for offset in (self.data / "subscribers" / channel).glob("*.offset"):
            offset.write_text(f"{path.stat().st_size}\n")

    def notes(self, change: Callable[[list[Note]], object]) -> None:
        notes = list(self.ledger.notes())
        change(notes)
        self.path.write_text("".join(f"{json.dumps(note)}\n" for note in notes))


@pytest.fixture(scope="module")
def peaceful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a crew leaves that nobody disturbs, each channel in one segment."""
    room = tmp_path_factory.mktemp("crew")
    with Nursery(room / "log") as nursery:
        crew = Crew(room / "data", Ledger(room / "ledger"), replace(PLAN, segment_mb=100), nursery, seed=7)
        with crew:
            crew.start()
            crew.finished(*crew.publishers)
            crew.stop()
    return room


@pytest.fixture
def place(peaceful: Path, tmp_path: Path) -> Iterator[Place]:
    shutil.copytree(peaceful / "data", tmp_path / "data")
    shutil.copy(peaceful / "ledger", tmp_path / "ledger")
    return Place(tmp_path / "data", tmp_path / "ledger")


def said(line: Line) -> tuple[str, int, int]:
    return line["payload"]["from"], line["payload"]["life"], line["payload"]["n"]


def single(lines: list[Line], channel: str = "in") -> int:
    """A line that stands alone: in no group, and nobody fails with it."""
    return next(
        number
        for number, line in enumerate(lines)
        if number > 10
        and "group" not in line["payload"]
        and line["payload"]["n"] % 53 != 52
        and line["payload"]["n"] % 59 != 58
        and line["payload"]["n"] % 5
    )


def test_nothing_is_found_where_nothing_is_wrong(place: Place) -> None:
    assert check(place.data, place.ledger, PLAN) == []
    assert len(place.lines("in")) > 150
    assert len(place.lines("in.dead-letter")) > 2


# ---- segments


def test_a_message_that_is_gone(place: Place) -> None:
    place.edit("other", lambda lines: lines.pop(single(lines)))
    assert place.kinds() == {"lost"}


def test_the_last_message_is_gone(place: Place) -> None:
    place.edit("other", lambda lines: lines.pop())
    assert "lost" in place.kinds()


def test_a_message_twice(place: Place) -> None:
    place.edit("other", lambda lines: lines.append(lines[-1]))
    assert "doubled" in place.kinds()


def test_a_message_twice_under_another_id(place: Place) -> None:
    place.edit("other", lambda lines: lines.append({**lines[-1], "id": "another"}))
    assert place.kinds() == {"doubled"}


def test_a_message_on_both_channels(place: Place) -> None:
    place.edit("other", lambda lines: lines.append({**place.lines("in")[-1], "id": "another", "channel": "other"}))
    assert "doubled" in place.kinds()


def test_two_messages_in_the_wrong_order(place: Place) -> None:
    def swap(lines: list[Line]) -> None:
        first = next(n for n in range(len(lines)) if said(lines[n])[0] == said(lines[n + 1])[0])
        lines[first], lines[first + 1] = lines[first + 1], lines[first]

    place.edit("other", swap)
    assert place.kinds() == {"disorder"}


@pytest.mark.parametrize("kind", ["atomic", "batch"])
def test_half_a_transaction(place: Place, kind: str) -> None:
    """Nobody was told of it, so that nothing else is wrong with it."""
    lines = place.lines("other")
    victim = next(line for line in reversed(lines) if line["payload"].get("group", {}).get("kind") == kind)
    who, life, number = said(victim)
    place.edit("other", lambda lines: lines.remove(victim))
    place.notes(lambda notes: notes.__setitem__(slice(None), [n for n in notes if not _tells(n, who, life, number)]))
    assert "half" in place.kinds()


def _tells(note: Note, who: str, life: int, number: int) -> bool:
    numbers = note.get("ns") or [part[1] for part in note.get("parts", [])]
    return note["who"] == who and note["life"] == life and number in numbers


def test_zeros_in_a_line(place: Place) -> None:
    path = place.segment("other")
    data = bytearray(path.read_bytes())
    at = data.index(b"\n", 3000) + 20
    data[at : at + 30] = bytes(30)
    path.write_bytes(data)
    assert {"torn", "lost"} <= place.kinds()


def test_the_end_of_a_line_is_gone(place: Place) -> None:
    path = place.segment("copy")
    path.write_bytes(path.read_bytes()[:-5])
    assert "torn" in place.kinds()


def test_a_letter_that_is_another(place: Place) -> None:
    path = place.segment("other")
    data = path.read_bytes()
    at = data.index(b'"bulk":"xx', 5000) + len('"bulk":"')
    path.write_bytes(data[:at] + b"q" + data[at + 1 :])
    assert place.kinds() == {"garbled"}


def test_a_message_that_nobody_published(place: Place) -> None:
    new = {**payload("p1", 0, 99_999, "x"), "sync": False}
    place.edit("other", lambda lines: lines.append({**lines[-1], "id": "another", "payload": new}))
    place.edit("other", lambda lines: lines.append({**lines[-1], "id": "a third", "payload": {**new, "n": 99_998}}))
    assert "invented" in place.kinds()


def test_a_gap_between_segments(place: Place) -> None:
    path = place.segment("copy")
    data = path.read_bytes()
    half = data.index(b"\n", len(data) // 2) + 1
    path.write_bytes(data[:half])
    path.with_name(f"{half + 7:020d}.jsonl").write_bytes(data[half:])
    assert place.kinds() == {"seam"}
    assert place.kinds(replace(PLAN, sync_interval_ms=20), after="power cut") == set()


# ---- handlers and chain


def test_a_message_that_was_not_handled(place: Place) -> None:
    handled = [note for note in place.ledger.notes() if note["what"] == "handled" and note["by"] == "watcher"]
    place.notes(lambda notes: notes.remove(handled[20]))
    assert place.kinds() == {"unhandled"}
    assert place.kinds(drained=False) == set()


def test_messages_that_were_handled_in_the_wrong_order(place: Place) -> None:
    def swap(notes: list[Note]) -> None:
        mine = [n for n in range(len(notes)) if notes[n]["what"] == "handled" and notes[n]["by"] == "watcher"]
        first = next(m for m, n in pairwise(mine) if notes[m]["of"][0] == notes[n]["of"][0])
        second = mine[mine.index(first) + 1]
        notes[first], notes[second] = notes[second], notes[first]

    place.notes(swap)
    assert place.kinds() == {"disorder"}


def test_a_message_that_comes_again(place: Place) -> None:
    """After a kill the one under way does, and no other."""
    mine = [note for note in place.ledger.notes() if note["what"] == "handled" and note["by"] == "watcher"]
    last, one_before = mine[-1], mine[-2]
    place.notes(lambda notes: notes.append({**last, "life": 1}))
    assert place.kinds() == set()
    place.notes(lambda notes: notes.append({**one_before, "life": 1}))
    assert place.kinds() == {"repeated"}
    assert place.kinds(after="power cut") == set()


def test_a_handled_message_is_gone_though_its_publisher_was_not_told(place: Place) -> None:
    lines = place.lines("other")
    victim = lines[single(lines)]
    place.edit("other", lambda lines: lines.remove(victim))
    place.notes(lambda notes: notes.__setitem__(slice(None), [n for n in notes if not _tells(n, *said(victim))]))
    assert place.kinds() == {"lost"}


def test_an_output_that_is_missing(place: Place) -> None:
    victim = said(place.lines("in")[single(place.lines("in"))])
    place.edit("out", lambda lines: lines.remove(next(line for line in lines if said(line) == victim)))
    assert place.kinds() == {"chain", "lost"}  # `end` has handled it


def test_an_output_twice(place: Place) -> None:
    place.edit("out", lambda lines: lines.append({**lines[-1], "id": "another"}))
    assert place.kinds() == {"doubled"}


def test_one_of_two_outputs_is_missing(place: Place) -> None:
    place.edit("copy", lambda lines: lines.pop(3))
    assert place.kinds() == {"half"}


def test_an_output_without_an_input(place: Place) -> None:
    other = place.lines("other")[single(place.lines("other"))]
    place.edit("out", lambda lines: lines.append({**lines[-1], "id": "another", "payload": other["payload"]}))
    assert "chain" in place.kinds()


def test_a_dead_letter_that_is_missing(place: Place) -> None:
    for by, kind in (("plain", "unhandled"), ("chain", "chain")):
        place.edit(
            "in.dead-letter",
            lambda lines, by=by: lines.remove(next(line for line in lines if line["payload"]["subscriber"] == by)),
        )
        assert kind in place.kinds()


def test_a_dead_letter_twice(place: Place) -> None:
    chains = next(line for line in place.lines("in.dead-letter") if line["payload"].get("subscriber") == "chain")
    place.edit("in.dead-letter", lambda lines: lines.append({**chains, "id": "another"}))
    assert place.kinds() == {"doubled"}


def test_a_dead_letter_of_a_message_that_does_not_fail(place: Place) -> None:
    line = place.lines("in")[single(place.lines("in"))]

    def give_up(lines: list[Line], error: str) -> None:
        said = {**lines[0]["payload"], "original": line, "subscriber": "plain", "last_error": error}
        lines.append({**lines[-1], "id": "another", "payload": said})

    place.edit("in.dead-letter", lambda lines: give_up(lines, "the process ended during attempt 4"))
    assert place.kinds() == set()
    place.edit("in.dead-letter", lambda lines: (lines.pop(), give_up(lines, "ValueError: no")))
    assert place.kinds() == {"given up"}


@pytest.mark.parametrize(("what", "kind"), [("garbled", "garbled"), ("complained", "complaint")])
def test_what_a_process_says_itself(place: Place, what: str, kind: str) -> None:
    Notebook(place.path, "plain", 0).note(what, text="something")
    assert place.kinds() == {kind}


# ---- what may be gone, and what not


def remove_first_segment(place: Place, channel: str) -> int:
    """Split a channel in two, and remove the first part; how many messages that were."""
    path = place.segment(channel)
    data = path.read_bytes()
    half = data.index(b"\n", len(data) // 2) + 1
    path.with_name(f"{half:020d}.jsonl").write_bytes(data[half:])
    path.unlink()
    return data[:half].count(b"\n")


COMPACTION = replace(PLAN, compaction=True)


@pytest.mark.parametrize("channel", ["in", "other", "out"])
def test_a_segment_that_all_had_consumed(place: Place, channel: str) -> None:
    assert remove_first_segment(place, channel) > 20
    assert place.kinds(COMPACTION) == set()
    assert "lost" in place.kinds(PLAN)


def test_a_segment_that_one_had_not_consumed(place: Place) -> None:
    remove_first_segment(place, "other")
    handled = [note for note in place.ledger.notes() if note["what"] == "handled" and note["by"] == "watcher"]
    first = [note["of"] for note in handled[:3]]

    def forget(notes: list[Note]) -> None:
        notes[:] = [note for note in notes if note.get("by") not in ("watcher", "shared") or note["of"] not in first]

    place.notes(forget)
    assert "lost" in place.kinds(COMPACTION)


@pytest.mark.parametrize("channel", ["copy", "in.dead-letter"])
def test_a_segment_of_a_channel_without_subscribers(place: Place, channel: str) -> None:
    remove_first_segment(place, channel)
    assert "lost" in place.kinds(COMPACTION)


def test_a_doubled_message_of_which_one_is_removed(place: Place) -> None:
    remove_first_segment(place, "other")
    note = next(note for note in place.ledger.notes() if note["what"] == "handled" and note["by"] == "watcher")
    place.notes(lambda notes: notes.append({**note, "at": note["at"] + 1}))
    assert "doubled" in place.kinds(COMPACTION)


# ---- what is put back


def marks(lines: list[Line]) -> list[Line]:
    return [line for line in lines if "dead_letter" in line["payload"]]


def test_what_is_put_back_is_there(place: Place) -> None:
    letters = [line for line in place.lines("in.dead-letter") if line["payload"].get("subscriber") == "plain"]
    back = [note for note in place.ledger.notes() if note["what"] == "replayed"]
    assert len(letters) == len(marks(place.lines("in.dead-letter"))) == len(place.lines("in.replay")) == len(back) > 1


def test_what_is_put_back_twice(place: Place) -> None:
    place.edit("in.replay", lambda lines: lines.append(lines[-1]))
    assert place.kinds() == {"doubled"}


def test_what_is_marked_and_was_not_put_back(place: Place) -> None:
    place.edit("in.replay", lambda lines: lines.pop())
    assert place.kinds() == {"half"}


def test_a_mark_twice(place: Place) -> None:
    place.edit("in.dead-letter", lambda lines: lines.append({**marks(lines)[0], "id": "another"}))
    assert place.kinds() == {"doubled"}


def test_a_mark_that_is_gone(place: Place) -> None:
    place.edit("in.dead-letter", lambda lines: lines.remove(marks(lines)[0]))
    assert place.kinds() == {"lost"}


def test_a_mark_that_a_command_was_told_of(place: Place) -> None:
    told = len(marks(place.lines("in.dead-letter")))
    Notebook(place.path, "replay", 0).note("put back", done=told)
    assert place.kinds() == set()
    Notebook(place.path, "replay", 0).note("put back", done=1)
    assert place.kinds() == {"lost"}


def test_what_was_put_back_and_nobody_handled(place: Place) -> None:
    place.notes(lambda notes: notes.remove(next(note for note in notes if note["what"] == "replayed")))
    assert place.kinds() == {"unhandled"}


# ---- parts


def of_parts(notes: list[Note]) -> list[Note]:
    return [note for note in notes if note["what"] == "handled" and note["by"] == "shared"]


def test_the_parts_share_the_work(place: Place) -> None:
    notes = of_parts(list(place.ledger.notes()))
    part_of = {(note["of"][0], note["part"]) for note in notes}
    assert len(part_of) == 2, "each publisher's messages go to one part"
    assert len(notes) == len(place.lines("other"))


def test_a_message_that_its_part_has_not_handled(place: Place) -> None:
    place.notes(lambda notes: notes.remove(of_parts(notes)[20]))
    assert place.kinds() == {"unhandled"}


def test_parts_that_saw_the_messages_of_a_key_in_another_order(place: Place) -> None:
    def swap(notes: list[Note]) -> None:
        first, second = [note for note in of_parts(notes) if note["of"][0] == "p1"][10:12]
        first["of"], second["of"] = second["of"], first["of"]

    place.notes(swap)
    assert place.kinds() == {"disorder"}


def test_what_comes_again_to_a_part(place: Place) -> None:
    """It may, once the id was divided anew."""
    again = [note for note in of_parts(list(place.ledger.notes())) if note["of"][0] == "p1"][10:13]
    place.notes(lambda notes: notes.extend({**note, "life": 1} for note in again))
    assert place.kinds() == {"repeated"}
    place.notes(lambda notes: [note.update(division=1) for note in of_parts(notes)[-3:]])
    assert place.kinds() == set()


def test_a_plan_without_parts_asks_nothing_of_them(place: Place) -> None:
    place.notes(lambda notes: [notes.remove(note) for note in of_parts(notes)])
    assert "unhandled" in place.kinds()
    assert place.kinds(replace(PLAN, parts=0)) == set()


# ---- power cuts


def test_after_a_cut_only_what_was_acknowledged_before_it_counts(place: Place) -> None:
    place.notes(lambda notes: [note.update(mark=number) for number, note in enumerate(notes)])
    notes = list(place.ledger.notes())
    last = max(n for n, note in enumerate(notes) if note["what"] == "published" and note["channel"] == "other")
    numbers = notes[last]["ns"]
    place.edit(
        "other",
        lambda lines: [
            lines.remove(line)
            for line in list(lines)
            if said(line)[0] == notes[last]["who"] and line["payload"]["n"] in numbers
        ],
    )
    assert "lost" in place.kinds(after="power cut")
    assert "lost" in place.kinds(after="power cut", at_mark=last)
    # `watcher` may have handled it a little earlier: that counts as well.
    name = [notes[last]["who"], notes[last]["life"]]
    handled = min(
        n
        for n, note in enumerate(notes)
        if note["what"] == "handled" and note["of"][:2] == name and note["of"][2] in numbers
    )
    assert "lost" not in place.kinds(after="power cut", at_mark=min(last, handled) - 1)


def test_what_an_earlier_cut_took_is_no_message_that_was_removed(place: Place) -> None:
    """It was handled, and lost before it was synced; another message came to stand where it stood."""
    remove_first_segment(place, "in")
    plan = replace(COMPACTION, sync_interval_ms=5)
    there = next(note for note in place.ledger.notes() if note["what"] == "handled" and note["by"] == "plain")
    place.notes(lambda notes: notes.insert(0, {**there, "of": ["p1", -1, 7], "t": EARLIER_NS}))
    assert place.kinds(plan, after="power cut") == set()
    place.notes(lambda notes: notes[0].update(t=0))
    assert "chain" in place.kinds(plan, after="power cut")


def test_periodic_loses_only_what_was_not_synced(place: Place) -> None:
    periodic = replace(PLAN, sync_interval_ms=20)
    notes = [note for note in place.ledger.notes() if note["what"] in ("published", "atomic")]
    lives = {note["who"] for note in notes}
    tails = {who: [note for note in notes if note["who"] == who] for who in lives}
    synced = {who: max(n for n, note in enumerate(mine) if note["sync"]) for who, mine in tails.items()}

    def lose(note: Note) -> None:
        parts = note.get("parts") or [[note["channel"], number] for number in note["ns"]]
        for channel, number in parts:
            for lost in {channel, "out", "copy"} if channel == "in" else {channel}:
                place.edit(
                    lost,
                    lambda lines, number=number: [
                        lines.remove(line) for line in list(lines) if said(line) == (note["who"], note["life"], number)
                    ],
                )

    for who, mine in tails.items():
        for note in mine[synced[who] + 1 :]:
            lose(note)
    cut = {"after": "power cut", "drained": False}
    assert place.kinds(periodic, **cut) == set()
    assert "lost" in place.kinds(periodic)
    assert "lost" in place.kinds(PLAN, **cut)
    who, mine = next(iter(tails.items()))
    late = mine[synced[who] + 1 :] or mine[-1:]
    assert "lost" in place.kinds(periodic, synced_before_ns=late[-1]["t"] + 1, **cut) or not mine[synced[who] + 1 :]
    lose(mine[synced[who]])
    assert "lost" in place.kinds(periodic, **cut)


# ---- keyop's own view


def test_what_only_verify_sees(place: Place) -> None:
    (place.data / "subscribers" / "other" / "watcher.offset").write_text("99999999\n")
    assert place.kinds() == {"verify"}


def test_a_journal_that_is_live(place: Place) -> None:
    with (place.data / "journal" / "a.journal").open("r+b") as file:
        file.write(journal_file.header(5, 1))
    assert place.kinds() == {"not at rest"}


def test_verify_that_is_blind(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from keyop.inspection import verification

    path = place.segment("copy")
    path.write_bytes(path.read_bytes()[:-5])
    monkeypatch.setattr(verification, "verify", lambda path: verification.Verification(str(path), writer_runs=False))
    assert {"torn", "verify"} <= place.kinds()


# ---- the ledger


def test_a_torn_note_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    notebook = Notebook(path, "p1", 0)
    notebook.note("published", ns=[1])
    with path.open("ab") as file:
        file.write(b'\n{"what":"publ')
    notebook.note("published", ns=[2])
    assert [note["ns"] for note in Ledger(path).notes()] == [[1], [2]]
    assert [note["ns"] for note in Ledger(path).news()] == [[1], [2]]


def test_the_mark_is_read_when_the_note_is_written(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    mark.write_bytes((7).to_bytes(8, "little"))
    notebook = Notebook(tmp_path / "ledger", "p1", 0, mark)
    notebook.note("first")
    with mark.open("r+b") as file:
        file.write((1 << 40).to_bytes(8, "little"))
    notebook.note("second")
    ledger = Ledger(tmp_path / "ledger", tmp_path / "later")
    Notebook(tmp_path / "later", "p1", 1).note("third")
    assert [note["mark"] for note in ledger.notes()] == [7, 1 << 40, 0]
    assert [note["what"] for note in ledger.notes(at_mark=7)] == ["first", "third"]
