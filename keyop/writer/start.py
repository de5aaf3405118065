"""Bringing a writer up: recovery, the ports that outlived the last writer, and then the board says OPEN."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from keyop.ipc import layout, semaphore
from keyop.ipc.board import Board, is_named
from keyop.ipc.names import DirectoryIdentity
from keyop.ipc.semaphore import Semaphore
from keyop.protocol.writer_options import WriterOptions
from keyop.storage import deletion, disk
from keyop.storage.audit_file import AuditFile
from keyop.storage.directory import DataDirectory
from keyop.storage.file_system import FileSystem
from keyop.storage.journal import Journal
from keyop.storage.offsets import OFFSET_SUFFIX, list_names, read_offset
from keyop.storage.parts import PARTS_SUFFIX, places, read_parts
from keyop.storage.recovery import Recovered, free_journal, recover
from keyop.storage.segments import align_offset
from keyop.writer.audit import Audit
from keyop.writer.census import Census
from keyop.writer.channels import Channels
from keyop.writer.committer import Committer
from keyop.writer.cursor import Key
from keyop.writer.cursors import Cursors
from keyop.writer.log import Log
from keyop.writer.refused import Wait
from keyop.writer.seen import SeenIds
from keyop.writer.spill import Spills

Patience = Callable[[OSError, int], None]
"""Called with what a full or failing disk says and the number of the try; waits, or raises to give up."""

_T = TypeVar("_T")


class SharedMemoryEmptied(Exception):
    """Ports whose names are gone could not be told what the journal says of their rings. It stays for the next writer,
    before which their processes make them anew; freed now, their messages would be taken again."""


def bring_up(
    directory: DataDirectory, identity: DirectoryIdentity, options: WriterOptions, log: Log, patience: Patience
) -> Committer:
    """Everything up to OPEN. The caller holds the writer's lock. Raises `OSError`, `SharedMemoryError` and
    `SharedMemoryEmptied`.

    A recovery needs room, too: while there is none it is begun again and again, with the state STARTING.
    """
    channel_count = len(os.listdir(directory.channels))
    board = Board.create(identity, channel_count, max(0, options.sync_interval_ms))
    board.words[layout.AT_REST] = 1
    wake = _semaphore(identity)
    recovered = _until_it_works(lambda: recover(directory), board, patience)
    report(recovered, log)
    census = Census(directory.run, identity, log, recovered.rings)
    _until_it_works(census.sweep_orphans, board, patience)
    cursors = Cursors(directory, log)
    channels = Channels(directory, options, board, cursors, log)
    _until_it_works(lambda: restore_cursors(directory, recovered, cursors, log), board, patience)
    _until_it_works(census.scan, board, patience)
    if not recovered.clean and not is_named(identity):
        raise SharedMemoryEmptied("shared memory was emptied during the recovery")
    spills = Spills(directory.spill)
    _until_it_works(lambda: finish_recovery(directory, recovered, cursors, spills), board, patience)
    _until_it_works(lambda: deletion.remove(directory), board, patience)
    _until_it_works(lambda: Journal.prepare(directory.journal, options.journal_bytes), board, patience)
    seen = SeenIds(options.seen_id_lru_size)
    audit = Audit(AuditFile(directory.audit, options.audit_bytes, options.audit_max_files), log)
    committer = _until_it_works(
        lambda: Committer(directory, options, board, wake, census, channels, cursors, spills, seen, audit, log),
        board,
        patience,
    )
    committer.subscriptions.deleted = recovered.deleted
    _until_it_works(lambda: _adopt(committer), board, patience)
    committer.subscriptions.deleted = set()
    _until_it_works(lambda: spills.sweep({port.port.ring_id for port in census.ports}), board, patience)
    committer.trouble.open()
    for port in census.ports:
        if not port.dead:  # its semaphore may be damaged, and glibc ends a process that posts such a one
            port.wake()
    return committer


def _until_it_works(action: Callable[[], _T], board: Board, patience: Patience) -> _T:
    tries = 0
    while True:
        try:
            result = action()
        except OSError as error:
            if error.errno not in disk.WAIT_ERRNOS:
                raise
            board.words[layout.STALL_ERRNO] = error.errno or 0
            patience(error, tries)
            tries += 1
        else:
            board.words[layout.STALL_ERRNO] = 0
            return result


def _adopt(committer: Committer) -> None:
    """Who holds which subscription: the living before the dead."""
    subscriptions = committer.subscriptions
    dead = committer.census.find_dead()
    living = [port for port in committer.census.ports if not port.dead]
    try:
        for port in dead:
            subscriptions.hear(port)
        for granted in (True, False):
            for port in living:
                subscriptions.adopt(port, granted=granted)
        for port in dead:
            subscriptions.adopt(port, granted=True)
    except Wait as wait:
        raise wait.error from None


def _semaphore(identity: DirectoryIdentity) -> Semaphore:
    """A new one: what the last writer left may be damaged, or hold a token for each look that it was killed before.

    Whoever has that one open looks for this one when it finds the next board.
    """
    name = identity.writer_semaphore()
    semaphore.unlink(name)
    return semaphore.create(name, identity.owner)


def report(recovered: Recovered, log: Log) -> None:
    """Log what a recovery found."""
    if not recovered.clean:
        log.info("recovered_journal", frames=recovered.frames, channels=len(recovered.ends))
    for note in (*recovered.notes, *filter(None, [recovered.torn])):
        log.warning("recovery", note=note)


def restore_cursors(directory: DataDirectory, recovered: Recovered, cursors: Cursors, log: Log) -> None:
    """Cursors that frames name, and the offset files of recovered channels, `fed-` ones too: none may stand beyond its
    channel's end, behind another program's lines that were found, or inside a record."""
    for key, found in recovered.cursors.items():
        offsets = (_standing(directory, recovered, key, each.offset, log) for each in found)
        cursors.restore(key, [each._replace(offset=offset) for each, offset in zip(found, offsets, strict=True)])
    for channel in recovered.ends:
        folder = directory.offsets(os.fsdecode(channel))
        names = list_names(folder)
        for name in names:
            id = name.removesuffix(OFFSET_SUFFIX)
            key = (channel, os.fsencode(id))
            if id == name or key in cursors.by_key:
                continue
            parsed = read_offset(folder / name)
            if parsed is not None and not parsed.damaged:
                parts = f"{id}{PARTS_SUFFIX}"
                filed, _why = places(parsed.value, read_parts(folder / parts) if parts in names else None)
                standing = [_standing(directory, recovered, key, offset, log) for offset in filed]
                if standing != [*filed]:
                    cursors.unfiled.add(cursors.add(key, standing))


def _standing(directory: DataDirectory, recovered: Recovered, key: Key, offset: int, log: Log) -> int:
    channel, id = key
    if offset == recovered.ends.get(channel) and channel not in recovered.conflicts:
        return offset  # as nearly all are
    capped = recovered.cap(channel, offset)
    why: str | None = "beyond what the journal could bring back"
    if capped == offset:
        try:
            capped, why = align_offset(directory.channel(os.fsdecode(channel)), offset)
        except OSError as error:
            if error.errno in disk.WAIT_ERRNOS:
                raise
    if capped != offset:
        file = directory.offset_file(os.fsdecode(channel), os.fsdecode(id))
        log.warning("offset_moved", file=file, old=offset, new=capped, why=why)
    return capped


def finish_recovery(directory: DataDirectory, recovered: Recovered, cursors: Cursors, spills: Spills) -> None:
    """What rings and cursors were told stands in memory and files: now the journal may be freed."""
    if recovered.clean:
        return
    file_system = FileSystem(directory)
    try:
        cursors.refile_unsynced()
        trouble = cursors.file()
        if trouble is not None:
            raise trouble
        cursors.file_attempts()
        file_system.sync(cursors.unsynced_files | cursors.unsynced_directories, _sync)
    finally:
        file_system.close()
    disk.step("recovery.offsets_synced")
    free_journal(recovered)
    disk.step("recovery.freed")
    spills.remove(recovered.spills)


def _sync(path: Path) -> None:
    try:
        disk.sync_path(path)
    except OSError as error:
        if error.errno in disk.WAIT_ERRNOS:
            raise
