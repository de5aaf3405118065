"""The rules that protect the hand-off. Each can be switched off, to see what it is for."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class Rules:
    """All of them are kept, unless `without` says otherwise. What follows is what stands in the code."""

    # ---- wake-ups

    only_sleeper_clears: bool = True
    """Only the sleeper clears its flag. Else: the poster clears it, and posts."""
    writer_looks_again: bool = True
    """The writer says that it sleeps, looks at the rings once more, and sleeps."""
    waiter_looks_again: bool = True
    """So does who waits for "committed", or for messages."""
    publisher_fence: bool = True
    """Between HEAD and the look at the writer's flag."""
    writer_fence: bool = True
    """Between the writer's "I sleep" and its second look."""
    settle_fence: bool = True
    """Between COMMITTED and the look at who sleeps."""
    waiter_fence: bool = True
    """Between "I sleep" and the second look of who waits for "committed"."""
    sleeps_numbered: bool = True
    """Each sleep of the writer has a number of its own. Else: the flag says 1."""
    numbers_drawn: bool = True
    """A writer begins its numbers at random. Else: each begins at 1."""
    posted_before_noted: bool = True
    """A publisher posts the writer, and notes then for which sleep. Else: the other way round."""
    newcomers_looked_for: bool = True
    """A writer that was woken looks for newcomers before it sleeps again, whatever else it found to do."""
    tick_knocks: bool = True
    """A tick that finds another writer's board posts that writer, for what was put while it looked at the old one."""
    wake_all: bool = True
    """A writer that opens posts everybody once."""
    end_before_read: bool = True
    """Who reads remembers the channel's end first, then reads. Else: the other way round."""

    # ---- one writer after the other

    one_lock: bool = True
    """Who does not get the writer's lock leaves."""
    lock_falls: bool = True
    """The writer's lock falls with its process."""
    tick_looks_at_lock: bool = True
    """Each tick looks whether a writer lives, and starts one for who needs it."""
    position_in_frame: bool = True
    """A frame says up to where it took each ring, and recovery tells the ring."""
    frame_before_committed: bool = True
    """COMMITTED is stored when the frame stands."""
    ring_told_before_freed: bool = True
    """Recovery tells the rings before it frees the journal."""
    rings_told_before_checkpoint: bool = True
    """A checkpoint that somebody asks for frees the round's own frame: the rings are told first."""
    port_before_state: bool = True
    """Who attaches makes lease and port, and looks at the board's state afterwards."""
    leases_after_closing: bool = True
    """An idle writer says CLOSING, and looks at the leases once more."""
    gone_before_unlock: bool = True
    """A writer that leaves says GONE and removes its names before it gives the lock up."""

    # ---- shared memory that is emptied

    emptied_noticed: bool = True
    """A writer that finds the name of its board gone leaves."""
    emptied_noticed_in_recovery: bool = True
    """So does one that recovers, before it frees the journal: the next one finds the ports, made anew."""
    move_posts_old: bool = True
    """Who makes its port anew posts the old semaphore, for its own thread that sleeps on it."""
    left_port_stays_gone: bool = True
    """Who has left makes no port anew: it is the writer that has removed it."""
    copied_without_writer: bool = True
    """A port is copied when no writer has the old one mapped. Else: as soon as its name is gone."""

    def without(self, *names: str) -> Rules:
        """All of them but these."""
        known = {rule.name for rule in fields(self)}
        assert known.issuperset(names), names
        return replace(self, **dict.fromkeys(names, False))
