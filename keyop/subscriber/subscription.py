"""One subscriber of one channel: a thread that reads, runs the handler, and keeps the cursor.

The cursor and the attempt about to begin are stored in the slot before each run of the handler, with one store: after
a kill the next process goes on exactly there. The file is the writer's business.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, Self

from keyop.attachment.attachment import Attachment
from keyop.attachment.held_cursor import HeldCursor, transaction
from keyop.attachment.tail import Tail
from keyop.errors import KeyopError, RetryLater
from keyop.ipc.histogram import Distribution
from keyop.ipc.layout import SLOT_COUNTER_NAMES
from keyop.messages.dead_letter import encode_dead_letter, is_done_mark
from keyop.messages.envelope import BadLine, Envelope, Fault, decode_line, decode_line_raw, line_ts_ns
from keyop.messages.message import Message
from keyop.messages.payload_types import PayloadTypes
from keyop.messages.replayed import addressee
from keyop.names import dead_letter_channel, is_dead_letter, replay_channel
from keyop.protocol import entry
from keyop.publishing.handling import Handling, handling
from keyop.storage.segment_reader import Batch, SegmentReader, first_offset_since
from keyop.subscriber.delivery import Advance, Answer, DeadLetter, Delivery, Run, Stay, Wait
from keyop.subscriber.options import SubscribeOptions
from keyop.subscriber.stopwatch import Stopwatch

if TYPE_CHECKING:
    from keyop.subscriber.replays import Replays

# A line that does not parse is looked at again after this; further from the end than that it is what it is.
_SECOND_LOOK_S = 0.01
_SETTLED_BYTES = 1 << 20
_TROUBLE_WAIT_S = 0.5

Invoke = Callable[[Message[Any]], object]


class Stopped(Exception):
    """The subscription is to end; the message under way comes again."""


class _UnsettledError(KeyopError):
    """What stands in a segment is not what will stand there: to be read again a little later."""


class Subscription:
    """A durable subscriber. `open` and `start` it, `stop` it; it logs what it passes over and counts it."""

    def __init__(
        self,
        attachment: Attachment,
        types: PayloadTypes,
        channel: str,
        id: str,
        invoke: Invoke,
        options: SubscribeOptions,
    ) -> None:
        self.channel = channel
        self.id = id
        self.part = options.part
        self.parts = options.parts
        self.totals = dict.fromkeys(SLOT_COUNTER_NAMES, 0)
        self.replays: Replays | None = None
        """What is put back for it; None on a channel that keyop alone writes."""
        self._attachment = attachment
        self._log = attachment.logger.getChild("subscriber")
        self._types = types
        self._invoke = invoke
        self._options = options
        self._held = HeldCursor(attachment, channel, id, options.part, options.parts)
        self._delivery = Delivery(options.policy, dead_letters=not is_dead_letter(channel))
        self._handling = Handling()
        self._stopping = False
        # The batch under way is to be left: to stop, or for a message that was put back.
        self._interrupted = False
        # The channel whose messages these are: of what was put back another one than that which they stand in.
        self._home = channel
        # Whose counters its own are a part of.
        self._counts_for: Subscription | None = None
        # How many cursors of this process were lost, when it was last known that this one is not among them.
        self._lost = attachment.lost
        # Lines that are nothing for the handler.
        self._passes_over: Callable[[bytes], bool] | None = is_done_mark if is_dead_letter(channel) else None
        self._offset = 0
        # A predecessor's attempts at a message, and where that lies.
        self._carried = (0, 0)
        # What the final store is to say of the message under way.
        self._left_attempts = 0
        self._thread: threading.Thread | None = None
        # For threads that wait until this one has caught up.
        self._progress = threading.Condition()
        self._awaited = 0

    # ---- opening

    def open(self) -> None:
        """Have the writer grant the subscription. Raises `SubscriberBusy`, `OffsetDamaged`, `WriterUnavailable`."""
        wanted, is_new = self._start_offset(), not self._has_offset_file()
        granted = self._held.open(wanted, exactly_once=self._options.exactly_once)
        if is_new and wanted != granted.offset and self._options.start == wanted:
            # An offset that somebody has noted, and that was of another channel, or has been removed since.
            self._log.warning(
                "%s/%s: start=%d is no place where a message begins, so it begins at %d",
                self.channel,
                self.id,
                wanted,
                granted.offset,
            )
        self._offset = self._granted = granted.offset
        self._carried = (granted.attempts_offset, granted.attempts)
        self._stopwatch = Stopwatch(self._held)
        self._tail = Tail(self._attachment, self.channel, self._offset, self._count_skipped, self._count_damaged)
        self._pass_over_old()
        if self.replays is not None:
            self.replays.begin()
        if self._counts_for is None:
            self._attachment.tick_listeners.append(self._tick)

    def _start_offset(self) -> int | None:
        """Where a new id begins; None: at the end, which only the writer knows."""
        start = self._options.start
        if start == "latest":
            return None
        if start == "earliest":
            return 0
        if isinstance(start, datetime):
            # Not for an id that goes on where it stopped: the look through the segments may be long.
            if self._has_offset_file():
                return None
            return first_offset_since(self._attachment.directory.channel(self.channel), _ns(start), line_ts_ns)
        assert isinstance(start, int)
        return start

    def _has_offset_file(self) -> bool:
        return self._attachment.directory.offset_file(self.channel, self.id).exists()

    def _pass_over_old(self) -> None:
        if self._options.max_age_s is None:
            return
        cutoff_ns = time.time_ns() - int(self._options.max_age_s * 1e9)
        directory = self._attachment.directory.channel(self.channel)
        offset = first_offset_since(directory, cutoff_ns, line_ts_ns, self._offset)
        if offset > self._offset:
            skipped = offset - self._offset
            self._log.info("%s/%s: %d bytes are older than max_age and passed over", self.channel, self.id, skipped)
            self._count_skipped(skipped)
            self._advance_to(offset)
            self._tail.seek(offset)

    def second(self) -> Self:
        """The same subscriber on the channel of what is put back. This one's thread drives it, see `deliver_all`."""
        options = self._options._replace(start="latest", max_age_s=None)
        second = type(self)(self._attachment, self._types, replay_channel(self.channel), self.id, self._invoke, options)
        second._home = self.channel
        second._passes_over = lambda line: addressee(line) != self.id
        second._handling = self._handling
        second._counts_for = self
        return second

    def start(self) -> None:
        """Begin to deliver, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name=f"keyop-{self.channel}-{self.id}", daemon=True)
        self._thread.start()

    # ---- the loop

    def _run(self) -> None:
        handling.set(self._handling)
        while not self._stopping:
            try:
                self._deliver()
            except Stopped:
                break
            except (OSError, KeyopError) as error:
                self._log.error("%s/%s: delivery waits: %s", self.channel, self.id, error)
                self._begin_again()
            except Exception:
                self._log.exception("%s/%s: delivery waits", self.channel, self.id)
                self._begin_again()

    def _begin_again(self) -> None:
        """After trouble: the message under way first, nothing of its batch is passed over."""
        self._pause(_TROUBLE_WAIT_S)
        self._tail.seek(self._offset)
        if self.replays is not None:
            self.replays.begin_again()

    def _deliver(self) -> None:
        tail = self._tail
        gate = self._attachment.data_gate
        spin_us = self._attachment.settings.ipc.spin_us
        spin = 0
        while not self._stopping:
            if self._held.refresh():
                self._move(self._offset, 0)
            self._interrupted = False
            if self._stopping:
                break
            if self.is_gone():
                self._begin_anew()
            if self.replays is not None and self.replays.news():
                self.replays.deliver()
            batch = tail.read()
            if batch is not None:
                self._take(batch)
                self._tell_progress()
                spin = spin_us
            else:
                self._caught_up()
                self._tell_progress()
                gate.wait(self._has_news, spin_us=spin)
                spin = 0

    def _has_news(self) -> bool:
        return (
            self._stopping
            or self._tail.news()
            or (self.replays is not None and self.replays.news())
            or self._attachment.lost != self._lost
        )

    def is_gone(self) -> bool:
        """Whether the channel was deleted under it. Costs a load where that has happened to nobody in this process."""
        lost = self._attachment.lost
        if lost != self._lost:
            if not self._held.is_open or not self._held.is_granted(self.offset):
                return True
            self._lost = lost
        return False

    def _begin_anew(self) -> None:
        """Go on as a new subscriber of the channel that has the name now. Raises `KeyopError`: to be called again."""
        if self.replays is not None:
            self.replays.drop()
        lost = self._attachment.lost
        if self._held.is_open:
            self._log.error(
                "%s/%s: the channel was deleted; this subscriber begins anew, with what was published since",
                self.channel,
                self.id,
            )
        granted = self._held.reopen(0)
        self._lost = lost
        self._offset = self._granted = granted.offset
        self._carried = (granted.attempts_offset, granted.attempts)
        self._delivery = Delivery(self._options.policy, dead_letters=not is_dead_letter(self.channel))
        self._tail.seek(self._offset)

    def deliver_all(self) -> None:
        """Deliver what is there now, in the caller's thread. Raises `Stopped`, `OSError`, `KeyopError`."""
        while not self._stopping:
            if self._held.refresh():
                self._move(self._offset, 0)
            batch = self._tail.read()
            if batch is None:
                self._caught_up()
                return
            self._take(batch)

    def has_news(self) -> bool:
        """Whether there is reason for `deliver_all`: it has grown, or a tick has passed."""
        return self._tail.news()

    def has_grown(self) -> bool:
        """Whether the channel has grown since the last look, by what the board says."""
        return self._tail.grown()

    def begin_again(self) -> None:
        """After trouble: go on at the message under way."""
        self._tail.seek(self._offset)

    def _tick(self) -> None:
        """In the tick's thread: what is not to wait until the handler is done with a backlog."""
        if self._attachment.lost != self._lost:
            self.interrupt()
        if self.replays is not None:
            self.replays.look()

    def interrupt(self) -> None:
        """From another thread: have the batch under way left after the message under way."""
        self._interrupted = True
        self._attachment.data_gate.knock()

    @property
    def done_with(self) -> int:
        """The offset before which nothing comes again, whatever happens to this process."""
        return self._offset

    def wait_until(self, offset: int, deadline: float | None) -> bool:
        """Wait until everything before an offset is done with; whether it is."""
        with self._progress:
            self._awaited += 1
            try:
                remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
                self._progress.wait_for(lambda: self.done_with >= offset or self._stopping, remaining)
                return self.done_with >= offset
            finally:
                self._awaited -= 1

    def _tell_progress(self) -> None:
        if self._awaited:
            with self._progress:
                self._progress.notify_all()

    def _caught_up(self) -> None:
        """All that is there was handled."""
        if self._tail.offset > self._offset:
            self._advance_to(self._tail.offset)  # the reader moved past something that cannot be delivered

    def _take(self, batch: Batch) -> None:
        """Deliver a batch, but for the lines that are nothing for the handler."""
        if self._passes_over is None:
            self._handle_batch(batch)
        else:
            for part, wanted in _parts(batch, self._passes_over):
                if wanted:
                    self._handle_batch(part)
                else:
                    self._advance_to(part.end)
                if self._interrupted or self._offset != part.end:
                    break
        if self._interrupted:
            self._tail.seek(self._offset)

    def _handle_batch(self, batch: Batch) -> None:
        """Deliver lines one after the other. The plain case, a first attempt that succeeds, is all in this loop."""
        raw = bool(self._types) or self._options.require_type
        decode = decode_line_raw if raw else decode_line
        invoke, held, under_way, watch = self._invoke, self._held, self._handling, self._stopwatch
        offset = batch.start
        handled = weighed = 0
        carried_offset = self._carried[0] if self._carried[1] else -1
        watch.begin_batch(offset)
        look_at = min(watch.look_at, carried_offset) if offset < carried_offset else watch.look_at
        try:
            for line in batch.lines:
                envelope = decode(line)
                if type(envelope) is BadLine or raw or offset >= look_at:
                    self._offset = offset
                    if type(envelope) is BadLine or raw or offset == carried_offset:
                        self._handle_specially(line, offset, envelope, raw)
                    else:
                        watch.untimed += handled - weighed
                        weighed = handled
                        self._handle_timed(envelope, line, offset)  # type: ignore[arg-type]
                    look_at = min(watch.look_at, carried_offset) if offset < carried_offset else watch.look_at
                else:
                    message = Message(envelope, envelope.payload, offset)  # type: ignore[arg-type, union-attr]
                    under_way.message = message
                    held.moves = moves = held.moves + 1
                    held.store(moves, offset, 1)
                    self._offset = offset
                    try:
                        invoke(message)
                    except BaseException as error:
                        self._try_again(message, line, error)
                    else:
                        handled += 1
                offset += len(line) + 1
                self._offset = offset
                if self._interrupted:
                    break
        finally:
            under_way.message = None
            self._move(self._offset, self._left_attempts)
            self._left_attempts = 0
            watch.untimed += handled - weighed
            self._count("handled", handled)

    def _handle_timed(self, envelope: Envelope, line: bytes, offset: int) -> None:
        """The plain case for a message that is to be timed."""
        message = Message(envelope, envelope.payload, offset)
        self._handling.message = message
        self._move(offset, 1)
        try:
            self._stopwatch.time(self._invoke, message)
        except BaseException as error:
            self._try_again(message, line, error)
        else:
            self._count("handled", 1)

    def _handle_specially(self, line: bytes, offset: int, envelope: Envelope | BadLine, raw: bool) -> None:
        """Lines that are damaged, payloads of registered types, and a message whose process died on it before."""
        if isinstance(envelope, BadLine):
            better = self._second_look(line, offset, envelope, raw)
            if better is None:
                return
            envelope = better
        message, undecodable = self._message(envelope, offset, raw)
        if self._is_another_parts(message, line, undecodable):
            return
        answer: Answer = Run(1)
        if self._carried[1] and offset == self._carried[0]:
            answer = self._delivery.take_over(self._carried[1], time.monotonic())
            self._carried = (0, 0)
        if undecodable:
            answer = self._delivery.undecodable(undecodable)
        self._follow(answer, message, line)

    def _is_another_parts(self, message: Message[Any], line: bytes, undecodable: str) -> bool:
        """Whether another process that shares this id's work handles it."""
        return False

    def _message(self, envelope: Envelope, offset: int, raw: bool) -> tuple[Message[Any], str]:
        """The message, or why its payload cannot be made into what the handler takes."""
        if not raw:
            return Message(envelope, envelope.payload, offset), ""
        text = bytes(envelope.payload)
        try:
            known, payload = self._types.decode(envelope.payload_type, text)
        except ValueError as error:
            return Message(envelope, None, offset), f"the payload is not a valid {envelope.payload_type}: {error}"
        if known:
            return Message(envelope, payload, offset), ""
        if self._options.require_type:
            return Message(envelope, None, offset), f"payload type {envelope.payload_type!r} is not registered"
        return Message(envelope, self._types.decode_plain(text), offset), ""

    def _second_look(self, line: bytes, offset: int, bad: BadLine, raw: bool) -> Envelope | None:
        """What to deliver of a line that is no good envelope, None for nothing. Raises `_UnsettledError`."""
        settled = self._tail.settled
        if bad.fault is not Fault.OTHER_VERSION and (not settled or self._tail.offset - offset < _SETTLED_BYTES):
            self._pause(_SECOND_LOOK_S)
            settled = self._tail.settled
            line, again = self._reread(line, offset, raw)
            if isinstance(again, Envelope):
                return again
            bad = again
            if not settled:
                raise _UnsettledError(f"the record at offset {offset} is damaged, and the writer waits for its disk")
        if bad.fault is Fault.OTHER_VERSION:
            self._log.warning("%s: the record at offset %d is passed over: %s", self.channel, offset, bad.reason)
            return None
        self._count_damaged()
        outcome = "its last whole envelope is delivered" if bad.envelope is not None else "it is passed over"
        self._log.warning("%s: the record at offset %d is damaged, %s: %s", self.channel, offset, outcome, bad.reason)
        return bad.envelope

    def _reread(self, line: bytes, offset: int, raw: bool) -> tuple[bytes, Envelope | BadLine]:
        directory = self._attachment.directory.channel(self.channel)
        reader = SegmentReader(directory, offset)
        try:
            batch = reader.read_batch()
        finally:
            reader.close()
        if batch is None or batch.start != offset or len(batch.lines[0]) != len(line):
            raise _UnsettledError(f"the record at offset {offset} is damaged, and is just being written")
        line = batch.lines[0]
        return line, (decode_line_raw if raw else decode_line)(line)

    # ---- attempts

    def _try_again(self, message: Message[Any], line: bytes, error: BaseException) -> None:
        """The first attempt failed."""
        self._follow(self._failed(error), message, line)

    def _failed(self, error: BaseException) -> Answer:
        now_s = time.monotonic()
        if _asks_for_later(error):
            self._count("deferred", 1)
            self._move(self._offset, 0)
            return self._delivery.retry_later(now_s)
        self._count("failed", 1)
        text = _describe(error)
        self._log.warning("%s/%s: attempt %d failed: %s", self.channel, self.id, self._delivery.attempt, text)
        return self._delivery.failed(text, now_s)

    def _follow(self, answer: Answer, message: Message[Any], line: bytes) -> None:
        """Do what the state machine says until the message is done with. Raises `Stopped`."""
        while not isinstance(answer, Advance):
            if self._stopping:
                self._leave_attempts(self._delivery.stop())
            if self.is_gone():
                raise _UnsettledError("the channel was deleted while a message of it was handled")
            if isinstance(answer, Run):
                answer = self._attempt(answer.attempt, message)
            elif isinstance(answer, Wait):
                answer = self._wait(answer)
            elif isinstance(answer, DeadLetter):
                answer = self._dead_letter(answer, message, line)
            else:
                self._leave_attempts(answer)
        if answer.given_up:
            self._count("failed", 1)
            self._log.error("%s/%s: %s given up: %s", self.channel, self.id, message.id, answer.given_up)

    def _leave_attempts(self, stay: Stay) -> None:
        self._left_attempts = stay.attempts
        raise Stopped

    def _attempt(self, attempt: int, message: Message[Any]) -> Answer:
        message = message.again(attempt)
        self._handling.message = message
        self._move(self._offset, attempt)
        try:
            self._stopwatch.invoke(self._invoke, message)
        except BaseException as error:
            return self._failed(error)
        self._count("handled", 1)
        return self._delivery.succeeded()

    def _wait(self, wait: Wait) -> Answer:
        grown = self._tail.grown

        def over() -> bool:
            return self._stopping or (wait.or_news and grown())

        came = self._attachment.data_gate.wait(over, wait.until_s)
        if self._stopping:
            return self._delivery.stop()
        self._tail.note_growth()  # else one message would end every wait from here on
        return self._delivery.waited(time.monotonic(), news=came and wait.or_news)

    def _dead_letter(self, letter: DeadLetter, message: Message[Any], line: bytes) -> Answer:
        """Commit the dead letter and the move behind its message in one transaction."""
        _id, dead = encode_dead_letter(
            self._home,
            line,
            self._offset,
            retries=letter.retries,
            last_error=letter.last_error,
            subscriber=self.id,
            max_message_bytes=self._attachment.settings.storage.max_message_bytes,
            stands_in=self.channel,
        )
        channel = dead_letter_channel(self._home)
        behind = self._offset + len(line) + 1
        append = entry.encode(entry.APPEND, channel.encode(), data=dead)
        try:
            self._commit_dead_letter(append, channel, behind)
        except KeyopError as error:
            self._log.error("%s/%s: the dead letter waits: %s", self.channel, self.id, error)
            return self._delivery.dead_letter_failed(time.monotonic())
        self._offset = behind
        self._move(behind, 0)
        self._count("dead_lettered", 1)
        self._log.error("%s/%s: %s is a dead letter: %s", self.channel, self.id, message.id, letter.last_error)
        return self._delivery.dead_lettered()

    def _commit_dead_letter(self, append: bytes, channel: str, behind: int) -> None:
        move = self._held.move_entry(self._offset, behind)
        self._attachment.transact(transaction(append + move, entry.SYNC), channel)

    # ---- cursor and counters

    def _move(self, offset: int, attempts: int) -> None:
        self._held.move(offset, attempts)

    def _advance_to(self, offset: int) -> None:
        self._offset = offset
        self._move(offset, 0)

    def _count(self, name: str, more: int) -> None:
        if self._counts_for is not None:
            self._counts_for._count(name, more)
        elif more:
            self.totals[name] = total = self.totals[name] + more
            self._held.count(name, total)

    def _count_skipped(self, skipped_bytes: int) -> None:
        self._count("skipped_bytes", skipped_bytes)

    def _count_damaged(self) -> None:
        self._count("damaged", 1)

    def _pause(self, seconds: float) -> None:
        """Wait a moment, or until stopped."""
        self._attachment.data_gate.wait(lambda: self._stopping, time.monotonic() + seconds)

    def each(self) -> Sequence[Subscription]:
        """The subscriptions that this one is made of: itself."""
        return [self]

    def catch_up(self, _deadline: float | None) -> bool:
        """Whether all channels are followed that should be."""
        return True

    @property
    def times(self) -> tuple[Distribution, Distribution]:
        """How old messages were when they came to the handler, and how long it took."""
        return self._stopwatch.read()

    # ---- the end

    @property
    def offset(self) -> int:
        """Where the next message begins, in bytes."""
        return self._offset

    def stop(self) -> None:
        """Ask the thread to end after the message under way."""
        self._stopping = self._interrupted = True
        if self.replays is not None:
            self.replays.stop()
        self._attachment.data_gate.knock()

    @property
    def is_current_thread(self) -> bool:
        """Whether this is asked by its own handler."""
        return self._thread is threading.current_thread()

    def join(self, timeout_s: float | None) -> bool:
        """Wait for the thread; whether it has ended."""
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def close(self, *, forget: bool = False, deadline: float | None = None) -> None:
        """Give the subscription back to the writer, with its last word; ``forget`` deletes its offset.

        The thread has ended. Raises `PublishTimeout` if the writer does not commit it in time.
        """
        if self.replays is not None:
            try:
                self.replays.close(forget=forget, deadline=deadline)
            except KeyopError as error:
                if forget:
                    raise  # to be called again
                self._log.warning("%s/%s: %s", replay_channel(self.channel), self.id, error)
        if self._tick in self._attachment.tick_listeners:
            self._attachment.tick_listeners.remove(self._tick)
        self._tail.close()
        self._held.close(forget=forget, deadline=deadline)
        self.replays = None  # a circle: its attachment would stay mapped


def _parts(batch: Batch, passes_over: Callable[[bytes], bool]) -> Iterator[tuple[Batch, bool]]:
    """Neighbouring lines that are for the handler, or are not, and which."""
    start = batch.start
    for passed, group in groupby(batch.lines, passes_over):
        lines = list(group)
        end = start + sum(map(len, lines)) + len(lines)
        yield Batch(lines, start, end), not passed
        start = end


def _asks_for_later(error: BaseException | None) -> bool:
    """Whether this is `RetryLater`, or was raised because of one."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, RetryLater):
            return True
        seen.add(id(error))  # `raise error from error` makes a circle
        error = error.__cause__ if error.__suppress_context__ else error.__context__
    return False


def _describe(error: BaseException) -> str:
    """The error for the log and the dead letter, also where its own text cannot be had."""
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except Exception as failure:
        return f"{name} (its text raised {type(failure).__name__})"


def _ns(time_: datetime) -> int:
    """Nanoseconds since 1970; a time without a zone is local."""
    moment = time_.astimezone(UTC)
    return int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1000
