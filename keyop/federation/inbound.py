"""What a peer sends: each record is looked at, and what is good is committed before the batch is acknowledged."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection
from enum import Enum

from keyop.attachment.acknowledgements import Acknowledgements
from keyop.attachment.attachment import Attachment
from keyop.errors import ChannelNameError
from keyop.federation.audit import Audit
from keyop.federation.known_ids import ChannelIds, MustRead
from keyop.federation.record import Fault, Record
from keyop.federation.route import Link
from keyop.federation.session import Batch
from keyop.names import check_publish_channel
from keyop.protocol import entry, inbound
from keyop.storage.segments import MAX_LINE_BYTES

# A transaction that goes through the ring as it is; a single longer line makes a longer one.
TRANSACTION_BYTES = 120 * 1024


class Outcome(Enum):
    """What became of a record."""

    COMMITTED = "committed"
    DUPLICATE = "duplicate"
    """A message of this id stands in the channel already."""
    LOOP = "loop_dropped"
    """This host stands in its route: it has been here."""
    VIOLATION = "policy_violation"
    """A channel that the peer may not publish to, a bad name, an empty id, a record that is too long."""
    UNREADABLE = "unreadable"
    """Not an envelope, or one of another version that is not passed on."""


class KnownIds:
    """The ids of all channels that came in; shared by the connections of one process."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._channels: dict[str, ChannelIds] = {}
        self._lock = asyncio.Lock()

    async def unknown(self, channel: str, records: list[tuple[Record, int]]) -> list[tuple[Record, int]]:
        """Those of (record, hash of its id) that the channel does not hold yet. Raises `OSError`."""
        ids = self._channels.get(channel)
        if ids is None:
            ids = self._channels[channel] = ChannelIds(self._attachment.directory.channel(channel))
        async with self._lock:  # an index is not for two threads
            ids.may_read = False
            try:
                return _without_known(ids, records)
            except MustRead:
                ids.may_read = True
                return await asyncio.to_thread(_without_known, ids, records)

    def close(self) -> None:
        """Give up all descriptors."""
        for ids in self._channels.values():
            ids.close()


def _without_known(ids: ChannelIds, records: list[tuple[Record, int]]) -> list[tuple[Record, int]]:
    ids.follow()
    return [(record, hash) for record, hash in records if not ids.holds(record.head.id.encode(), hash)]


class Inbound:
    """The receiving half of one connection."""

    def __init__(
        self,
        attachment: Attachment,
        acknowledgements: Acknowledgements,
        link: Link,
        known: KnownIds,
        audit: Audit,
        *,
        allowed: Collection[str] | None,
    ) -> None:
        """``allowed``: the channels that the peer may publish to, None for any."""
        self._attachment = attachment
        self._acknowledgements = acknowledgements
        self._link = link
        self._known = known
        self._audit = audit
        self.allowed = allowed
        """The channels that the peer may publish to, None for any; may be changed while it is connected."""
        self._peer = link.peer_name
        self.outcomes: Counter[Outcome] = Counter()
        """How many records had which outcome."""

    async def commit(self, batch: Batch) -> None:
        """Commit what is good of a batch. Returns when it is synced; the batch may be acknowledged then.

        Raises `KeyopError` and `OSError` if it could not be committed: no acknowledgement, the peer sends it again.
        """
        by_channel: dict[str, list[tuple[Record, int]]] = {}
        for record in batch.records():
            if self._is_good(record):
                id_hash = inbound.id_hash(record.head.id.encode())
                by_channel.setdefault(record.head.channel, []).append((record, id_hash))
        for channel, records in by_channel.items():
            unknown = await self._known.unknown(channel, records)
            self.outcomes[Outcome.DUPLICATE] += len(records) - len(unknown)
            by_channel[channel] = unknown
        await self._commit(by_channel)

    def _is_good(self, record: Record) -> bool:
        head = record.head
        if record.fault is Fault.TOO_BIG:
            return self._refuse(record, record.detail)
        if record.fault is Fault.UNREADABLE or (record.fault is Fault.OTHER_VERSION and not self._link.any_version):
            self.outcomes[Outcome.UNREADABLE] += 1
            return False
        try:
            check_publish_channel(head.channel)
        except ChannelNameError as error:
            return self._refuse(record, f"reason=channel_name {error}")
        if self.allowed is not None and head.channel not in self.allowed:
            return self._refuse(record, "")
        if not head.id:
            return self._refuse(record, "reason=no_id")
        if self._link.is_loop(record):
            self.outcomes[Outcome.LOOP] += 1
            self._drop("loop_dropped", record, "")
            return False
        return True

    def _refuse(self, record: Record, detail: str) -> bool:
        self.outcomes[Outcome.VIOLATION] += 1
        self._drop("policy_violation", record, detail)
        return False

    def _drop(self, event: str, record: Record, detail: str) -> None:
        head = record.head
        self._audit.event(
            event,
            message_id=head.id[:200],
            channel=head.channel[:300],
            direction="inbound",
            peer=self._peer,
            detail=detail,
        )

    async def _commit(self, by_channel: dict[str, list[tuple[Record, int]]]) -> None:
        sent: list[tuple[int, str, int]] = []
        kept: list[tuple[str, str]] = []
        for channel, records in by_channel.items():
            for transaction, ids in self._transactions(channel, records):
                sent.append((await self._acknowledgements.send(transaction), channel, len(ids)))
                kept += ((channel, id) for id in ids)
        for position, channel, count in sent:
            await self._acknowledgements.committed(position)
            (duplicates,) = self._attachment.replies.of(position, channel)
            self.outcomes[Outcome.COMMITTED] += count - duplicates
            self.outcomes[Outcome.DUPLICATE] += duplicates
        self._audit.forwarded("inbound", self._peer, kept)

    def _transactions(self, channel: str, records: list[tuple[Record, int]]) -> list[tuple[bytes, list[str]]]:
        """(transaction, the ids of its records), each small enough for the ring."""
        transactions = []
        name = channel.encode()
        lines: list[bytes] = []
        hashes: list[int] = []
        ids: list[str] = []
        length = 0
        for record, id_hash in records:
            line = self._link.taken_over(record) + b"\n"
            if len(line) > MAX_LINE_BYTES:
                self._refuse(record, f"reason=too_big bytes={len(line)}")
                continue
            if lines and length + len(line) > TRANSACTION_BYTES:
                transactions.append((_transaction(name, lines, hashes), ids))
                lines, hashes, ids, length = [], [], [], 0
            lines.append(line)
            ids.append(record.head.id)
            hashes.append(id_hash)
            length += len(line) + inbound.LINE_BYTES
        if lines:
            transactions.append((_transaction(name, lines, hashes), ids))
        return transactions


def _transaction(channel: bytes, lines: list[bytes], hashes: list[int]) -> bytes:
    packed = inbound.pack(lines, hashes)
    return entry.TRANSACTION.pack(entry.SYNC) + entry.encode(entry.INBOUND, channel, data=packed)
