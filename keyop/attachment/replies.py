"""The writer's answers, taken out of the port by whichever thread looks first."""

from __future__ import annotations

import threading
from pathlib import Path

from keyop.attachment.spilling import remove_spill
from keyop.ipc.layout import COMMITTED, MASK, REPLIES_TAKEN, REPLIES_WRITTEN
from keyop.ipc.port import Port
from keyop.ipc.word import distance
from keyop.protocol import reply


class Replies:
    """Answers by the position of the record that they answer."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._lock = threading.Lock()
        self._waiting: dict[int, list[tuple[int, int]]] = {}
        # Positions for whose answers somebody will come. Entered before the record is, taken out with the answer.
        self.expected: set[int] = set()
        # The spill files that records name: of a refused one nobody else removes it.
        self.spilled: dict[int, Path] = {}

    def pending(self) -> bool:
        """Whether the writer has written answers that nobody took yet. Costs two loads."""
        words = self._port.words
        return bool(words[REPLIES_WRITTEN] != words[REPLIES_TAKEN])

    def of(self, position: int, channel: str) -> list[int]:
        """The values answered to a committed record; empty if it needed no answer. A refusal is raised."""
        if not self._waiting and not self.pending():
            self.expected.discard(position)
            self.spilled.pop(position, None)
            return []
        answers = self.answers(position)
        for code, value in answers:
            if code != reply.OK:
                raise reply.refusal(code, value, channel)
        return [value for _code, value in answers]

    def answers(self, position: int) -> list[tuple[int, int]]:
        """Codes and values answered to a committed record, taken out."""
        with self._lock:
            self._take()
            self.expected.discard(position)
            return self._pop(position)

    def collect(self) -> bool:
        """Take what is there, so that the writer has room for more answers; whether there was anything."""
        if not self.pending():
            return False
        with self._lock:
            self._take()
        return True

    def unclaimed(self) -> list[tuple[int, int, int]]:
        """Answers (position, code, value) that nobody expects: of periodic publishes that were refused."""
        with self._lock:
            positions = [position for position in self._waiting if position not in self.expected]
            return [(position, *answer) for position in positions for answer in self._pop(position)]

    def _pop(self, position: int) -> list[tuple[int, int]]:
        answers = self._waiting.pop(position, [])
        spilled = self.spilled.pop(position, None)
        if spilled is not None and any(code != reply.OK for code, _value in answers):
            remove_spill(spilled)
        return answers

    def _take(self) -> None:
        """An answer counts once COMMITTED has passed its record: until then the next writer may take it back."""
        words = self._port.words
        committed = words[COMMITTED]
        while (taken := words[REPLIES_TAKEN]) != words[REPLIES_WRITTEN]:
            answer = self._port.read_reply(taken)
            if answer is None or distance(committed, answer.position) < 0:
                return
            self._waiting.setdefault(answer.position, []).append((answer.code, answer.value))
            words[REPLIES_TAKEN] = taken + 1 & MASK
