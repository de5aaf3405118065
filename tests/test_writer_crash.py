"""The writer killed at every named step of the commit, of the checkpoint, and of the recovery, under traffic."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
from chain import Chain
from child import ROOT, Child, eventually, freeze, kill_writer
from conftest import leave
from writers import TINY, Writer

from keyop import Messenger
from keyop.protocol import entry
from keyop.protocol.writer_options import WriterOptions
from keyop.storage.directory import DataDirectory
from keyop.storage.offset_file import write_offset
from keyop.storage.offsets import read_offset
from keyop.storage.segments import list_segments, segment_name
from keyop.writer.process import EXIT_BUSY

SECONDS = float(os.environ.get("KEYOP_TEST_SECONDS", "5"))

# Which step for which time: rolls, and the turns of the journal's files, come several times in each run.
COMMIT_STEPS = [
    f"{step}:{count}"
    for step, counts in {
        "frame.written": (1, 400),
        "frame.synced": (1,),
        "applied": (200,),
        "settled": (200,),
        "segment.created": (9,),
        "segment.written": (30,),
        "segment.rolled": (1,),
        "journal.switched": (1,),
        "checkpoint.segments_synced": (1,),
        "checkpoint.synced": (1,),
        "free.zeroed": (1,),
        "free.synced": (1,),
        "checkpoint.freed": (1,),
    }.items()
    for count in counts
]
RECOVERY_STEPS = [
    "recovery.journal_synced:1",
    "recovery.written:1",
    "recovery.applied:1",
    "recovery.offsets_synced:1",
    "recovery.zeroed:1",
    "recovery.freed:1",
]
ELSEWHERE = {"segment.removed", "offset.drafted", "deletion.put_away", "deletion.removed"}


def test_every_step_in_the_code_is_among_them() -> None:
    named = {
        name
        for path in (ROOT / "keyop").rglob("*.py")
        for name in re.findall(r'disk\.step\("([a-z_.]+)"\)', path.read_text())
    }
    assert named == {step.partition(":")[0] for step in COMMIT_STEPS + RECOVERY_STEPS} | ELSEWHERE


@pytest.fixture(scope="module", params=[0, 20], ids=["strict", "periodic"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """One set of processes for all steps: starting Python is what such a test costs."""
    data_dir = tmp_path_factory.mktemp("crash") / "data"
    chain = Chain(data_dir, request.param)
    for name in ("p", "q", "subscriber"):
        chain.start(name)
    yield chain
    try:
        chain.stop()
        chain.check()
        segments = DataDirectory(data_dir).channel("in").glob("*.jsonl")
        assert len(list(segments)) > 5
    finally:
        chain.close()
        leave(data_dir)


def replace_writer(chain: Chain, step: str) -> Writer:
    """End the writer that runs and have one take over that dies at a step."""
    while True:
        kill_writer(chain.data_dir)
        # The children start one, too, within half a second: whose is refused tries again.
        env = {"KEYOP_CRASH_AT": step}
        writer = Writer(chain.data_dir, on_demand=True, env=env, sync_interval_ms=chain.sync_ms, **TINY)
        if writer.settled() != EXIT_BUSY:
            return writer
        writer.end()


@pytest.mark.parametrize("step", COMMIT_STEPS)
def test_killed_at_a_step_of_the_commit(running: Chain, step: str) -> None:
    writer = replace_writer(running, step)
    assert writer.end() == -9, "".join(writer.lines)
    running.progress(5)


@pytest.mark.parametrize("step", RECOVERY_STEPS)
def test_killed_at_a_step_of_the_recovery(running: Chain, step: str) -> None:
    """Whether the recovery has anything to write depends on where the last writer was killed."""
    for _ in range(8):
        running.progress(3)
        writer = replace_writer(running, step)
        if writer.process.poll() == -9:
            break
    else:
        assert step == "recovery.written:1"
    running.progress(3)


@pytest.mark.parametrize("step", ["recovery.journal_synced:2", "recovery.zeroed:1", "recovery.zeroed:2"])
def test_killed_in_a_recovery_of_both_files(data_dir: Path, step: str) -> None:
    """The last writer was killed in the middle of a checkpoint, so that both files of the journal are live."""
    env = {"KEYOP_CRASH_AT": "checkpoint.segments_synced:1"}
    with Writer(data_dir, on_demand=True, env=env, **TINY) as first, Messenger(data_dir) as m:
        published = 0
        while first.process.poll() is None:
            m.publish("c", {"n": published, "pad": "x" * 500}, payload_type="t")
            published += 1
        again = Writer(data_dir, on_demand=True, env={"KEYOP_CRASH_AT": step}, **TINY)
        again.settled()
        m.publish("c", {"n": published}, payload_type="t")
        published += 1
    lines = b"".join(at.path.read_bytes() for at in list_segments(DataDirectory(data_dir).channel("c"))[0])
    assert [json.loads(line)["payload"]["n"] for line in lines.splitlines()] == list(range(published))


@pytest.mark.parametrize("first", ["publish", "checkpoint"])
@pytest.mark.parametrize("step", ["checkpoint.synced:1", "free.zeroed:1", "free.synced:1", "checkpoint.freed:1"])
def test_killed_in_a_checkpoint_that_is_asked_for_in_the_round_of_a_publish(
    data_dir: Path, step: str, first: str
) -> None:
    """When the frame is freed the rings know how far it has taken them: nothing is taken twice."""
    with Writer(data_dir, on_demand=True, env={"KEYOP_CRASH_AT": step}, **TINY) as writer, Messenger(data_dir) as m:
        m.publish("c", {"n": 0}, payload_type="t")
        _, line, _ = m._publisher.prepare("c", {"n": 1}, "t", None, None, None)
        assert line is not None
        ask = entry.TRANSACTION.pack(0) + entry.encode(entry.CHECKPOINT)
        with Messenger(data_dir) as other:
            freeze(writer.process.pid)
            pair = [(m, line), (other, ask)] if first == "publish" else [(m, ask), (other, line)]
            for messenger, transaction in [*pair, (m, ask), (m, line)]:
                last = messenger._attachment.send(transaction)
            os.kill(writer.process.pid, signal.SIGCONT)
            assert writer.end() == -9
            m._attachment.wait(last)
    lines = b"".join(at.path.read_bytes() for at in list_segments(DataDirectory(data_dir).channel("c"))[0])
    assert [json.loads(line)["payload"]["n"] for line in lines.splitlines()] == [0, 1, 1]


def test_killed_while_a_new_offset_file_is_made(data_dir: Path) -> None:
    with (
        Writer(data_dir, on_demand=True, env={"KEYOP_CRASH_AT": "offset.drafted:1"}) as first,
        Messenger(data_dir) as m,
    ):
        m.publish("c", {"n": 0}, payload_type="t")
        got: list[int] = []
        m.subscribe("c", "s", lambda message: got.append(message.payload["n"]), start="earliest")
        assert first.end() == -9
        m.publish("c", {"n": 1}, payload_type="t")
        eventually(lambda: got == [0, 1])
    offset = read_offset(DataDirectory(data_dir).offset_file("c", "s"))
    assert offset is not None
    assert offset.value == DataDirectory(data_dir).channel("c").joinpath(segment_name(0)).stat().st_size


def test_killed_between_two_segments_that_it_removes(data_dir: Path) -> None:
    directory = DataDirectory(data_dir)
    with Writer(data_dir, **{**TINY, "max_files": 0}), Messenger(data_dir) as m:
        m.publish_batch("c", [{"n": n, "pad": "x" * 300} for n in range(60)], payload_type="t")
    starts = [at.start for at in list_segments(directory.channel("c"))[0]]
    directory.offsets("c").mkdir()
    write_offset(directory.offset_file("c", "s"), starts[4])
    source = """
    import sys
    from keyop.writer import retention
    retention.EVERY_S = 0.0
    from keyop.writer.__main__ import main
    os._exit(main(sys.argv[2:]))
    """
    arguments = WriterOptions(str(data_dir)).to_arguments()
    with Child(source, data_dir, "on_demand=0", *arguments, env={"KEYOP_CRASH_AT": "segment.removed:2"}) as child:
        assert child.end() == -9
    assert [at.start for at in list_segments(directory.channel("c"))[0]] == starts[2:]
    with Messenger(data_dir) as m:
        got: list[int] = []
        m.subscribe("c", "s", lambda message: got.append(message.payload["n"]))
        eventually(lambda: got and got[-1] == 59)
    assert got == list(range(got[0], 60))


def test_kills_at_random(data_dir: Path) -> None:
    """Writer, publishers and subscriber, any of them at any time. KEYOP_TEST_SECONDS makes it long."""
    chance = random.Random(os.environ.get("KEYOP_TEST_SEED", "7"))
    chain = Chain(data_dir, chance.choice((0, 20)))
    try:
        for name in ("p", "q", "subscriber"):
            chain.start(name)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            victim = chance.choice(("writer", "writer", "writer", "p", "q", "subscriber"))
            time.sleep(chance.random() * 0.3)  # a moment at random is what is tested
            if victim == "writer":
                kill_writer(data_dir)
            else:
                chain.kill(victim)
        chain.progress(3)
        chain.stop()
        chain.check()
    finally:
        chain.close()
