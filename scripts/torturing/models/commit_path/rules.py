"""The rules of the commit path. Each can be switched off, to see what it is there for."""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields, replace
from typing import Any

from torturing.models.commit_path.danger import Aim


def _rule(sentence: str, *, seen_in: str, aims: tuple[Aim, ...] = (), runs: int = 50) -> Any:
    return field(default=True, metadata={"sentence": sentence, "seen_in": seen_in, "aims": aims, "runs": runs})


@dataclass(frozen=True, slots=True)
class Rules:
    """All are kept, unless one is switched off."""

    # ---- the journal
    salts: bool = _rule("Each use of a journal file draws a salt that its frames carry.", seen_in="strict plain")
    whole_frames: bool = _rule(
        "A frame counts only if all of it is there.",
        seen_in="strict atomic",
        aims=(("half of a frame is written", "kill"), ("frame.written", "power")),
    )
    journal_first: bool = _rule(
        "A frame is on the device before its lines are in a segment.",
        seen_in="strict atomic",
        aims=(("half of a chunk is written", "power"), ("segment.written", "power")),
    )
    transactions_synced: bool = _rule(
        "The frame of an atomic batch, of a move by transaction, of a dead letter is synced in every mode.",
        seen_in="periodic atomic",
    )
    left_file_synced: bool = _rule(
        "A journal file is synced when the writer goes over to the other one.",
        seen_in="periodic atomic",
        aims=(("frame.synced", "power"), ("journal.switched", "power")),
        runs=300,
    )
    later_frame_proves: bool = _rule(
        "A damaged frame ends the journal only if no later one says that it had been synced.", seen_in="strict damage"
    )
    torn_end: bool = _rule(
        "Behind a frame that is missing and was not proven to be synced, nothing counts.",
        seen_in="periodic plain",
        aims=(("frame.written", "power"), ("settled", "power")),
        runs=100,
    )
    sync_counts_what_it_began_with: bool = _rule(
        "A sync counts only the frames that were written before it began.",
        seen_in="periodic atomic",
        aims=(("settled", "power"), ("frame.synced", "power")),
        runs=400,
    )
    frames_written_again: bool = _rule(
        "After a failed sync the same frames are written again before the next one.", seen_in="strict failing"
    )
    positions_in_frames: bool = _rule("A frame says up to where it consumes each ring.", seen_in="strict plain")
    answers_in_frames: bool = _rule("A frame holds the answers to its transactions.", seen_in="strict exactly-once")
    ring_ids: bool = _rule(
        "A ring is known by a random id: one that was made anew is another one.", seen_in="strict plain"
    )

    # ---- recovery
    exact_places: bool = _rule("Recovery writes each line at its place, whatever stands there.", seen_in="strict plain")
    journal_synced_first: bool = _rule(
        "Recovery syncs the journal before it acts on it.",
        seen_in="strict atomic",
        aims=(("frame.written", "kill"), ("recovery.written", "power")),
        runs=150,
    )
    free_file_synced: bool = _rule(
        "Recovery syncs also a journal file that is free: its header may be zeroed in memory only.",
        seen_in="strict plain",
        aims=(("free.zeroed", "kill"), ("frame.synced", "power")),
        runs=600,
    )
    written_whatever_is_seen: bool = _rule(
        "Recovery writes also what seems to stand there: a failed sync may have dropped it.", seen_in="strict failing"
    )
    segments_synced_first: bool = _rule(
        "Recovery syncs the segments before it frees the journal.", seen_in="strict plain"
    )
    names_synced_first: bool = _rule(
        "Recovery syncs the directories of what it writes: the names in them may be the dead writer's, unsynced.",
        seen_in="strict plain",
    )
    offsets_synced_first: bool = _rule(
        "Recovery writes and syncs offset files before it frees the journal.", seen_in="strict exactly-once"
    )
    older_file_first: bool = _rule(
        "Recovery frees the older file first.",
        seen_in="strict exactly-once",
        aims=(("recovery.zeroed", "kill"),),
        runs=100,
    )
    gap_begins_segment: bool = _rule(
        "A line beyond the end begins a segment: what was before it is lost, and no zeros fill the gap.",
        seen_in="strict damage",
    )
    foreign_lines_stay: bool = _rule(
        "Whole lines that the journal does not know stay, ours follow behind them.", seen_in="strict foreign"
    )
    behind_first_run: bool = _rule(
        "They follow behind the first run of foreign lines, not at the end.", seen_in="strict foreign"
    )
    planned_segments_dropped: bool = _rule(
        "Empty segments that were made behind them are removed, as they would lie across what follows.",
        seen_in="strict together",
        runs=1050,
    )
    conflict_moves_cursors_back: bool = _rule(
        "Cursors beyond another program's lines move back to them.",
        seen_in="strict foreign",
        aims=(("settled", "power"), ("offsets.filed", "power")),
        runs=450,
    )
    torn_line_cut: bool = _rule("The torn rest of a last line is cut.", seen_in="periodic plain", runs=100)
    empty_segments_dropped: bool = _rule(
        "Segments that were made for a commit which a crash prevented are removed.", seen_in="strict rolling"
    )
    offsets_capped: bool = _rule(
        "No offset stays beyond the end of its channel: recovery looks, and who opens a channel.",
        seen_in="periodic restless",
        aims=(("offsets.filed", "power"),),
        runs=950,
    )
    most_moves_win: bool = _rule(
        "Of two places of a cursor the one with more moves counts, not the one further on.",
        seen_in="strict cursors",
        runs=100,
    )
    slots_adopted: bool = _rule(
        "A writer that starts takes up the slots that outlived the last one.", seen_in="strict cursors", runs=100
    )

    # ---- the writer
    size_looked_at: bool = _rule(
        "The writer looks at a segment's length before it appends, and leaves if it is another.",
        seen_in="strict foreign",
    )
    left_segment_looked_at: bool = _rule(
        "When the writer rolls it looks once more at the segment that it leaves.", seen_in="strict foreign", runs=100
    )
    names_in_turn: bool = _rule(
        "A segment's name is on the device before that of a later one is made.",
        seen_in="strict rolling",
        aims=(("segment.created", "power"), ("recovery.created", "power")),
        runs=500,
    )
    empty_segment_is_new: bool = _rule(
        "The name of a segment that is found empty is synced: who made it may have died before.",
        seen_in="strict exactly-once",
        aims=(("channel.opened", "kill"),),
    )
    names_before_frames: bool = _rule(
        "The names of segments are on the device before a frame speaks of them.", seen_in="strict rolling"
    )
    answers_first: bool = _rule(
        "Answers are written before the position that makes them count.", seen_in="strict exactly-once"
    )
    settled_before_freed: bool = _rule(
        "A checkpoint that is asked for frees the round's frame once its rings know how far they are taken.",
        seen_in="strict plain",
        aims=(("free.synced", "kill"),),
    )
    stale_moves_refused: bool = _rule(
        "A move by transaction whose old value is not the current one is refused.", seen_in="strict exactly-once"
    )
    living_before_dead: bool = _rule(
        "A writer that starts asks the living for what they hold before the dead, and the dead only for last words.",
        seen_in="strict exactly-once",
        aims=(("answers are written", "kill"), ("settled", "kill")),
        runs=2500,
    )
    left_slot_holds_nothing: bool = _rule(
        "A slot says that its process gives it up: with an empty ring, a writer that starts does not take it up.",
        seen_in="strict departing",
        aims=(("answers are written", "kill"), ("settled", "kill")),
        runs=2000,
    )
    forget_in_frame: bool = _rule(
        "An id is forgotten through a frame, so that an older one does not bring it back.",
        seen_in="strict cursors",
        aims=(("settled", "kill"),),
        runs=300,
    )

    # ---- checkpoints and removal
    checkpoint_syncs_segments: bool = _rule(
        "A checkpoint syncs segments before it frees a file.", seen_in="strict plain"
    )
    checkpoint_syncs_offsets: bool = _rule(
        "A checkpoint writes and syncs offset files before it frees a file.", seen_in="strict exactly-once"
    )
    checkpoint_syncs_names: bool = _rule(
        "A checkpoint syncs directories before it frees a file.", seen_in="strict plain"
    )
    segments_written_again: bool = _rule(
        "After a failed sync a checkpoint writes the segment again from the journal.", seen_in="strict failing"
    )
    offsets_written_again: bool = _rule(
        "After a failed sync offset files are written again from the table of cursors.",
        seen_in="strict failing",
        runs=100,
    )
    removed_after_checkpoint: bool = _rule(
        "A segment is removed once the offsets that have passed it are on the device.",
        seen_in="strict compaction",
        aims=(("segment.removed", "power"), ("removal.synced", "power")),
        runs=3750,
    )
    removal_looks_again: bool = _rule(
        "Before a segment is removed the offsets are looked at once more.", seen_in="strict compaction", runs=1250
    )
    active_segment_stays: bool = _rule(
        "The last segment of a channel is never removed.", seen_in="strict compaction", runs=300
    )

    # ---- spill files
    spill_synced: bool = _rule("A spill file is synced before a ring names it.", seen_in="strict spill")
    spill_kept: bool = _rule(
        "A spill file stays until the journal file whose frame names it is free.", seen_in="strict spill"
    )
    spill_of_living_spared: bool = _rule(
        "A start sweeps only spill files of rings that are gone.", seen_in="strict spill"
    )

    # ---- attempts
    attempt_first: bool = _rule("The attempt is stored before the handler runs.", seen_in="strict cursors", runs=100)
    attempts_in_frames: bool = _rule(
        "Frames hold the attempts begun beside each cursor.", seen_in="strict cursors", runs=400
    )
    attempts_filed: bool = _rule(
        "Attempts are noted in a file when the journal that holds them is freed.", seen_in="strict cursors", runs=350
    )

    def without(self, name: str) -> Rules:
        """The same with one rule switched off."""
        return replace(self, **{name: False})


ALL = {rule.name: rule for rule in fields(Rules)}
"""Every rule as a field, with ``sentence``, ``seen_in`` and ``runs`` in its metadata."""


def sentence(rule: Field[Any]) -> str:
    """What a rule says."""
    return str(rule.metadata["sentence"])


def seen_in(rule: Field[Any]) -> str:
    """The name of the mode in which its absence shows."""
    return str(rule.metadata["seen_in"])


def aims_at(rule: Field[Any]) -> tuple[Aim, ...]:
    """The steps at which it happens."""
    found: tuple[Aim, ...] = rule.metadata["aims"]
    return found


def runs_needed(rule: Field[Any]) -> int:
    """In so many runs of that mode, from seed 0 on, its absence shows for certain."""
    return int(rule.metadata["runs"])
