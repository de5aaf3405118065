"""The path vector: which hosts hold a message, to whom it may go, and what a host adds that takes it over.

``route`` in an envelope is a list of certificate names (CN). A message published here has none. Whoever commits a
record from a peer appends the peer's name, unless it stands there, and then its own. So a message is never sent to a
host that had it, its origin included, and one that comes back all the same is dropped. ``origin`` is free text and
decides nothing.

Only the route is touched; all other bytes of a line stay as they came, unknown keys and the spelling of numbers too.
"""

from __future__ import annotations

import enum

from keyop.federation.members import members_of
from keyop.federation.record import Fault, Record, read_record
from keyop.federation.wire import ANY_VERSION
from keyop.messages.envelope import BadLine, decode_line_raw
from keyop.messages.json_text import quote
from keyop.names import REPLAY_SUFFIX

_TEXTS_KEPT = 1_024
_NAMES_IN_A_KEPT_TEXT = 32


class Stays(enum.Enum):
    """Why a line of a segment is not sent to a peer."""

    HELD = "held"
    """The peer's name stands in the route: it has the message."""
    REPLAY = "replay"
    """Channels that end in ``.replay`` are never federated."""
    OTHER_VERSION = "other version"
    """An envelope of another version, and the peer is not one that passes those on."""
    UNREADABLE = "unreadable"
    """Not an envelope. The peer would count it as damaged and drop it."""
    TOO_BIG = "too_big"
    """Longer than a batch may be; to be audited."""


class Link:
    """What goes over the connection between this host and one peer, and in which form it is kept."""

    def __init__(self, own_name: str, peer_name: str, features: frozenset[str], record_bytes: int) -> None:
        """`own_name`, `peer_name`: the CNs of both certificates. `features`: what the handshake agreed on.

        `record_bytes`: the longest record that is sent or kept, see `Limits.record_bytes`.
        """
        self.own_name = own_name
        self.peer_name = peer_name
        self.is_namesake = own_name == peer_name
        """Both certificates have the same name. The route says nothing then: only ids stop loops."""
        self.any_version = ANY_VERSION in features
        """Whether envelopes of other versions pass over this link."""
        self._record_bytes = record_bytes
        self._kept_texts: dict[tuple[str, ...], bytes] = {}
        self._grown_texts: dict[tuple[str, ...], bytes] = {}

    def outbound(self, line: bytes) -> tuple[Record, Stays | None]:
        """Look at a line of a segment (without its newline): the record to send, and why it stays here, if it does.

        Send `record.line`. Of half an envelope with a whole one behind it, as the Go program up to 1.12 leaves it
        after a crash, that is the whole one.
        """
        record = read_record(line, self._record_bytes)
        if record.fault is Fault.UNREADABLE:
            record = self._whole_end(line) or record
        if record.fault is not None and not (record.fault is Fault.OTHER_VERSION and self.any_version):
            return record, Stays[record.fault.name]
        head = record.head
        if head.route and self.peer_name in head.route and not self.is_namesake:
            return record, Stays.HELD
        if head.channel.endswith(REPLAY_SUFFIX):
            return record, Stays.REPLAY
        return record, None

    def _whole_end(self, line: bytes) -> Record | None:
        found = decode_line_raw(line)
        if isinstance(found, BadLine) and found.envelope is not None:
            return read_record(line[found.start :], self._record_bytes)
        return None

    def is_loop(self, record: Record) -> bool:
        """Whether a record from the peer was here before: drop it, and audit `loop_dropped`."""
        route = record.head.route
        return bool(route) and self.own_name in route and not self.is_namesake

    def taken_over(self, record: Record) -> bytes:
        """The line (without newline) under which a good record from the peer is kept: with the route of this host.

        It may be longer than `Limits.record_bytes` by the two names. A record of another version stays as it is.
        """
        if record.fault is not None:
            return record.line
        line, head = record.line, record.head
        grown = self._grown_text(head.route)
        tail = b',"payload":%b}' % bytes(head.payload)
        if not line.endswith(tail):
            return self._taken_over_slowly(record)
        # This is the last member, and not something inside of one: a quote in a string has a backslash before it, and
        # of all members that a Head may have, only the payload can hold others.
        cut = len(line) - len(tail)
        if head.route:
            kept = self._kept_text(head.route)
            if not line.endswith(kept, 0, cut):
                return self._taken_over_slowly(record)
            cut -= len(kept)
        # A key may be spelled with escapes, too.
        if line.find(b'"route"', 0, cut) >= 0 or line.find(b"\\", 0, cut) >= 0:
            return self._taken_over_slowly(record)
        return line[:cut] + grown + tail

    def grown(self, route: tuple[str, ...]) -> tuple[str, ...]:
        """The route of a message that came over this link with `route`, once it is committed here."""
        names = [name for name in dict.fromkeys((self.peer_name, self.own_name)) if name not in route]
        return (*route, *names)

    def _grown_text(self, route: tuple[str, ...]) -> bytes:
        text = self._grown_texts.get(route)
        if text is None:
            text = _member(self.grown(route))
            _keep(self._grown_texts, route, text)
        return text

    def _kept_text(self, route: tuple[str, ...]) -> bytes:
        text = self._kept_texts.get(route)
        if text is None:
            text = _member(route)
            _keep(self._kept_texts, route, text)
        return text

    def _taken_over_slowly(self, record: Record) -> bytes:
        """Any object: keys in any case, with escapes, several times, with blanks, in any order."""
        line = record.line
        members = members_of(line)
        names = _names(self.grown(record.head.route))
        routes = [member for member in members if member.name == "route"]
        payloads = [member for member in members if member.name == "payload"]
        # Of several, the last one is the one that counts.
        if routes:
            return line[: routes[-1].value_start] + names + line[routes[-1].value_end :]
        if payloads:
            place = payloads[-1].start
            return b'%b"route":%b,%b' % (line[:place], names, line[place:])
        place = members[-1].value_end
        return b'%b,"route":%b%b' % (line[:place], names, line[place:])


def _member(route: tuple[str, ...]) -> bytes:
    return b',"route":' + _names(route)


def _names(route: tuple[str, ...]) -> bytes:
    return b"[%b]" % b",".join(quote(name) for name in route)


def _keep(texts: dict[tuple[str, ...], bytes], route: tuple[str, ...], text: bytes) -> None:
    """Most records of a link have one of a few routes; a peer that makes up new ones all the time gets no memory."""
    if len(route) > _NAMES_IN_A_KEPT_TEXT or len(text) > _TEXTS_KEPT:
        return
    if len(texts) >= _TEXTS_KEPT:
        texts.clear()
    texts[route] = text
