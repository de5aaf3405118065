"""How a layer is told what to do: a socket outside of the mount, one request a connection, JSON both ways."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torturing.faults.rules import Rule

if TYPE_CHECKING:
    from torturing.faults.layer import Layer

_ANSWER_S = 60.0

# ---- the layer's side


def serve(layer: Layer, path: Path) -> None:
    """Answer requests, in threads of their own, until the process ends."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    listening.listen()
    threading.Thread(target=_accept, args=(layer, listening), name="control", daemon=True).start()


def _accept(layer: Layer, listening: socket.socket) -> None:
    while True:
        connection, _ = listening.accept()
        threading.Thread(target=_answer, args=(layer, connection), daemon=True).start()


def _answer(layer: Layer, connection: socket.socket) -> None:
    with connection, connection.makefile("rw") as stream:
        request = json.loads(stream.readline())
        try:
            answer = {"is": _do(layer, **request)}
        except Exception as error:
            answer = {"failed": repr(error)}
        stream.write(json.dumps(answer) + "\n")


def _do(layer: Layer, what: str, **details: Any) -> Any:
    if what == "rules":
        layer.rules.replace([Rule(**rule) for rule in details["rules"]])
        return None
    if what == "hits":
        return layer.rules.hits()
    if what == "wait":
        return layer.rules.wait_for_hits(details["hits"], details["within_s"])
    if what == "evict":
        return layer.evict()
    if what == "cut":
        return layer.cut(Path(details["target"]))
    if what == "counts":
        return dict(layer.counts)
    raise ValueError(what)


# ---- the other side


class Control:
    """What a scenario tells a layer."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _ask(self, what: str, timeout_s: float = _ANSWER_S, **details: Any) -> Any:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(self._path))
            with connection.makefile("rw") as stream:
                stream.write(json.dumps({"what": what, **details}) + "\n")
                stream.flush()
                answer = json.loads(stream.readline())
        if "failed" in answer:
            raise RuntimeError(f"the layer failed at {what}: {answer['failed']}")
        return answer["is"]

    def fail(self, *rules: Rule) -> None:
        """These rules take the place of all others."""
        self._ask("rules", rules=[rule.as_json() for rule in rules])

    def heal(self) -> None:
        """No operation fails any more; one that waits goes on."""
        self.fail()

    def hits(self) -> list[int]:
        """How often each rule was applied."""
        found: list[int] = self._ask("hits")
        return found

    def wait_for_hits(self, count: int, within_s: float) -> bool:
        """Wait until the rules together were applied so often; whether they were."""
        return bool(self._ask("wait", within_s + _ANSWER_S, hits=count, within_s=within_s))

    def evict(self) -> int:
        """Drop the cache; how many files had bytes in it that a failed sync had lost."""
        return int(self._ask("evict"))

    def cut(self, target: Path) -> int:
        """Write what a power cut would leave now to a new directory; the layer's mark at that moment."""
        return int(self._ask("cut", target=str(target)))

    def counts(self) -> dict[str, int]:
        """How many changes there were, by operation."""
        found: dict[str, int] = self._ask("counts")
        return found
