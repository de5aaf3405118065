"""follow(): real files, real watching, and what is not to be delivered."""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import keyop
from keyop.inspection.lookback import offset_of_last
from keyop.messages.envelope import EnvelopeEncoder
from keyop.storage.segments import segment_name

GO_DATADIR = Path(__file__).parent / "fixtures" / "go-datadir"


class Channel:
    """A channel whose files a test writes itself: no writer runs here."""

    def __init__(self, data_dir: Path, name: str = "c") -> None:
        self.data_dir = data_dir
        self.path = data_dir / "channels" / name
        self.name = name
        self._encoder = EnvelopeEncoder("test")
        (data_dir / "channels").mkdir(parents=True, exist_ok=True)

    def line(self, number: int) -> bytes:
        return self._encoder.encode(self.name, b"%d" % number, "t")[1]

    def append(self, data: bytes, start: int = 0) -> int:
        """Append to a segment; its new end."""
        self.path.mkdir(exist_ok=True)
        with (self.path / segment_name(start)).open("ab") as file:
            file.write(data)
            return start + file.tell()

    def add(self, *numbers: int, start: int = 0) -> int:
        return self.append(b"".join(map(self.line, numbers)), start)


@pytest.fixture
def channel(tmp_path: Path) -> Channel:
    return Channel(tmp_path / "data")


def numbers(channel: Channel, start: object = "earliest") -> list[int]:
    return [message.payload for message in keyop.follow(channel.data_dir, channel.name, start, wait=False)]  # type: ignore[arg-type]


def test_reads_from_everywhere(channel: Channel) -> None:
    middle = channel.add(1, 2)
    end = channel.add(3)
    channel.add(4, start=end)
    assert numbers(channel) == [1, 2, 3, 4]
    assert numbers(channel, middle) == [3, 4]
    assert numbers(channel, "latest") == []
    assert numbers(channel, datetime.now(UTC) - timedelta(minutes=1)) == [1, 2, 3, 4]
    assert numbers(channel, datetime.now() + timedelta(minutes=1)) == []


def test_an_offset_inside_a_record_goes_to_its_start(channel: Channel, caplog: pytest.LogCaptureFixture) -> None:
    middle = channel.add(1)
    channel.add(2)
    assert numbers(channel, middle + 5) == [2]
    assert "inside a record" in caplog.text
    assert numbers(channel, 10**6) == []


def test_a_message_carries_its_offset(channel: Channel) -> None:
    middle = channel.add(1)
    channel.add(2)
    offsets = [message.offset for message in keyop.follow(channel.data_dir, "c", "earliest", wait=False)]
    assert offsets == [0, middle]


def test_waits_for_a_channel_and_for_the_end_of_a_line(channel: Channel) -> None:
    seen: list[int] = []
    came = threading.Semaphore(0)
    follower = keyop.follow(channel.data_dir, "c", "earliest")

    def read() -> None:
        for message in follower:
            seen.append(message.payload)
            came.release()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        line = channel.line(1)
        channel.append(line[:20])
        channel.append(line[20:])
        assert came.acquire(timeout=10)
        end = channel.append(channel.line(2)[:-1])
        # The torn line is not delivered; a segment behind it is.
        channel.add(3, start=end)
        assert came.acquire(timeout=10)
        assert seen == [1, 3]
    finally:
        follower.close()
        reader.join(10)
    assert not reader.is_alive()


def test_async_for(channel: Channel) -> None:
    async def first_two() -> list[int]:
        seen = []
        with keyop.follow(channel.data_dir, "c", "latest") as follower:
            asyncio.get_running_loop().call_later(0.05, channel.add, 1, 2)
            async for message in follower:
                seen.append(message.payload)
                if len(seen) == 2:
                    break
        return seen

    channel.add(0)
    assert asyncio.run(asyncio.wait_for(first_two(), 10)) == [1, 2]


def test_damaged_lines_are_passed_over_alone(channel: Channel, caplog: pytest.LogCaptureFixture) -> None:
    channel.add(1)
    channel.append(b'{"v":1,"id":"torn' + channel.line(2) + b"\0\0\0\n" + b'{"v":9}\n')
    channel.add(3)
    with caplog.at_level(logging.WARNING):
        assert numbers(channel) == [1, 2, 3]
    assert "its last whole envelope counts" in caplog.text
    assert "v is 9" in caplog.text


def test_bad_arguments(channel: Channel, tmp_path: Path) -> None:
    with pytest.raises(keyop.ChannelNameError):
        keyop.follow(channel.data_dir, "../c")
    with pytest.raises(keyop.DataDirectoryError, match="no such directory"):
        keyop.follow(tmp_path / "nowhere", "c")
    with pytest.raises(ValueError, match="latest"):
        keyop.follow(channel.data_dir, "c", "newest")  # type: ignore[arg-type]


def test_a_directory_of_the_go_program_is_read_where_it_lies(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(GO_DATADIR, copy)
    before = sorted((path, path.stat().st_mtime_ns) for path in copy.rglob("*"))
    assert len(list(keyop.follow(copy, "bulk", "earliest", wait=False))) == 1300
    assert len(list(keyop.follow(copy, "alerts.dead-letter", "earliest", wait=False))) == 1
    assert sorted((path, path.stat().st_mtime_ns) for path in copy.rglob("*")) == before


def test_the_last_few_over_segments(channel: Channel) -> None:
    one = channel.add(1)
    two = channel.add(2)
    three = channel.add(3, start=two)
    channel.append(b"torn", start=two)
    assert offset_of_last(channel.path, 0) == three
    assert offset_of_last(channel.path, 1) == two
    assert offset_of_last(channel.path, 2) == one
    assert offset_of_last(channel.path, 3) == 0
    assert offset_of_last(channel.path, 100) == 0
    assert offset_of_last(channel.data_dir / "channels" / "none", 5) == 0
    big = channel.append(b"x" * 200_000 + b"\n", start=three)
    assert offset_of_last(channel.path, 1) == three
    assert big == three + 200_001
