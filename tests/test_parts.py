"""Several processes, or threads of one, share the work of one subscriber id."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from child import Child, eventually, kill_writer
from conftest import end_writer
from inbox import DEADLINE_S, Inbox
from pydantic import BaseModel
from writers import Writer

from keyop import Message, Messenger, RetryLater, SubscriberBusy, aio, follow
from keyop.storage.directory import DataDirectory
from keyop.storage.offsets import read_offset
from keyop.storage.parts import places, read_parts
from keyop.storage.segments import channel_end

TYPE = "com.example.number.v1"


def customer(message: Message[Any]) -> str:
    return str(message.payload["customer"])


def part_of(key: str, parts: int) -> int:
    """Counted from 1."""
    return crc32(key.encode()) % parts + 1


def keys_of(part: int, parts: int, count: int) -> list[str]:
    """Keys that are this part's."""
    found = []
    number = 0
    while len(found) < count:
        if part_of(f"k{number}", parts) == part:
            found.append(f"k{number}")
        number += 1
    return found


def publish(m: Messenger, *customers: str, channel: str = "c") -> None:
    m.publish_batch(channel, [{"customer": each, "n": n} for n, each in enumerate(customers)], payload_type=TYPE)


def filed(data_dir: Path, channel: str = "c", id: str = "s") -> tuple[int, ...]:
    """Where the files say that the parts are; none if there are no files."""
    directory = DataDirectory(data_dir)
    where: tuple[int, ...] = ()

    def fit() -> bool:
        nonlocal where
        parsed = read_offset(directory.offset_file(channel, id))
        if parsed is None:
            where = ()
            return True
        where, why = places(parsed.value, read_parts(directory.parts_file(channel, id)))
        return why is None

    eventually(fit)  # a look may come between the writing of the two
    return where


def end(data_dir: Path, channel: str = "c") -> int:
    return channel_end(data_dir / "channels" / channel)


# ---- who handles what


def test_each_message_is_handled_once_and_keys_stay_together(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        inboxes = [Inbox() for _ in range(3)]
        for number, inbox in enumerate(inboxes, 1):
            m.subscribe("c", "s", inbox, part=(number, 3), key=customer)
        publish(m, *(f"k{n % 11}" for n in range(300)))
        assert m.drain(DEADLINE_S)
        for number, inbox in enumerate(inboxes, 1):
            got = inbox.take(inbox.messages.qsize())
            assert got == sorted(got, key=lambda payload: payload["n"])
            assert {part_of(payload["customer"], 3) for payload in got} == {number}
            assert len(got) == sum(part_of(f"k{n % 11}", 3) == number for n in range(300))
        eventually(lambda: filed(data_dir) == (end(data_dir),) * 3)


def test_without_a_key_the_ids_spread_the_work(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        inboxes = [Inbox() for _ in range(4)]
        for number, inbox in enumerate(inboxes, 1):
            m.subscribe("c", "s", inbox, part=(number, 4))
        ids = m.publish_batch("c", range(400), payload_type=TYPE)
        assert m.drain(DEADLINE_S)
        got = [[inbox.next().id for _ in range(inbox.messages.qsize())] for inbox in inboxes]
        assert sorted(id for each in got for id in each) == sorted(ids)
        assert all(crc32(id.encode()) % 4 == number for number, each in enumerate(got) for id in each)
        assert all(len(each) > 40 for each in got)


def test_a_part_that_is_busy_holds_up_nobody_else(data_dir: Path) -> None:
    """Messages of its own keys wait; the id's offset waits with them."""
    go_on = threading.Event()
    held = Inbox(lambda _message: go_on.wait(DEADLINE_S) and None)
    free = Inbox()
    mine, others = keys_of(1, 2, 1)[0], keys_of(2, 2, 1)[0]
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", held, part=(1, 2), key=customer)
        m.subscribe("c", "s", free, part=(2, 2), key=customer)
        publish(m, others, mine, *[others] * 50, mine)
        first = held.next()
        assert len(free.take(51)) == 51
        eventually(lambda: filed(data_dir) == (first.offset, end(data_dir)))
        go_on.set()
        eventually(lambda: filed(data_dir) == (end(data_dir), end(data_dir)))


def test_retry_later_pauses_one_part(data_dir: Path) -> None:
    class Shop:
        open = False

        def __call__(self, message: Message[Any]) -> None:
            if not self.open:
                refused.put(message)
                raise RetryLater

    refused = Inbox().messages
    shop, free = Shop(), Inbox()
    mine, others = keys_of(1, 2, 1)[0], keys_of(2, 2, 1)[0]
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", shop, part=(1, 2), key=customer)
        m.subscribe("c", "s", free, part=(2, 2), key=customer)
        publish(m, mine, *[others] * 20)
        refused.get(timeout=DEADLINE_S)
        assert len(free.take(20)) == 20
        shop.open = True
        assert m.drain(DEADLINE_S)


def test_registered_types_come_to_key_and_handler(data_dir: Path) -> None:
    class Order(BaseModel):
        customer: str

    seen: list[Any] = []

    def key(message: Message[Order]) -> str:
        seen.append(message.payload)
        return message.payload.customer

    with Messenger(data_dir) as m:
        m.register_payload_type("order", Order)
        inboxes = [Inbox(), Inbox()]
        for number, inbox in enumerate(inboxes, 1):
            m.subscribe("c", "s", inbox, part=(number, 2), key=key)
        names = [keys_of(1, 2, 1)[0], keys_of(2, 2, 1)[0]]
        for name in names:
            m.publish("c", Order(customer=name))
        assert [inbox.next().payload for inbox in inboxes] == [Order(customer=name) for name in names]
        assert all(isinstance(each, Order) for each in seen)


def test_one_part_of_one_is_a_plain_subscriber(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        inbox = Inbox()
        m.subscribe("c", "s", inbox, part=(1, 1), key=customer)
        publish(m, "a", "b")
        assert len(inbox.take(2)) == 2
        assert m.drain(DEADLINE_S)
    assert filed(data_dir) == (end(data_dir),)
    assert not DataDirectory(data_dir).parts_file("c", "s").exists()


def test_asyncio_and_patterns_take_parts_as_well(data_dir: Path) -> None:
    async def main() -> None:
        got: list[list[str]] = [[], []]
        done = asyncio.Event()

        async def handle(number: int, message: Message[Any]) -> None:
            got[number - 1].append(message.payload["customer"])
            if sum(map(len, got)) == 20:
                done.set()

        async with aio.Messenger(data_dir) as m:
            for number in (1, 2):

                async def handler(message: Message[Any], number: int = number) -> None:
                    await handle(number, message)

                await m.subscribe("room.*", "s", handler, start="earliest", part=(number, 2), key=customer)
            for n in range(20):
                await m.publish(f"room.{n % 2}", {"customer": f"k{n}"}, payload_type=TYPE)
            await asyncio.wait_for(done.wait(), DEADLINE_S)
        assert [{part_of(each, 2) for each in mine} for mine in got] == [{1}, {2}]

    asyncio.run(main())


# ---- what fails


def letters(data_dir: Path, channel: str = "c") -> list[Any]:
    return [message.payload for message in follow(data_dir, f"{channel}.dead-letter", "earliest", wait=False)]


def test_a_dead_letter_of_one_part_moves_that_part(data_dir: Path) -> None:
    def fail(message: Message[Any]) -> None:
        if message.payload["n"] == 1:
            raise ValueError("one too many")

    with Messenger(data_dir) as m:
        for number in (1, 2):
            m.subscribe("c", "s", fail, part=(number, 2), key=customer, max_retries=1, retry_backoff=(0.001, 0.001))
        publish(m, "k0", "k1", "k2", "k3")
        assert m.drain(DEADLINE_S)
        (letter,) = letters(data_dir)
        assert (letter["original"]["payload"]["n"], letter["retries"], letter["subscriber"]) == (1, 1, "s")
        eventually(lambda: filed(data_dir) == (end(data_dir), end(data_dir)))


@pytest.mark.parametrize("parts", [2, 5])
def test_a_key_that_raises_is_one_failure_and_one_dead_letter(data_dir: Path, parts: int) -> None:
    handled = Inbox()
    with Messenger(data_dir) as m:
        for number in range(1, parts + 1):
            m.subscribe("c", "s", handled, part=(number, parts), key=customer, max_retries=1, retry_backoff=(0.001, 1))
        m.publish("c", {"nobody": 1}, payload_type=TYPE)
        publish(m, "k0", "k1", "k2")
        assert m.drain(DEADLINE_S)
        failed = sum(each.failed for each in m.stats().subscribers)
    assert sorted(handled.take(handled.messages.qsize()), key=str) == [{"customer": f"k{n}", "n": n} for n in range(3)]
    (letter,) = letters(data_dir)
    assert letter["last_error"] == "KeyError: 'customer'"
    assert failed == 2


def test_a_key_that_can_be_had_at_another_attempt_lets_the_handler_run(data_dir: Path) -> None:
    """It fails everywhere at first, so that the part which the id names has the message."""
    fails = threading.Event()
    fails.set()

    def key(message: Message[Any]) -> str:
        if fails.is_set():
            raise RuntimeError("not yet")
        return "k"

    with Messenger(data_dir) as m:
        inboxes = [Inbox(), Inbox()]
        for number, inbox in enumerate(inboxes, 1):
            m.subscribe("c", "s", inbox, part=(number, 2), key=key, max_retries=1000, retry_backoff=(0.01, 0.01))
        id = m.publish("c", 1, payload_type=TYPE)
        eventually(lambda: sum(each.failed for each in m.stats().subscribers) > 1)
        fails.clear()
        inbox = inboxes[crc32(id.encode()) % 2]
        assert inbox.next().id == id


def test_a_payload_that_is_not_valid_is_one_dead_letter(data_dir: Path) -> None:
    class Order(BaseModel):
        customer: str

    with Messenger(data_dir) as m:
        m.register_payload_type("order", Order)
        for number in (1, 2, 3):
            m.subscribe("c", "s", print, part=(number, 3), key=customer)
        m.publish("c", {"customer": [1]}, payload_type="order")
        assert m.drain(DEADLINE_S)
    assert len(letters(data_dir)) == 1


def test_a_damaged_record_is_passed_over_by_all(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        publish(m, "k0", "k1")
    end_writer(data_dir)
    (segment,) = (data_dir / "channels" / "c").glob("*.jsonl")
    lines = segment.read_bytes().split(b"\n")
    lines[0] = b"x" * len(lines[0])
    segment.write_bytes(b"\n".join(lines))
    handled = Inbox()
    with Messenger(data_dir) as m:
        for number in (1, 2):
            m.subscribe("c", "s", handled, start="earliest", part=(number, 2), key=customer)
        assert handled.next().payload["customer"] == "k1"
        assert m.drain(DEADLINE_S)
        assert handled.messages.empty()


# ---- who holds what

HOLDER = """
number, parts = map(int, sys.argv[2:4])
with Messenger(data_dir) as m:
    def handle(message):
        say("got", message.payload["n"])
        if message.payload.get("wait"):
            hear()
        if message.payload.get("die"):
            os._exit(9)
    m.subscribe("c", "s", handle, start="earliest", part=(number, parts), key=lambda msg: msg.payload["customer"],
                max_retries=1, retry_backoff=(0.001, 0.001))
    say("ready", os.getpid())
    while hear() != "end":
        pass
    m.drain(10)  # what is another part's is passed over as well
say("ended")
"""


def hear(part: Child, wanted: str) -> None:
    """Wait until it says this; that it is ready it may say before or after."""
    while part.hear() != wanted:
        pass


def test_a_part_is_one_processs(data_dir: Path) -> None:
    with Child(HOLDER, data_dir, 2, 3) as holder:
        pid = holder.hear().split()[1]
        with Messenger(data_dir) as m:
            with pytest.raises(SubscriberBusy, match=rf"pid {pid}\) handles part 2 of 3 of channel 'c'"):
                m.subscribe("c", "s", print, part=(2, 3))
            for other in ((1, 2), (2, 2), None):
                with pytest.raises(SubscriberBusy, match=r"part 2 of 3.*stop all of them"):
                    m.subscribe("c", "s", print, part=other)
            m.subscribe("c", "s", print, part=(1, 3))
            holder.kill()
            m.subscribe("c", "s", print, part=(2, 3))
            with pytest.raises(SubscriberBusy, match="handles channel 'c' as subscriber 's' already"):
                m.subscribe("c", "s", print, part=(2, 3))


def test_who_holds_the_whole_holds_every_part(data_dir: Path) -> None:
    with Messenger(data_dir) as m, Messenger(data_dir) as other:
        m.subscribe("c", "s", print)
        with pytest.raises(SubscriberBusy, match=rf"pid {os.getpid()}\) handles channel 'c' under this subscriber id"):
            other.subscribe("c", "s", print, part=(1, 2))


@pytest.mark.parametrize("part", [(0, 2), (3, 2), (1, 65), (1,), (1, 2, 3), 1, "12", (1.0, 2), (True, 2), [2, 1]])
def test_what_is_no_part_is_refused(data_dir: Path, part: Any) -> None:
    with Messenger(data_dir) as m, pytest.raises(ValueError, match=r"part is \(k, n\), part k of n, 1 <= k <= n <= 64"):
        m.subscribe("c", "s", print, part=part)


def test_exactly_once_has_no_parts(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        with pytest.raises(ValueError, match="exactly_once and several parts do not go together"):
            m.subscribe("c", "s", print, part=(1, 2), exactly_once=True)
        m.subscribe("c", "s", print, part=(1, 1), exactly_once=True)


def test_a_key_is_a_plain_function(data_dir: Path) -> None:
    async def key(_message: Message[Any]) -> str:
        return ""

    with Messenger(data_dir) as m:
        for wrong in ("customer", key):
            with pytest.raises(TypeError, match="key is a plain function of a message"):
                m.subscribe("c", "s", print, part=(1, 2), key=wrong)  # type: ignore[arg-type]


def test_a_new_id_begins_for_all_parts_where_the_first_began(data_dir: Path) -> None:
    """Whatever comes before the others are there is theirs as well."""
    mine, others = keys_of(1, 2, 1)[0], keys_of(2, 2, 1)[0]
    with Messenger(data_dir) as m:
        publish(m, mine, others)
        first, second = Inbox(), Inbox()
        m.subscribe("c", "s", first, part=(1, 2), key=customer)
        publish(m, mine, others)
        assert first.next().payload["n"] == 0
        m.subscribe("c", "s", second, part=(2, 2), key=customer)
        assert second.next().payload["n"] == 1
        assert m.drain(DEADLINE_S)
        assert first.messages.empty()
        assert second.messages.empty()


# ---- stopping, dying, going on


def test_a_part_that_is_not_there_holds_the_offset_and_goes_on_where_it_was(data_dir: Path) -> None:
    mine, others = keys_of(1, 2, 1)[0], keys_of(2, 2, 1)[0]
    with Messenger(data_dir) as m:
        both = [Inbox(), Inbox()]
        for number, inbox in enumerate(both, 1):
            m.subscribe("c", "s", inbox, part=(number, 2), key=customer)
        publish(m, mine, others)
        assert m.drain(DEADLINE_S)
    before = end(data_dir)
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", both[0], part=(1, 2), key=customer)
        publish(m, mine, others, mine)
        assert m.drain(DEADLINE_S)
    assert filed(data_dir) == (end(data_dir), before)
    end_writer(data_dir)
    assert filed(data_dir) == (end(data_dir), before)
    assert both[0].messages.qsize() == 3
    with Messenger(data_dir) as m:
        for number, inbox in enumerate(both, 1):
            m.subscribe("c", "s", inbox, part=(number, 2), key=customer)
        assert m.drain(DEADLINE_S)
    assert [inbox.messages.qsize() for inbox in both] == [3, 2]


def test_a_killed_part_goes_on_at_its_message_and_counts_the_attempt(data_dir: Path) -> None:
    mine, others = keys_of(1, 2, 1)[0], keys_of(2, 2, 1)[0]
    with Child(HOLDER, data_dir, 2, 2) as other:
        other.hear()
        with Messenger(data_dir) as m:
            deadly = {"customer": mine, "n": 7, "die": True}
            m.publish_batch("c", [{"customer": others, "n": 1}, deadly, {"customer": mine, "n": 8}], payload_type=TYPE)
        other.expect("got 1")
        for _ in range(2):
            with Child(HOLDER, data_dir, 1, 2) as part:
                hear(part, "got 7")
                assert part.end() == 9
        with Child(HOLDER, data_dir, 1, 2) as part:
            hear(part, "got 8")
            part.say("end")
            part.expect("ended")
        other.say("end")
        other.expect("ended")
    (letter,) = letters(data_dir)
    assert letter["last_error"] == "the process ended during attempt 2"
    assert filed(data_dir) == (end(data_dir), end(data_dir))


@pytest.mark.parametrize("how", ["killed", "at rest"])
def test_attempts_of_a_part_outlive_the_writer(data_dir: Path, how: str) -> None:
    mine = keys_of(2, 2, 1)[0]
    with Messenger(data_dir) as m:
        m.publish("c", {"customer": mine, "n": 7, "die": True}, payload_type=TYPE)
    for _ in range(2):
        with Child(HOLDER, data_dir, 2, 2) as part:
            hear(part, "got 7")
            assert part.end() == 9
        if how == "killed":
            kill_writer(data_dir)
        else:
            end_writer(data_dir)
    with Child(HOLDER, data_dir, 2, 2) as part:
        part.hear()
        eventually(lambda: (data_dir / "channels" / "c.dead-letter").is_dir() and letters(data_dir))
        part.say("end")
        part.expect("ended")
    assert [letter["original"]["payload"]["n"] for letter in letters(data_dir)] == [7]


# ---- another number of parts


def divided(data_dir: Path, *counts: tuple[int, int], parts: int = 2) -> int:
    """Leave parts at different places; the least of them."""
    with Messenger(data_dir) as m:
        for number in range(1, parts + 1):
            m.subscribe("c", "s", Inbox(), part=(number, parts), key=customer)
        publish(m, "a")
        assert m.drain(DEADLINE_S)
    least = end(data_dir)
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", Inbox(), part=(parts, parts), key=customer)
        publish(m, *(f"k{n}" for n in range(10)))
        assert m.drain(DEADLINE_S)
    assert filed(data_dir) == (*[least] * (parts - 1), end(data_dir))
    return least


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("rest", [True, False], ids=["after a rest", "under one writer"])
def test_another_number_goes_on_from_the_least(data_dir: Path, parts: int, rest: bool) -> None:
    least = divided(data_dir)
    if rest:
        end_writer(data_dir)
    handled = Inbox()
    with Messenger(data_dir) as m:
        for number in range(1, parts + 1):
            m.subscribe("c", "s", handled, part=(number, parts), key=customer)
        assert m.drain(DEADLINE_S)
    assert sorted(payload["n"] for payload in handled.take(handled.messages.qsize())) == [*range(10)]
    assert filed(data_dir) == (end(data_dir),) * parts
    assert DataDirectory(data_dir).parts_file("c", "s").exists() == (parts > 1)
    log = (data_dir / "run" / "writer.log").read_text()
    assert f"parts_divided_anew file={data_dir}/subscribers/c/s.offset parts={parts} before=2" in log
    assert f"goes_on_at={least}" in log


def test_from_one_to_many_and_back_nothing_is_lost_or_repeated(data_dir: Path) -> None:
    handled = Inbox()
    n = 0
    for parts in (1, 3, 2, 1, 64, 1, 2):
        with Messenger(data_dir) as m:
            for number in range(1, parts + 1):
                m.subscribe("c", "s", handled, start="earliest", part=(number, parts), key=customer)
            for _ in range(20):
                m.publish("c", {"customer": f"k{n}", "n": n}, payload_type=TYPE, sync=False)
                n += 1
            assert m.drain(DEADLINE_S)
    assert sorted(payload["n"] for payload in handled.take(handled.messages.qsize())) == [*range(n)]


@pytest.mark.parametrize("step", ["frame.written:1", "applied:1", "settled:1"])
def test_the_writer_is_killed_when_it_divides_anew(data_dir: Path, step: str) -> None:
    least = divided(data_dir)
    end_writer(data_dir)
    writer = Writer(data_dir, on_demand=True, env={"KEYOP_CRASH_AT": step}).wait_for("open")
    with Child(HOLDER, data_dir, 1, 3) as part:
        got = [part.hear() for _ in range(1 + sum(part_of(f"k{n}", 3) == 1 for n in range(10)))]
        assert [line for line in got if "ready" not in line] == [
            f"got {n}" for n in range(10) if part_of(f"k{n}", 3) == 1
        ]
        part.say("end")
        part.expect("ended")
    assert writer.end() == -9
    assert filed(data_dir) == (end(data_dir), least, least)


# ---- files


def test_a_damaged_parts_file_counts_as_absent(data_dir: Path) -> None:
    least = divided(data_dir)
    end_writer(data_dir)
    path = DataDirectory(data_dir).parts_file("c", "s")
    path.write_bytes(path.read_bytes()[:-3] + b"x\n")
    handled = Inbox()
    with Messenger(data_dir) as m:
        for number in (1, 2):
            m.subscribe("c", "s", handled, part=(number, 2), key=customer)
        assert m.drain(DEADLINE_S)
    assert sorted(payload["n"] for payload in handled.take(handled.messages.qsize())) == [*range(10)]
    log = (data_dir / "run" / "writer.log").read_text()
    assert f"parts_do_not_count file={path}" in log
    assert f"goes_on_at={least}" in log
    assert filed(data_dir) == (end(data_dir), end(data_dir))


def test_it_is_damaged_while_its_parts_run_and_the_writer_dies(data_dir: Path) -> None:
    """Their slots say how many there are."""
    mine, others = keys_of(1, 2, 1)[0], keys_of(2, 2, 1)[0]
    inboxes = [Inbox(), Inbox()]
    with Messenger(data_dir) as m:
        for number, inbox in enumerate(inboxes, 1):
            m.subscribe("c", "s", inbox, part=(number, 2), key=customer)
        publish(m, mine, others)
        assert m.drain(DEADLINE_S)
        with Child("with Messenger(data_dir) as m: hear()", data_dir):
            pass
        checkpoint(data_dir)
        kill_writer(data_dir)
        DataDirectory(data_dir).parts_file("c", "s").write_bytes(b"nonsense")
        publish(m, mine, others)
        assert m.drain(DEADLINE_S)
        with Messenger(data_dir) as other, pytest.raises(SubscriberBusy, match="part 1 of 2"):
            other.subscribe("c", "s", print)
        eventually(lambda: filed(data_dir) == (end(data_dir), end(data_dir)))
    assert [inbox.messages.qsize() for inbox in inboxes] == [2, 2]


def checkpoint(data_dir: Path) -> None:
    """Have the running writer free its journal."""
    from click.testing import CliRunner

    from keyop.cli.checkpoint import command

    result = CliRunner().invoke(command, ["-d", str(data_dir)])
    assert "at rest" in result.output


def test_the_go_program_moves_the_offset(data_dir: Path) -> None:
    """It knows nothing of parts: what it has handled is handled."""
    divided(data_dir)
    end_writer(data_dir)
    directory = DataDirectory(data_dir)
    directory.offset_file("c", "s").write_text(f"{end(data_dir)}")
    with Messenger(data_dir) as m:
        handled = Inbox()
        for number in (1, 2):
            m.subscribe("c", "s", handled, part=(number, 2), key=customer)
        assert m.drain(DEADLINE_S)
        assert handled.messages.empty()
        publish(m, "k0")
        handled.next()


def test_a_channel_that_has_become_shorter_takes_its_parts_back(data_dir: Path) -> None:
    """Else one would go on in the middle of what it has not seen."""
    with Messenger(data_dir) as m:
        for number in (1, 2):
            m.subscribe("c", "s", Inbox(), part=(number, 2), key=customer)
        publish(m, "k0", "k1")
        assert m.drain(DEADLINE_S)
    middle = end(data_dir)
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", Inbox(), part=(2, 2), key=customer)
        publish(m, "k0", "k1", "k2")
        assert m.drain(DEADLINE_S)
    end_writer(data_dir)
    (segment,) = (data_dir / "channels" / "c").glob("*.jsonl")
    os.truncate(segment, middle)
    handled = Inbox()
    with Messenger(data_dir) as m:
        publish(m, *(f"k{n}" for n in range(8)))
        assert filed(data_dir) == (middle, middle)
        for number in (1, 2):
            m.subscribe("c", "s", handled, part=(number, 2), key=customer)
        assert m.drain(DEADLINE_S)
    assert sorted(payload["n"] for payload in handled.take(handled.messages.qsize())) == [*range(8)]


# ---- forgetting


def test_with_the_last_part_the_offset_is_forgotten(data_dir: Path) -> None:
    directory = DataDirectory(data_dir)
    files = directory.offset_file("c", "s"), directory.parts_file("c", "s")
    with Messenger(data_dir) as m, Messenger(data_dir) as other:
        m.subscribe("c", "s", print, part=(1, 3))
        m.subscribe("c", "s", print, part=(2, 3))
        other.subscribe("c", "s", print, part=(3, 3))
        publish(m, "k0")
        m.unsubscribe("c", "s")
        assert all(path.exists() for path in files)
        assert m.stats().subscribers == []
        assert other.drain(DEADLINE_S)
        other.unsubscribe("c", "s")
        assert not any(path.exists() for path in files)
        m.subscribe("c", "s", print)
    assert not files[1].exists()


def test_a_handler_may_unsubscribe_its_own_part(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        for number in (1, 2):
            m.subscribe("c", "s", lambda _message: m.unsubscribe("c", "s"), part=(number, 2), key=customer)
        publish(m, "k0")
        eventually(lambda: not m.stats().subscribers)
        assert not DataDirectory(data_dir).offset_file("c", "s").exists()
