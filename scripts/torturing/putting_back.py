"""Dead letters of ``plain`` are put back, as ``keyop dead-letter replay`` does it, by a process that may be killed.

What failed for good is handled when it comes again: the handler was mended, so to say. It knows that by the letter,
which stands before the message comes again, and never before it was given up.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from keyop import Messenger
from keyop.configuration.settings import Settings
from keyop.errors import PublishTimeout, SubscriberBusy, WriterBusy, WriterUnavailable
from keyop.inspection.dead_letters import Selection
from keyop.maintenance.dead_letter_office import DeadLetterOffice, Outcome
from keyop.storage.directory import DataDirectory
from keyop.storage.segments import channel_end
from torturing.orders import CLOSE_TIMEOUT_S, PROVOKED
from torturing.records import read_channel
from torturing.workload import Assignment

_WANTED = Selection(subscriber="plain", error=re.compile(PROVOKED))
_LOOK_S = 0.005


def replay(assignment: Assignment) -> None:
    """What the command does. It may fail: its writer may be killed, and another one's cursor be in the way."""
    notes = assignment.notebook()
    try:
        done = _replay(assignment.plan.settings(assignment.data_dir)).done
    except (WriterUnavailable, WriterBusy, SubscriberBusy, PublishTimeout) as error:
        notes.note("replay failed", text=str(error))
    else:
        notes.note("put back", done=done)


def _replay(settings: Settings) -> Outcome:
    with DeadLetterOffice(settings, "in") as office:
        return office.replay(_WANTED)


def replay_the_rest(assignment: Assignment, messenger: Messenger) -> None:
    """Twice, the second time to no avail; then wait until ``plain`` is done with what came back."""
    settings = assignment.plan.settings(assignment.data_dir)
    deadline_s = time.monotonic() + CLOSE_TIMEOUT_S
    again: Outcome | None = None
    for _ in range(2):
        again = _replay_when_free(settings, deadline_s)
    if again != Outcome(0, []):
        assignment.notebook().note("complained", text=f"what was put back is put back again: {again}")
    directory = DataDirectory(assignment.data_dir)
    if not directory.offset_file("in.replay", "plain").exists():
        return
    end = channel_end(directory.channel("in.replay"))
    replays = messenger._subscriptions["in", "plain", 0].replays
    assert replays is not None
    while replays._second is None or replays._second.done_with < end:
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"plain: what was put back was not handled in {CLOSE_TIMEOUT_S:.0f} s")
        time.sleep(_LOOK_S)


def _replay_when_free(settings: Settings, deadline_s: float) -> Outcome:
    while True:
        try:
            return _replay(settings)
        except SubscriberBusy:
            # The predecessor was killed, and the writer has not seen it yet.
            if time.monotonic() > deadline_s:
                raise
            time.sleep(_LOOK_S)


def was_given_up(data_dir: str, name: list[object]) -> bool:
    """Whether ``plain`` has a dead letter of a message."""
    path = Path(data_dir) / "channels" / "in.dead-letter"
    if not path.is_dir():
        return False
    for record in read_channel(path).records:
        said = record.payload
        if said.get("subscriber") == "plain":
            original = said["original"]["payload"]
            if [original["from"], original["life"], original["n"]] == name:
                return True
    return False
