"""Bringing a writer up: recovery, the ports that outlived the last writer, and then the board says OPEN."""

from __future__ import annotations

import os

from keyop.ipc import layout, semaphore
from keyop.ipc.board import Board
from keyop.ipc.names import DirectoryIdentity
from keyop.ipc.semaphore import Semaphore
from keyop.storage import disk
from keyop.storage.directory import DataDirectory
from keyop.storage.recovery import Recovered, free_journal, recover
from keyop.writer.census import Census
from keyop.writer.channels import Channels
from keyop.writer.committer import Committer
from keyop.writer.cursors import Cursors
from keyop.writer.log import Log
from keyop.writer_options import WriterOptions


def bring_up(directory: DataDirectory, identity: DirectoryIdentity, options: WriterOptions, log: Log) -> Committer:
    """Everything up to OPEN. The caller holds the writer's lock. Raises `OSError` and `SharedMemoryError`."""
    board = Board.create(identity, channels=len(os.listdir(directory.channels)))
    board.words[layout.SYNC_INTERVAL_MS] = max(0, options.sync_interval_ms)
    wake = _semaphore(identity)
    recovered = recover(directory)
    _report(recovered, log)
    census = Census(directory.run, identity, log)
    census.sweep_orphans()
    census.scan()
    channels = Channels(directory, options, board)
    cursors = Cursors(directory)
    for key, cursor in recovered.cursors.items():
        cursors.restore(key, cursor._replace(offset=recovered.cap(key[0], cursor.offset)))
    _cap_files(directory, recovered, cursors, log)
    for port in census.ports:
        taken_over = recovered.rings.get(port.port.ring_id)
        if taken_over is not None:
            port.take_over(*taken_over)
    _finish_recovery(directory, recovered, cursors)
    committer = Committer(directory, options, board, wake, census, channels, cursors, log)
    for granted in (True, False):
        for port in census.ports:
            committer.subscriptions.adopt(port, granted=granted)
    committer.spills.sweep({port.port.ring_id for port in census.ports})
    board.words[layout.STATE] = layout.OPEN
    for port in census.ports:
        port.wake()
    return committer


def _semaphore(identity: DirectoryIdentity) -> Semaphore:
    name = identity.writer_semaphore()
    return semaphore.open_existing(name) or semaphore.create(name, identity.owner)


def _report(recovered: Recovered, log: Log) -> None:
    if not recovered.clean:
        log.info("recovered_journal", frames=recovered.frames, channels=len(recovered.ends))
    for note in recovered.notes:
        log.warning("recovery", note=note)


def _cap_files(directory: DataDirectory, recovered: Recovered, cursors: Cursors, log: Log) -> None:
    """Offset files of recovered channels that no frame names, `fed-` ones too: none may be beyond its channel."""
    from keyop.storage.offsets import list_offsets

    for channel in recovered.ends:
        for id, parsed in list_offsets(directory.offsets(channel.decode())):
            key = (channel, id.encode())
            capped = recovered.cap(channel, parsed.value)
            if key not in cursors.by_key and not parsed.damaged and capped != parsed.value:
                log.warning("offset_moved", file=cursors.path(key), old=parsed.value, new=capped, why="beyond the end")
                cursors.unfiled.add(cursors.add(key, capped))


def _finish_recovery(directory: DataDirectory, recovered: Recovered, cursors: Cursors) -> None:
    """What rings and cursors were told stands in memory and files: now the journal may be freed."""
    if recovered.clean:
        return
    trouble = cursors.file()
    if trouble is not None:
        raise trouble
    cursors.file_attempts()
    for path in cursors.unsynced_files | cursors.unsynced_directories:
        disk.sync_path(path)
    disk.step("recovery.offsets_synced")
    free_journal(directory)
    disk.step("recovery.freed")
