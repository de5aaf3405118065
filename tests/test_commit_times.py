"""The writer counts how long its commits and syncs take."""

from __future__ import annotations

from pathlib import Path

from child import eventually

from keyop import Config, Messenger
from keyop.ipc import layout
from keyop.ipc.histogram import Distribution

TYPE = "com.example.number.v1"


def times(m: Messenger) -> tuple[Distribution, Distribution]:
    board = m._attachment.writer.board
    return board.times(layout.BOARD_COMMIT_TIMES), board.times(layout.BOARD_SYNC_TIMES)


def test_strict_commits_are_counted_with_their_syncs(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        for number in range(10):
            m.publish("a", number, payload_type=TYPE)
        eventually(lambda: times(m)[0].total >= 10)
        commits, syncs = times(m)
    assert syncs.total >= 10
    assert syncs.sum_s <= commits.sum_s
    assert (syncs.mean_s or 9) < 10


def test_periodic_commits_wait_for_no_disk_and_its_syncs_are_counted(data_dir: Path) -> None:
    with Messenger(Config(storage={"data_dir": str(data_dir), "sync_interval_ms": 20})) as m:
        for number in range(10):
            m.publish("a", number, payload_type=TYPE)
        eventually(lambda: times(m)[1].total >= 1)
        assert times(m)[0].total == 0
        m.publish("a", 0, payload_type=TYPE, sync=True)
        eventually(lambda: times(m)[0].total == 1)
