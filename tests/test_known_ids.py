"""Whether a message stands in a channel already: the index of a channel's ids, against the plain set of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from keyop.federation import id_stretches
from keyop.federation.id_stretches import Loaded, Notes, Stretch
from keyop.federation.known_ids import ChannelIds
from keyop.protocol.inbound import id_hash

SEGMENT = "{:020d}.jsonl"


class Channel:
    """A channel's directory, written without a writer, and its index."""

    def __init__(self, path: Path) -> None:
        self.directory = path / "channels" / "busy"
        self.directory.mkdir(parents=True)
        self.notes = path / "ids" / "busy.json"
        self.loaded = Loaded()
        self.ids: list[bytes] = []
        self._segments = [0]
        self._end = 0

    def add(self, ids: list[bytes]) -> None:
        data = b"".join(b'{"v":1,"id":"%b","ts":"","channel":"busy","payload":1}\n' % id for id in ids)
        with (self.directory / SEGMENT.format(self._segments[-1])).open("ab") as file:
            file.write(data)
        self._end += len(data)
        self.ids += ids

    def roll(self) -> None:
        self._segments.append(self._end)
        (self.directory / SEGMENT.format(self._end)).touch()

    def open(self) -> ChannelIds:
        return ChannelIds(self.directory, self.notes, self.loaded)

    def known(self, index: ChannelIds, ids: list[bytes]) -> set[bytes]:
        hashes = [id_hash(id) for id in ids]
        found = index.known(ids, hashes, self._end)
        return {id for id, hash in zip(ids, hashes, strict=True) if hash in found}


def v7(ms: int, rest: int) -> bytes:
    text = f"{ms:012x}7{rest:03x}8{rest:015x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])).encode()


@pytest.fixture
def channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Channel:
    monkeypatch.setattr(id_stretches, "STRETCH_IDS", 16)
    return Channel(tmp_path)


def test_it_knows_what_is_there_and_nothing_else(channel: Channel) -> None:
    chance = random.Random(8)
    index = channel.open()
    now_ms = 1_800_000_000_000
    everything: list[bytes] = []
    for number in range(2_000):
        now_ms += chance.choice((0, 1, 40, 5_000))
        late_ms = chance.choice((0, 0, 0, 30, 900_000, 86_400_000, now_ms))
        everything.append(v7(now_ms - late_ms, number) if number % 50 else b"no-uuid-%d" % number)
    order = list(everything)
    while order:
        channel.add(order[:70])
        del order[:70]
        if len(channel.ids) % 350 == 0:
            channel.roll()
        asked = chance.sample(everything, 90)
        assert channel.known(index, asked) == set(asked) & set(channel.ids)
    index.close()
    # What sealed segments hold was noted; the next process reads it from there.
    noted = Notes(channel.notes).read()
    assert sum(len(stretches) for stretches in noted.values()) > 20
    again = channel.open()
    assert channel.known(again, everything) == set(everything)
    strangers = [v7(now_ms - chance.randrange(90_000_000), 5_000 + number) for number in range(200)]
    assert channel.known(again, strangers) == set()
    again.close()


def test_a_new_message_is_sought_in_none_of_the_stretches_of_a_busy_quarter_of_an_hour(channel: Channel) -> None:
    sought: list[Stretch] = []
    get = channel.loaded.get
    channel.loaded.get = lambda directory, stretch: (sought.append(stretch), get(directory, stretch))[1]  # type: ignore
    index = channel.open()
    began_ms = 1_800_000_000_000
    channel.add([v7(began_ms + number // 20, number) for number in range(4_000)])
    channel.known(index, [])
    # Two hosts whose messages take turns, one of them a little behind.
    fresh = [v7(began_ms + 200 + number // 20 - 3 * (number % 2), number) for number in range(4_000, 4_500)]
    assert channel.known(index, fresh) == set()
    assert len(sought) < 20
    old = channel.ids[1_000:1_010]
    assert channel.known(index, old) == set(old)
    assert len(sought) < 30
