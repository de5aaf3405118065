"""What has to hold in a directory that another program worked on, too."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from keyop.inspection.verification import verify
from keyop.messages.envelope import BadLine, decode_line
from torturing.findings import Violation
from torturing.records import ChannelContents, read_channels
from torturing.visits.life import Story
from torturing.visits.shift import SUBSCRIPTIONS, Key, Ledger

_NAMED = 6
_CONFLICT = "another program wrote"


class Found(NamedTuple):
    """A message in a channel."""

    offset: int
    key: Key


def check(data_dir: Path, ledger: Ledger, story: Story) -> list[Violation]:
    """All violations."""
    checker = _Checker(data_dir, ledger, story)
    checker.messages()
    checker.subscribers()
    checker.chain()
    checker.verify()
    return checker.violations


class _Checker:
    def __init__(self, data_dir: Path, ledger: Ledger, story: Story) -> None:
        self.violations: list[Violation] = []
        self._data_dir = data_dir
        self._ledger = ledger
        self._story = story
        self._channels = read_channels(data_dir)
        self._messages = {name: _messages(data_dir, contents) for name, contents in self._channels.items()}
        self._removed = {_key(line) for line in story.removed}
        self._outputs = Counter(Key(*out) for out in self._passed_on())

    def _passed_on(self) -> list[list[Any]]:
        contents = self._channels.get("out")
        return [record.payload["of"] for record in contents.records] if contents is not None else []

    def _say(self, kind: str, text: str, items: Iterable[object] = ()) -> None:
        named = sorted(str(item) for item in items)
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        whole = text + ": " * bool(named) + ", ".join(named[:_NAMED]) + more
        self.violations.append(Violation(kind, whole, count=len(named) or 1))

    def _say_if(self, kind: str, text: str, items: Sequence[object]) -> None:
        if items:
            self._say(kind, text, items)

    # ---- messages

    def messages(self) -> None:
        """Ours that were acknowledged and the other program's: each once, in order."""
        acknowledged = self._ledger.acknowledged()
        wanted = {*acknowledged, *((channel, Key("go", 0, number)) for channel, number in self._story.written)}
        lives = {key[:2] for _channel, key in acknowledged}
        for channel, found in self._messages.items():
            counts = Counter(message.key for message in found)
            self._say_if("doubled", f"messages on {channel} twice", [key for key, count in counts.items() if count > 1])
            strange = [key for key in counts if key.who != "go" and key[:2] not in lives]
            self._say_if("invented", f"on {channel}", strange)
            self._say_if("invented", f"on {channel}", [key for key in counts if key.number < 0])
            self._order(channel, found)
        there = {(channel, message.key) for channel, found in self._messages.items() for message in found}
        gone = [f"{channel} {key}" for channel, key in wanted - there if key not in self._removed]
        self._say_if("lost", "messages that were acknowledged, or written by the other program", gone)

    def _order(self, channel: str, found: list[Found]) -> None:
        last: dict[tuple[str, int], int] = defaultdict(lambda: -1)
        wrong = []
        for message in found:
            who = message.key[:2]
            if message.key.number < last[who]:
                wrong.append(f"{message.key} behind {last[who]}")
            last[who] = message.key.number
        self._say_if("disorder", channel, wrong)

    # ---- handlers

    def subscribers(self) -> None:
        """Each message at least once, unless the other program handled it."""
        handled = defaultdict(set)
        for note in self._ledger.notes("handled"):
            handled[note["by"]].add(Key(*note["key"]))
        for id, line in self._story.handled:
            handled[id].add(_key(line))
        for id, channel in SUBSCRIPTIONS.items():
            if id != "chain":
                found = {message.key for message in self._messages.get(channel, [])}
                self._say_if("unhandled", f"by {id}", list(found - handled[id]))
                known = found | self._removed | {Key("go", 0, number) for _channel, number in self._story.written}
                self._say_if("invented", f"handled by {id}", [key for key in handled[id] - known if key.who != "p"])

    def chain(self) -> None:
        """Each input has its output once. Where the other program's lines stand in the place of ours, the chain was set
        back before them: then more than once, and that is said."""
        inputs = {message.key for message in self._messages.get("orders", [])}
        missing = [key for key in inputs if not self._outputs[key]]
        self._say_if("chain", "inputs without output", missing)
        doubled = [key for key, count in self._outputs.items() if count > 1]
        if doubled and not self._was_set_back():
            self._say("chain", "inputs with several outputs", doubled)

    def _was_set_back(self) -> bool:
        """Whether some writer said so, ours or one that an attached process has started."""
        log = self._data_dir / "run" / "writer.log"
        said = [str(record) for record in self._story.log]
        said += log.read_text(errors="replace").splitlines() if log.exists() else []
        return any(
            (_CONFLICT in text and "/orders/" in text) or ("offset_moved" in text and "/orders/chain." in text)
            for text in said
        )

    # ---- keyop's own view

    def verify(self) -> None:
        """It names what is damaged here, and nothing else."""
        found = verify(self._data_dir)
        damaged = sum(len(contents.torn) for contents in self._channels.values())
        seams = sum(len(contents.seams) for contents in self._channels.values())
        # A peer's position that the other program left behind holds nothing back that it has removed itself.
        kinds = Counter(problem.kind for problem in found.problems if "/fed-" not in problem.path)
        if kinds.pop("damaged", 0) + kinds.pop("torn", 0) != damaged:
            self._say("verify", f"{damaged} lines are damaged; it found", found.problems)
        if kinds.pop("gap", 0) + kinds.pop("overlap", 0) != seams:
            self._say("verify", f"{seams} seams are wrong; it found", found.problems)
        if kinds:
            self._say("verify", "it found", found.problems)
        if found.writer_runs:
            self._say("verify", "a writer runs")


def _messages(data_dir: Path, contents: ChannelContents) -> list[Found]:
    """What is delivered of a channel, in its order; of a damaged line what stands at its end."""
    if contents.name == "out" or contents.name.endswith(".dead-letter"):
        return []
    found = [Found(record.offset, _key_of(record.payload)) for record in contents.records]
    for path in sorted((data_dir / "channels" / contents.name).glob("*.jsonl")):
        offset = int(path.stem)
        for line in path.read_bytes().split(b"\n"):
            decoded = decode_line(line)
            if isinstance(decoded, BadLine) and decoded.envelope is not None:
                found.append(Found(offset + decoded.start, _key_of(decoded.envelope.payload)))
            offset += len(line) + 1
    return sorted(found)


def _key(line: bytes) -> Key:
    decoded = decode_line(line)
    envelope = decoded.envelope if isinstance(decoded, BadLine) else decoded
    return _key_of(envelope.payload) if envelope is not None else Key("torn", 0, -1)


def _key_of(payload: object) -> Key:
    assert isinstance(payload, dict), json.dumps(payload)
    return Key(payload["from"], payload["life"], payload["n"])
