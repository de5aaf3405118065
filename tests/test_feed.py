"""What a peer gets of its channels, in which pieces, and how far its position is then."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from child import eventually, kill_writer

from keyop.attachment.attachment import Attachment
from keyop.attachment.tail import Tail
from keyop.configuration.settings import Settings, StorageSettings
from keyop.federation.audit import Audit
from keyop.federation.feed import SECOND_LOOK_S, Feed, start_of_new
from keyop.federation.outbound import Outbound, Parcel
from keyop.federation.route import Link
from keyop.federation.traffic import Traffic
from keyop.federation.wire import ANY_VERSION
from keyop.protocol import entry
from keyop.storage.segments import segment_name

TURN = 10_000


def line(number: int, **more: Any) -> bytes:
    envelope = {"v": 1, "id": f"id-{number}", "ts": "", "channel": "c", "origin": "o", "payload_type": "t", **more}
    return json.dumps({**envelope, "payload": number}, separators=(",", ":")).encode()


class Peer:
    """A data directory, and the sending half of a connection to one peer."""

    def __init__(
        self,
        data_dir: Path,
        *channels: str,
        position_id: str | None = "fed-peer",
        features: Any = (),
        storage: dict[str, Any] | None = None,
    ) -> None:
        self.attachment = Attachment(Settings(storage=StorageSettings(data_dir=str(data_dir), **(storage or {}))))
        self.audit = Audit(self.attachment, self.attachment.logger)
        self.channels = channels or ("c",)
        self.position_id = position_id
        self.features = frozenset(features)
        self.number = 0
        self.open()

    def open(self) -> None:
        self.outbound = Outbound(self.attachment, self.channels, self.position_id, "fed-peer", self.audit, Traffic())
        self.outbound._open(None)
        self.connect()

    def connect(self) -> None:
        self.outbound.connected(Link("hub", "peer", self.features, 4_000))

    def append(self, *lines: bytes, channel: str = "c") -> None:
        item = entry.encode(entry.APPEND, channel.encode(), data=b"".join(one + b"\n" for one in lines))
        self.attachment.transact(entry.TRANSACTION.pack(0) + item, channel)
        self.outbound.grown([channel])

    def collect(self, most: int = TURN) -> Parcel | None:
        return self.outbound.collect(most)

    def send(self, most: int = TURN) -> int:
        """Send the next batch; its number."""
        assert self.collect(most) is not None
        return self.sent()

    def sent(self) -> int:
        self.number += 1
        self.outbound.sent(self.number)
        return self.number

    def acknowledge(self, number: int) -> None:
        self.outbound.acknowledged(number, 0.001)

    def position(self, channel: str = "c") -> int:
        return self.outbound.feeds[channel].position

    def numbers(self, parcel: Parcel | None) -> list[int]:
        return [] if parcel is None else [json.loads(one)["payload"] for one in parcel.lines]

    def close(self) -> None:
        self.outbound._close(None)
        self.attachment.close()


@pytest.fixture
def peer(data_dir: Path) -> Iterator[Peer]:
    peer = Peer(data_dir)
    yield peer
    peer.close()


def size(*lines: bytes) -> int:
    return sum(len(one) + 1 for one in lines)


def test_what_was_put_back_stays_whatever_the_list_says(data_dir: Path) -> None:
    """Its envelopes name the channel that they were published to."""
    peer = Peer(data_dir, "c", "c.replay")
    peer.append(line(1, replay_for="s", replay="id-0"), channel="c.replay")
    assert peer.collect() is None
    peer.append(line(2))
    assert peer.numbers(peer.collect()) == [2]
    assert not (data_dir / "subscribers" / "c.replay").exists()
    peer.close()


def test_the_position_follows_what_is_acknowledged(peer: Peer, data_dir: Path) -> None:
    lines = [line(n) for n in range(4)]
    peer.append(*lines[:2])
    first = peer.send()
    peer.append(*lines[2:])
    second = peer.send()
    assert peer.position() == 0
    peer.acknowledge(first)
    assert peer.position() == size(*lines[:2])
    assert peer.outbound.behind_bytes == size(*lines[2:])
    peer.acknowledge(second)
    assert peer.outbound.behind_bytes == 0
    path = data_dir / "subscribers" / "c" / "fed-peer.offset"
    eventually(lambda: int(path.read_text()) == size(*lines))


def test_what_was_not_acknowledged_comes_again(peer: Peer) -> None:
    peer.append(*(line(n) for n in range(3)))
    peer.send(1)
    peer.send(1)
    peer.acknowledge(1)
    peer.connect()
    assert peer.numbers(peer.collect()) == [1, 2]


def test_another_process_goes_on_where_this_one_stopped(peer: Peer, data_dir: Path) -> None:
    peer.append(*(line(n) for n in range(3)))
    peer.acknowledge(peer.send(1))
    peer.close()
    peer.attachment = Attachment(peer.attachment.settings)
    peer.open()
    assert peer.numbers(peer.collect()) == [1, 2]


def test_a_batch_has_its_length_and_at_least_one_record(peer: Peer) -> None:
    peer.append(*(line(n) for n in range(4)), line(4, correlation_id="x" * 2_000), line(5))
    two = 2 * (len(line(0)) + 4)
    batches = []
    while (parcel := peer.collect(two)) is not None:
        batches.append(peer.numbers(parcel))
        peer.sent()
    assert batches == [[0, 1], [2, 3], [4], [5]]


def test_channels_take_turns(data_dir: Path) -> None:
    """One with a backlog goes to the end of the line."""
    peer = Peer(data_dir, "a", "b")
    peer.append(*(line(n, channel="a") for n in range(200)), channel="a")
    peer.append(line(1_000, channel="b"), channel="b")
    batches = []
    while (parcel := peer.collect(2_000)) is not None:
        batches.append(peer.numbers(parcel))
        peer.sent()
    assert 1_000 in [*batches[0], *batches[1], *batches[2]]
    assert sorted(number for batch in batches for number in batch) == [*range(200), 1_000]
    peer.close()


def test_what_stays_is_passed_over_and_the_position_moves(peer: Peer, data_dir: Path) -> None:
    """The peer's own messages, other versions, damaged lines, what is too big: the last is audited."""
    held = line(0, route=["peer", "hub"])
    big = line(1, correlation_id="x" * 5_000)
    other = line(2, v=2)
    lines = [held, big, other, b"not JSON", held]
    peer.append(*lines)
    assert peer.collect() is None
    assert peer.outbound.again_s is not None  # a line that is no JSON may be half written

    def is_over() -> bool:
        assert peer.collect() is None
        return peer.position() == size(*lines)

    eventually(is_over)
    assert peer.outbound.again_s is None
    assert (peer.outbound.held, peer.outbound.too_big) == (2, 1)
    peer.attachment.drain(None)
    log = data_dir / "audit" / "audit.jsonl"
    eventually(lambda: log.exists() and "policy_violation" in log.read_text())
    record = json.loads(log.read_text().splitlines()[0])
    assert (record["message_id"], record["direction"], record["detail"]) == (
        "id-1",
        "outbound",
        f"reason=too_big bytes={len(big)}",
    )


def test_what_stays_behind_something_under_way_waits_for_it(peer: Peer) -> None:
    lines = [line(0), line(1, route=["peer"])]
    peer.append(lines[0])
    first = peer.send()
    peer.append(lines[1])
    assert peer.collect() is None
    assert peer.position() == 0
    peer.acknowledge(first)
    assert peer.position() == size(*lines)


def test_a_peer_of_ours_gets_other_versions(data_dir: Path) -> None:
    peer = Peer(data_dir, features=[ANY_VERSION])
    peer.append(line(2, v=2))
    assert peer.numbers(peer.collect()) == [2]
    peer.close()


def test_much_that_stays_holds_up_nobody_else(peer: Peer) -> None:
    """Two hundred thousand messages of the peer's own: a piece at a time, with others' turns in between."""
    own = line(0, route=["peer", "hub"])
    for _ in range(20):
        peer.append(*[own] * 500)
    looks = 0
    while peer.collect() is None and peer.outbound.again_s == 0.0:
        looks += 1
    assert looks >= 5
    assert peer.outbound.behind_bytes == 0


def test_a_new_position_begins_at_the_end(data_dir: Path) -> None:
    peer = Peer(data_dir, "other")
    peer.append(line(0))
    peer.outbound._close(None)
    peer.channels = ("c", "new")
    peer.open()
    assert peer.collect() is None
    peer.append(line(1))
    peer.append(line(2, channel="new"), channel="new")
    assert sorted(peer.numbers(peer.collect())) == [1, 2]
    peer.close()


def test_an_ephemeral_peer_gets_what_comes_now_and_leaves_nothing(data_dir: Path) -> None:
    first = Peer(data_dir)
    first.append(line(0))
    peer = Peer(data_dir, position_id=None)
    assert peer.collect() is None
    peer.append(line(1))
    assert peer.numbers(peer.collect()) == [1]
    peer.close()
    first.close()
    assert [path.name for path in (data_dir / "subscribers" / "c").iterdir()] == ["fed-peer.offset"]


def test_a_writer_that_dies_takes_no_position_along(peer: Peer, data_dir: Path) -> None:
    peer.append(line(0), line(1))
    peer.acknowledge(peer.send(1))
    kill_writer(data_dir)
    peer.append(line(2))

    def is_sent() -> bool:
        """The old writer's board is looked at until the tick; then the news come of all channels."""
        peer.outbound.grown(["c"])
        if peer.collect() is not None:
            peer.acknowledge(peer.sent())
        return peer.position() == size(line(0), line(1), line(2))

    eventually(is_sent)
    assert peer.outbound.behind_bytes == 0
    path = data_dir / "subscribers" / "c" / "fed-peer.offset"
    eventually(lambda: int(path.read_text()) == size(line(0), line(1), line(2)))


def test_a_channel_that_cannot_be_read_holds_up_no_other(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    peer = Peer(data_dir, "a", "b")
    peer.append(line(1, channel="a"), channel="a")
    peer.append(line(2, channel="b"), channel="b")
    take = Feed.take

    def failing(feed: Feed, *arguments: Any) -> Any:
        if feed.channel == "a":
            raise OSError(errno.EIO, "Input/output error")
        return take(feed, *arguments)

    monkeypatch.setattr(Feed, "take", failing)
    assert peer.numbers(peer.collect()) == [2]
    peer.sent()
    peer.outbound.grown(["a", "b"])
    assert peer.collect() is None
    assert caplog.text.count("a cannot be read") == 1
    monkeypatch.undo()
    peer.outbound.grown(["a"])
    assert peer.numbers(peer.collect()) == [1]
    peer.close()


def test_what_a_peer_sends_fits_into_an_audit_line(peer: Peer, data_dir: Path) -> None:
    """Else it would stand before all others for ever."""
    peer.audit.event("client_connected", peer="p", detail="sub=[" + "x," * 500_000 + "]")
    peer.audit.forwarded("inbound", "p", [("c", "i" * 3_000_000)])
    peer.audit.event("last", peer="p")
    peer.attachment.drain(None)
    log = data_dir / "audit" / "audit.jsonl"
    eventually(lambda: log.exists() and log.read_text().count("\n") == 3)
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [record["event"] for record in records] == ["client_connected", "forward", "last"]
    assert len(records[0]["detail"]) == 4_099
    assert len(records[1]["message_id"]) == 200
    assert peer.audit.dropped == 0


def test_half_a_line_is_waited_for(peer: Peer, data_dir: Path) -> None:
    """Case 3."""
    peer.append(line(0))
    peer.acknowledge(peer.send())
    half = line(1)
    with (data_dir / "channels" / "c" / segment_name(0)).open("ab") as file:
        file.write(half[:20])
        file.flush()
        peer.outbound.grown(["c"])
        assert peer.collect() is None
        assert peer.position() == size(line(0))


def test_nothing_is_judged_while_the_writer_waits_for_its_disk(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a failed sync has lost may read as zeros, and is written again."""
    peer.append(line(0), b"\0" * 100, line(1))
    assert peer.numbers(peer.collect()) == [0]
    peer.acknowledge(peer.sent())
    monkeypatch.setattr(Tail, "settled", False)
    deadline_s = time.monotonic() + 5 * SECOND_LOOK_S
    while time.monotonic() < deadline_s:
        assert peer.collect() is None
        assert peer.outbound.again_s is not None
    assert peer.position() == size(line(0))
    monkeypatch.setattr(Tail, "settled", True)
    parcels = []
    eventually(lambda: parcels.append(peer.collect()) or parcels[-1] is not None)
    assert peer.numbers(parcels[-1]) == [1]


def test_what_is_removed_under_a_slow_peer_is_said(data_dir: Path) -> None:
    """Case 39."""
    peer = Peer(data_dir, storage={"compaction_threshold_mb": 1})
    lines = [line(n, correlation_id="x" * 2_000) for n in range(1_200)]
    for at in range(0, 1_200, 100):
        peer.append(*lines[at : at + 100])
    first, second, *_ = sorted((data_dir / "channels" / "c").glob("*.jsonl"))
    start = int(second.name[:20])
    assert peer.numbers(peer.collect(100)) == [0]
    peer.acknowledge(peer.sent())
    peer.outbound._close(None)
    peer.open()
    first.unlink()
    parcel = peer.collect(100)
    assert parcel is not None
    assert parcel.lines[0] == second.open("rb").readline().rstrip(b"\n")
    peer.attachment.drain(None)
    log = data_dir / "audit" / "audit.jsonl"
    eventually(lambda: log.exists() and "replay_gap" in log.read_text())
    (record,) = [json.loads(line) for line in log.read_text().splitlines() if "replay_gap" in line]
    at = size(lines[0])
    assert (record["channel"], record["peer"]) == ("c", "peer")
    assert record["detail"] == f"from={at} to={start} bytes={start - at}"
    peer.close()


def test_where_an_older_go_program_had_stopped(data_dir: Path) -> None:
    attachment = Attachment(Settings(storage=StorageSettings(data_dir=str(data_dir))))
    offsets = data_dir / "subscribers" / "c"
    offsets.mkdir()
    for text, start in (("17\n", 17), (" 0005 ", 5), ("1_0", 0), ("", 0), ("-5", 0)):
        (offsets / "fed-a:b.offset").write_text(text)
        assert start_of_new(attachment, "c", "fed-a_b", "fed-a:b") == start
    assert start_of_new(attachment, "c", "fed-a_b", "fed-a_b") is None
    assert start_of_new(attachment, "c", "fed-x", "fed-x:y") is None
    assert start_of_new(attachment, "c", "fed-_", "fed-../../../etc/passwd") is None
    attachment.close()
