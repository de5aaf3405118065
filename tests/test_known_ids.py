"""Ids in a channel's own files: found however old they are, and cheap where nothing is found (cases 48 and 69)."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyop.federation import id_stretches
from keyop.federation.id_stretches import Loaded, Notes, Stretch, bucket_of, id_of_line, moment_of
from keyop.federation.known_ids import ChannelIds, MustRead
from keyop.protocol.inbound import id_hash
from keyop.storage.segments import segment_name

NOW_MS = 1_795_000_000_000


def v7(ms: int, number: int = 0) -> bytes:
    digits = f"{ms:012x}"
    return f"{digits[:8]}-{digits[8:]}-7{number & 0xFFF:03x}-8000-{number:012x}".encode()


def v4(number: int) -> bytes:
    return f"{number:08x}-0000-4000-8000-000000000000".encode()


def line(id: bytes) -> bytes:
    return b'{"v":1,"id":"%b","ts":"","channel":"c","origin":"o","payload_type":"t","payload":1}' % id


class Channel:
    """Files of a channel, and the ids that it knows."""

    def __init__(self, path: Path) -> None:
        self.directory = path / "channels" / "c"
        self.directory.mkdir(parents=True)
        self.notes = path / "ids" / "c.json"
        self.end = 0
        self.start = 0
        self.loaded = Loaded()
        self.known_ids = ChannelIds(self.directory, self.notes, self.loaded)

    @property
    def active(self) -> Path:
        return self.directory / segment_name(self.start)

    def add(self, *lines: bytes) -> None:
        with self.active.open("ab") as file:
            for one in lines:
                file.write(one + b"\n")
                self.end += len(one) + 1

    def roll(self) -> None:
        self.start = self.end
        self.active.touch()

    def holds(self, *ids: bytes, may_read: bool = True) -> list[bytes]:
        hashes = [id_hash(id) for id in ids]
        known = self.known_ids.known(ids, hashes, self.end, may_read=may_read)
        return [id for id, hash in zip(ids, hashes, strict=True) if hash in known]

    def restart(self) -> None:
        self.known_ids.close()
        self.loaded = Loaded()
        self.known_ids = ChannelIds(self.directory, self.notes, self.loaded)


@pytest.fixture
def channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Channel:
    monkeypatch.setattr(id_stretches, "STRETCH_IDS", 16)
    return Channel(tmp_path)


def test_what_is_there_is_known_and_nothing_else(channel: Channel) -> None:
    assert channel.holds(v7(NOW_MS)) == []
    channel.add(*(line(v7(NOW_MS + n, n)) for n in range(100)))
    assert channel.holds(v7(NOW_MS + 3, 3), v7(NOW_MS + 3, 4), v7(NOW_MS + 99, 99)) == [
        v7(NOW_MS + 3, 3),
        v7(NOW_MS + 99, 99),
    ]
    channel.add(line(v7(NOW_MS + 200)))
    assert channel.holds(v7(NOW_MS + 200)) == [v7(NOW_MS + 200)]


def test_a_new_message_costs_no_reading(channel: Channel) -> None:
    """Whatever the size of the channel: only stretches of its time are looked at, and there are none."""
    channel.add(*(line(v7(NOW_MS + n, n)) for n in range(1_000)))
    channel.holds()
    channel.loaded._hashes.clear()
    later = NOW_MS + 40 * 60_000
    assert channel.holds(v7(later), may_read=False) == []
    with pytest.raises(MustRead):
        channel.holds(v7(NOW_MS + 5, 5), may_read=False)
    assert channel.holds(v7(NOW_MS + 5, 5)) == [v7(NOW_MS + 5, 5)]


def test_much_that_was_added_is_not_read_on_the_loop(channel: Channel) -> None:
    channel.holds()
    channel.add(*(line(v7(NOW_MS + n, n)) for n in range(20_000)))
    with pytest.raises(MustRead):
        channel.holds(v7(NOW_MS), may_read=False)
    assert channel.holds(v7(NOW_MS)) == [v7(NOW_MS)]


def test_over_segments_and_restarts(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [v7(NOW_MS + 600_000 * n, n) for n in range(90)]
    for n in range(3):
        channel.add(*map(line, ids[30 * n : 30 * n + 30]))
        if n < 2:
            channel.roll()
    assert channel.holds(*ids) == ids
    channel.restart()
    assert channel.holds(*ids) == ids
    # Sealed segments are noted, and not read again.
    channel.restart()
    monkeypatch.setattr("keyop.federation.known_ids.scan", lambda *_: pytest.fail("it was read again"))
    assert channel.holds(*ids) == ids
    assert channel.holds(v7(NOW_MS + 1)) == []


def test_a_segment_that_is_sealed_while_we_look_on(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    first = [v7(NOW_MS + n, n) for n in range(40)]
    channel.add(*map(line, first))
    channel.holds()
    channel.roll()
    second = [v7(NOW_MS + 5_000_000 + n, n) for n in range(40)]
    channel.add(*map(line, second))
    assert channel.holds(*first, *second) == [*first, *second]
    channel.restart()
    monkeypatch.setattr("keyop.federation.known_ids.scan", lambda *_: pytest.fail("it was read again"))
    assert channel.holds(*first, *second) == [*first, *second]


@pytest.mark.parametrize("damage", ["", "{}", "[]", '{"format":1,"segments":[[0]]}', '{"format":99}', "\x00"])
def test_damaged_notes_cost_the_reading(channel: Channel, damage: str) -> None:
    ids = [v7(NOW_MS + n, n) for n in range(40)]
    channel.add(*map(line, ids))
    channel.roll()
    channel.holds()
    channel.restart()
    channel.notes.write_text(damage)
    assert channel.holds(*ids) == ids


def test_notes_of_a_segment_that_has_another_size_now(channel: Channel) -> None:
    """A directory that was restored from a copy."""
    ids = [v7(NOW_MS + n, n) for n in range(40)]
    channel.add(*map(line, ids[:20]))
    sealed = channel.active
    channel.roll()
    channel.holds()
    channel.restart()
    with sealed.open("ab") as file:
        file.write(b"".join(line(id) + b"\n" for id in ids[20:]))
    assert channel.holds(*ids) == ids


def test_clocks_of_1970_and_ids_of_other_kinds(channel: Channel) -> None:
    """Case 48: ids of version 4, ids that are no UUIDs, and a Pi that has not heard of the time."""
    odd = [v4(1), b"x", b"\xc3\xa4", v7(0), v7(1_000), b"0" * 36, v7(NOW_MS).upper()]
    for id in odd:
        channel.add(line(id), *(line(v7(NOW_MS + n, n)) for n in range(20)))
    assert channel.holds(*odd, v4(2), v7(2_000)) == odd
    channel.restart()
    assert channel.holds(*odd, v4(2), v7(2_000)) == odd
    # In a segment whose last write was in 1970, too.
    channel.roll()
    channel.restart()
    assert channel.holds(*odd) == odd


def test_lines_of_another_form(channel: Channel) -> None:
    channel.add(
        b'{"id":"a","v":1,"payload":1}',
        b'{ "v": 1, "id": "b" }',
        b'{"v":2,"id":"c"}',
        b'{"v":1,"ID":"d"}',
        b'{"v":1,"id":"\\u0065"}',
        b'{"v":1,"id":"half' + line(b"f"),
        b"not JSON",
        b"",
        b'{"v":1,"id":""}',
    )
    assert channel.holds(b"a", b"b", b"c", b"d", b"e", b"", b"half") == [b"a", b"b", b"c", b"d", b"e"]


def test_what_was_removed_is_not_known_any_more(channel: Channel) -> None:
    old, new = [v7(NOW_MS + n, n) for n in range(40)], [v7(NOW_MS + 5_000_000 + n, n) for n in range(40)]
    channel.add(*map(line, old))
    removed = channel.active
    channel.roll()
    channel.add(*map(line, new))
    channel.holds()
    removed.unlink()
    channel.restart()
    assert channel.holds(*old, *new) == new
    assert channel.holds(*old) == []


def test_a_channel_that_was_deleted_and_made_anew(channel: Channel) -> None:
    channel.add(*(line(v7(NOW_MS + n, n)) for n in range(40)))
    channel.holds()
    channel.active.unlink()
    channel.end = 0
    channel.add(line(v7(NOW_MS + 100)))
    channel.known_ids.known([], [], 1 << 40)
    assert channel.holds(v7(NOW_MS + 100), v7(NOW_MS + 3, 3)) == [v7(NOW_MS + 100)]


def test_few_stretches_stay_in_memory(channel: Channel) -> None:
    channel.loaded._most = 4
    ids = [v7(NOW_MS + n, n) for n in range(400)]
    for at in range(0, 400, 20):
        channel.add(*map(line, ids[at : at + 20]))
        channel.holds()
    assert channel.holds(*ids) == ids
    assert len(channel.loaded._hashes) == 4


def test_another_thread_that_reads_is_not_waited_for_on_the_loop(channel: Channel) -> None:
    channel.holds()
    with channel.known_ids._lock, pytest.raises(MustRead):
        channel.holds(v7(NOW_MS), may_read=False)
    assert channel.holds(v7(NOW_MS), may_read=False) == []


any_id = st.one_of(
    st.builds(v7, st.integers(0, 2**48 - 1), st.integers(0, 100)),
    st.builds(v7, st.integers(NOW_MS, NOW_MS + 5_000_000), st.integers(0, 3)),
    st.builds(v4, st.integers(0, 20)),
    st.text(max_size=10).filter(lambda text: text.isprintable()).map(str.encode),
)


@settings(max_examples=60, deadline=None)
@given(
    ops=st.lists(
        st.one_of(
            any_id.map(lambda id: ("add", id)), st.sampled_from([("roll", b""), ("restart", b""), ("look", b"")])
        ),
        max_size=60,
    ),
    asked=st.lists(any_id, max_size=10),
)
def test_any_course_of_things(
    tmp_path_factory: pytest.TempPathFactory, ops: list[tuple[str, bytes]], asked: list[bytes]
) -> None:
    """Against a set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(id_stretches, "STRETCH_IDS", 3)
        channel = Channel(tmp_path_factory.mktemp("ids"))
        there: set[bytes] = set()
        for what, id in ops:
            if what == "add":
                channel.add(
                    json.dumps(
                        {"v": 1, "id": id.decode(), "payload": 1}, separators=(",", ":"), ensure_ascii=False
                    ).encode()
                )
                there.add(id)
            elif what == "roll" and channel.end > channel.start:
                channel.roll()
            elif what == "restart":
                channel.restart()
            else:
                channel.holds()
        for id in [*there, *asked]:
            assert bool(channel.holds(id)) == (id in there and id != b"")
        channel.known_ids.close()


def test_against_a_set_with_messages_that_come_late(channel: Channel) -> None:
    chance = random.Random(8)
    now_ms = NOW_MS
    everything: list[bytes] = []
    for number in range(2_000):
        now_ms += chance.choice((0, 1, 40, 5_000))
        late_ms = chance.choice((0, 0, 0, 30, 900_000, 86_400_000, now_ms))
        everything.append(v7(now_ms - late_ms, number) if number % 50 else b"no-uuid-%d" % number)
    there: set[bytes] = set()
    for at in range(0, 2_000, 70):
        channel.add(*map(line, everything[at : at + 70]))
        there.update(everything[at : at + 70])
        if at % 350 == 0:
            channel.roll()
        asked = chance.sample(everything, 90)
        assert set(channel.holds(*asked)) == set(asked) & there
    channel.restart()
    assert sum(len(stretches) for stretches in Notes(channel.notes).read().values()) > 20
    assert set(channel.holds(*everything)) == there
    strangers = [v7(now_ms - chance.randrange(90_000_000), 5_000 + number) for number in range(200)]
    assert channel.holds(*strangers) == []


def test_a_new_message_is_sought_in_none_of_the_stretches_of_a_busy_quarter_of_an_hour(channel: Channel) -> None:
    sought: list[Stretch] = []
    get = channel.loaded.get
    channel.loaded.get = lambda directory, stretch: (sought.append(stretch), get(directory, stretch))[1]  # type: ignore
    ids = [v7(NOW_MS + number // 20, number) for number in range(4_000)]
    channel.add(*map(line, ids))
    channel.holds()
    # Two hosts whose messages take turns, one of them a little behind.
    fresh = [v7(NOW_MS + 200 + number // 20 - 3 * (number % 2), number) for number in range(4_000, 4_500)]
    assert channel.holds(*fresh) == []
    assert len(sought) < 20
    assert channel.holds(*ids[1_000:1_010]) == ids[1_000:1_010]
    assert len(sought) < 30


def test_moments() -> None:
    moment = v7(NOW_MS)[:13]
    assert moment_of(v7(NOW_MS)) == moment_of(v7(NOW_MS).upper()) == moment
    assert moment_of(v4(1)) == moment_of(b"") == moment_of(b"x") == bucket_of(b"") == b""
    assert id_of_line(line(v7(NOW_MS))) == (v7(NOW_MS), moment)
    assert bucket_of(moment) == moment[:7]


def test_notes_that_cannot_be_written_cost_nothing_now(channel: Channel) -> None:
    channel.notes.parent.write_text("a file where a directory should be")
    ids = [v7(NOW_MS + n, n) for n in range(40)]
    channel.add(*map(line, ids))
    channel.roll()
    channel.add(line(v7(NOW_MS + 100)))
    assert channel.holds(*ids) == ids


def test_notes_that_cannot_be_read(tmp_path: Path) -> None:
    assert Notes(tmp_path / "none").read() == {}
    assert Notes(tmp_path).read() == {}
