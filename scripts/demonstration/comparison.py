"""Whether both hosts hold the same messages, read from their files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demonstration import ALERTS, READINGS
from demonstration.hosts import CLIENT, HUB

# Where a channel's messages were published, and where they went.
_WAYS = ((READINGS, HUB, CLIENT), (ALERTS, CLIENT, HUB))


@dataclass(frozen=True, slots=True)
class Comparison:
    """One channel on both hosts."""

    text: str
    agrees: bool
    sample: str
    """The envelope of its last message where it was received, without the payload."""


def compare(place: Path) -> list[Comparison]:
    """Both channels: the same messages in the same order, but for the route, which grows on the way."""
    return [_compare(place, channel, origin, receiver) for channel, origin, receiver in _WAYS]


def _compare(place: Path, channel: str, origin: str, receiver: str) -> Comparison:
    there, here = _envelopes(place / origin, channel), _envelopes(place / receiver, channel)
    routes = [envelope.pop("route", None) for envelope in here]
    agrees = bool(here) and there == here and all(route == [origin, receiver] for route in routes)
    verdict = "the same messages in the same order" if agrees else "NOT THE SAME"
    text = f"{channel}: {len(there)} on {origin}, {len(here)} on {receiver}: {verdict}"
    sample = {key: value for key, value in here[-1].items() if key != "payload"} if here else {}
    return Comparison(text, agrees, json.dumps({**sample, "route": routes[-1]}) if here else "")


def _envelopes(data_dir: Path, channel: str) -> list[dict[str, Any]]:
    segments = sorted((data_dir / "channels" / channel).glob("*.jsonl"))
    return [json.loads(line) for segment in segments for line in segment.read_bytes().split(b"\n")[:-1]]
