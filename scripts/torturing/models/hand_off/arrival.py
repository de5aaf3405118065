"""Stores that arrive in any order, as on ARM: a record and its HEAD, an answer and its COMMITTED.

One publisher, one writer, a small ring, so that each lap overwrites the one before. Each process sees its own stores at
once, and its loads are done in their order; stores to different words arrive in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torturing.models.hand_off.explore import Actor, Broken, Event, Model, Names, Next, State, World, point
from torturing.models.hand_off.world import Processor


@dataclass(frozen=True)
class ArrivalRules:
    """What protects a record and its answer on their way."""

    crc: bool = True
    """The writer trusts a record only if its CRC fits what it has copied."""
    seeded: bool = True
    """The record's position is a part of its CRC."""
    answers_fenced: bool = True
    """Between the answers and COMMITTED."""


class Words:
    """What both look at."""

    def __init__(self, names: Names, rules: ArrivalRules, places: int) -> None:
        self.rules = rules
        self.head = names.word("HEAD")
        self.places = places
        self.check = names.words(places, "place {}: the CRC is that of message")
        self.first = names.words(places, "place {}: the first half is of message")
        self.second = names.words(places, "place {}: the second half is of message")
        self.committed = names.word("COMMITTED")
        self.written = names.word("REPLIES_WRITTEN")
        self.answered = names.word("the answer is for message")
        self.answer_check = names.word("the answer's check is that of message")


class PublisherSide(Actor):
    """`RingProducer.put`, `Attachment.wait`, `Replies.of`. Message n ends at position n; it waits for the first."""

    def __init__(self, names: Names, words: Words, messages: int, buffers: int) -> None:
        super().__init__(names, "the publisher", "put")
        self.words = words
        self.messages = messages
        self.processor = Processor(names, buffers, in_order=False)
        self.sent = names.word()
        self.taken = names.word("REPLIES_TAKEN")

    def _store(self, w: World, word: int, value: int, then: str) -> Next:
        return then if self.processor.store(w, word, value) else None

    def _put(self, w: World, words: list[int], then: str) -> Next:
        number = w[self.sent]
        return self._store(w, words[(number - 1) % self.words.places], number, then)

    @point
    def put(self, w: World) -> Next:
        """begins its next record, if there is room"""
        if w[self.sent] == self.messages:
            return "done" if w[self.words.committed] == self.messages else None
        if w[self.sent] - w[self.words.committed] == self.words.places:
            return None
        w[self.sent] += 1
        return "put_check"

    @point
    def put_check(self, w: World) -> Next:
        """stores the record's CRC"""
        return self._put(w, self.words.check, "put_first_half")

    @point
    def put_first_half(self, w: World) -> Next:
        """stores the first half of the record"""
        return self._put(w, self.words.first, "put_second_half")

    @point
    def put_second_half(self, w: World) -> Next:
        """stores the second half"""
        return self._put(w, self.words.second, "store_head")

    @point
    def store_head(self, w: World) -> Next:
        """stores HEAD"""
        return self._store(w, self.words.head, w[self.sent], "look" if w[self.sent] == 1 else "put")

    @point
    def look(self, w: World) -> Next:
        """looks at COMMITTED"""
        return "look_for_answer" if w[self.words.committed] == w[self.sent] else None

    @point
    def look_for_answer(self, w: World) -> Next:
        """is committed; looks whether there is an answer"""
        if w[self.words.written] == w[self.taken]:
            return self._told(w, refused=False)
        return "read_answer"

    @point
    def read_answer(self, w: World) -> Next:
        """reads the answer, which counts if its check fits"""
        words, sent = self.words, w[self.sent]
        whole = w[words.answer_check] == w[words.answered] == sent
        if whole:
            w[self.taken] = w[words.written]
        return self._told(w, refused=whole)

    def _told(self, w: World, *, refused: bool) -> str:
        if not refused:
            raise Broken("message 1 was refused, and its publisher is told that it is published")
        return "put"


class WriterSide(Actor):
    """`Round.take`, `AttachedPort.settle`."""

    def __init__(self, names: Names, words: Words, buffers: int) -> None:
        super().__init__(names, "the writer", "look_at_head")
        self.words = words
        self.processor = Processor(names, buffers, in_order=False)
        self.taken = names.word("the writer has taken")
        self.copied = names.words(2)

    def _here(self, w: World, words: list[int]) -> int:
        return w[words[w[self.taken] % self.words.places]]

    @point
    def look_at_head(self, w: World) -> Next:
        """looks at HEAD"""
        return "copy_check" if w[self.words.head] > w[self.taken] else None

    @point
    def copy_check(self, w: World) -> Next:
        """copies the record's CRC"""
        w[self.copied[0]] = self._here(w, self.words.check)
        return "copy_first_half"

    @point
    def copy_first_half(self, w: World) -> Next:
        """copies its first half"""
        w[self.copied[1]] = self._here(w, self.words.first)
        return "copy_second_half"

    @point
    def copy_second_half(self, w: World) -> Next:
        """copies its second half, and trusts the copy if the CRC says so"""
        check, first, second = w[self.copied[0]], w[self.copied[1]], self._here(w, self.words.second)
        w[self.copied[0]] = w[self.copied[1]] = 0
        rules, expected = self.words.rules, w[self.taken] + 1
        whole = check == first == second != 0
        if rules.crc and (not whole or (rules.seeded and check != expected)):
            return "look_at_head"  # again, for a second
        if (first, second) != (expected, expected):
            what = f"message {first} a second time" if whole else "bytes that are not there yet"
            raise Broken(f"the writer takes {what} for message {expected}")
        w[self.taken] = expected
        self.processor.fence(w)  # the frame: system calls
        return "answer" if expected == 1 else "store_committed"

    def _store(self, w: World, word: int, value: int, then: str) -> Next:
        return then if self.processor.store(w, word, value) else None

    @point
    def answer(self, w: World) -> Next:
        """refuses message 1: stores the answer"""
        return self._store(w, self.words.answered, 1, "answer_check")

    @point
    def answer_check(self, w: World) -> Next:
        """stores the answer's check"""
        return self._store(w, self.words.answer_check, 1, "answer_written")

    @point
    def answer_written(self, w: World) -> Next:
        """stores REPLIES_WRITTEN"""
        return self._store(w, self.words.written, 1, "fence" if self.words.rules.answers_fenced else "store_committed")

    @point
    def fence(self, w: World) -> Next:
        """makes sure that the answer can be seen"""
        self.processor.fence(w)
        return "store_committed"

    @point
    def store_committed(self, w: World) -> Next:
        """stores COMMITTED"""
        return self._store(w, self.words.committed, w[self.taken], "look_at_head")


def arrival_model(rules: ArrivalRules, messages: int, places: int, buffers: int = 4) -> Model:
    """So many messages through a ring with so many places; the first one is refused."""
    names = Names()
    words = Words(names, rules, places)
    publisher = PublisherSide(names, words, messages, buffers)
    writer = WriterSide(names, words, buffers)
    events = [
        Event(f"a store of {actor.name} arrives", partial(_arrive, actor.processor, number))
        for actor in (publisher, writer)
        for number in range(buffers)
    ]

    def calm(state: State) -> bool:
        return publisher.stands_at(state, "done")

    def waits(_state: State) -> str:
        raise Broken("a record that stands in the ring is not taken")

    return Model(names, [publisher, writer], events, calm, waits)


def _arrive(processor: Processor, number: int, w: World) -> bool:
    return processor.arrive(w, number)
