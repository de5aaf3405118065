"""Audit records on their way to the writer: never in the way of a message, dropped and counted where too many wait
(case 81)."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from child import eventually, freeze, writer_pid

from keyop.attachment.attachment import Attachment
from keyop.configuration.lookup import settings_for
from keyop.federation.audit import Audit

_log = logging.getLogger("keyop.test")


@pytest.fixture
def attachment(data_dir: Path) -> Iterator[Attachment]:
    attached = Attachment(settings_for(data_dir))
    yield attached
    attached.close()


def details(data_dir: Path) -> list[str]:
    lines = (data_dir / "audit" / "audit.jsonl").read_text().splitlines()
    return [json.loads(line)["detail"] for line in lines]


def test_ten_thousand_at_once(attachment: Attachment, data_dir: Path) -> None:
    """On a loop that has not had a turn in between: none is lost, and they keep their order."""

    async def play() -> None:
        audit = Audit(attachment, _log, asyncio.get_running_loop())
        for number in range(10_000):
            audit.event("policy_violation", peer="p", detail=str(number))
        while audit._waiting:
            audit.flush()
            await asyncio.sleep(0)
        assert audit.dropped == 0

    asyncio.run(play())
    attachment.drain(None)
    # Audit lines are written behind the commit that they came with.
    eventually(lambda: len(details(data_dir)) == 10_000)
    assert details(data_dir) == [str(number) for number in range(10_000)]


def test_what_has_no_room_is_dropped_and_counted(
    attachment: Attachment, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The writer stands still: what waits is bounded, and is written when it goes on, at the end at the latest."""
    attachment.drain(None)
    pid = writer_pid(data_dir)
    assert pid is not None
    freeze(pid)
    try:
        audit = Audit(attachment, _log)
        for number in range(10_000):
            audit.event("policy_violation", peer="p", detail=f"{number} {'x' * 300}")
        assert 0 < audit._waiting_bytes <= 1 << 20
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: (audit.flush(), not audit._waiting)[1])
    attachment.drain(None)
    eventually(lambda: len(details(data_dir)) == 10_000 - audit.dropped)
    written = [int(detail.partition(" ")[0]) for detail in details(data_dir)]
    assert written == sorted(written)
    assert audit.dropped > 0
    assert "audit records were dropped: the writer does not keep up" in caplog.text
