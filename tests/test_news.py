"""News of channels that have grown, with and without a cursor there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from child import DEADLINE_S, eventually, kill_writer

from keyop.attachment.attachment import Attachment
from keyop.configuration.settings import Settings, StorageSettings
from keyop.federation.news import News
from keyop.protocol import entry


@pytest.fixture
def attachment(data_dir: Path) -> Iterator[Attachment]:
    attachment = Attachment(Settings(storage=StorageSettings(data_dir=str(data_dir))))
    yield attachment
    attachment.close()


def publish(attachment: Attachment, channel: str) -> None:
    item = entry.encode(entry.APPEND, channel.encode(), data=b"x\n")
    attachment.transact(entry.TRANSACTION.pack(0) + item, channel)


class Heard:
    """What the listener was told, and a wait that no tick ends."""

    def __init__(self, attachment: Attachment) -> None:
        self.channels: set[str] = set()
        self.some = asyncio.Event()
        self.news = News(attachment, asyncio.get_running_loop(), self._hear)

    def _hear(self, channels: set[str]) -> None:
        self.channels |= channels
        self.some.set()

    async def next(self) -> set[str]:
        await asyncio.wait_for(self.some.wait(), DEADLINE_S)
        self.some.clear()
        found, self.channels = self.channels, set()
        return found


def test_growth_is_posted_to_who_has_no_cursor_there(attachment: Attachment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a tick: ephemeral peers hear at once."""
    monkeypatch.setattr(Attachment, "tick", lambda _self: None)
    other = Attachment(attachment.settings)

    async def play() -> None:
        heard = Heard(attachment)
        for channel in ("a", "b"):
            await asyncio.to_thread(publish, other, channel)
        heard.news.follow("a")
        await asyncio.to_thread(attachment.drain, None)
        assert await heard.next() == {"a"}
        for _ in range(3):
            await asyncio.to_thread(publish, other, "a")
            assert await heard.next() == {"a"}
        await asyncio.to_thread(publish, other, "b")
        heard.news.follow("b")
        assert await heard.next() == {"b"}
        heard.news.leave("a")
        await asyncio.to_thread(publish, other, "a")
        await asyncio.to_thread(publish, other, "b")
        assert await heard.next() == {"b"}
        heard.news.close()

    asyncio.run(play())
    other.close()


def test_a_channel_that_does_not_exist_is_not_made(attachment: Attachment, data_dir: Path) -> None:
    """A peer may make up names. From the first tick behind its first message on it is like any other."""

    async def play() -> None:
        heard = Heard(attachment)
        heard.news.follow("made-up")
        heard.news.follow("later")
        heard.news.leave("made-up")
        ticks = attachment.ticks
        await asyncio.to_thread(eventually, lambda: attachment.ticks > ticks + 1)
        await asyncio.to_thread(attachment.drain, None)
        assert list((data_dir / "channels").iterdir()) == []
        await asyncio.to_thread(publish, attachment, "later")
        while "later" not in await heard.next():
            pass
        ticks = attachment.ticks
        await asyncio.to_thread(eventually, lambda: attachment.ticks > ticks + 1)
        assert heard.news._absent == set()
        assert heard.news._untold == {}
        heard.news.close()

    asyncio.run(play())
    assert [path.name for path in (data_dir / "channels").iterdir()] == ["later"]


def test_another_writer_is_told_again(attachment: Attachment, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        heard = Heard(attachment)
        heard.news.follow("a")
        await asyncio.to_thread(publish, attachment, "a")
        before = attachment.writer.board.incarnation
        await asyncio.to_thread(kill_writer, data_dir)
        await asyncio.to_thread(publish, attachment, "a")
        await asyncio.to_thread(eventually, lambda: attachment.writer.board.incarnation != before)
        # The next tick tells it; behind that no tick is needed.
        ticks = attachment.ticks
        await asyncio.to_thread(eventually, lambda: attachment.ticks > ticks + 1)
        monkeypatch.setattr(Attachment, "tick", lambda _self: None)
        await asyncio.to_thread(attachment.drain, None)
        heard.some.clear()
        await asyncio.to_thread(publish, attachment, "a")
        assert "a" in await heard.next()
        heard.news.close()

    asyncio.run(play())
