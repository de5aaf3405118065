"""Names in the lists of hub and client that are of no use: what keyop alone writes stays where it was written.

A warning and no error: files of the Go program have such names, and to its releases up to 1.18 dead letters do go out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from keyop.names import REPLAY_SUFFIX, is_reserved

_log = logging.getLogger("keyop.config")


def warn_of_taken(place: str, channels: Iterable[str]) -> None:
    """Of a list of what peers may send here. ``place`` names it."""
    for channel in filter(is_reserved, channels):
        _log.warning("%s: %r has no effect: what keyop alone writes is not taken from a peer", place, channel)


def warn_of_sent(place: str, channels: Iterable[str]) -> None:
    """Of a list of what goes to a peer."""
    for channel in filter(is_reserved, channels):
        if channel.endswith(REPLAY_SUFFIX):
            _log.warning("%s: %r has no effect: it is never sent", place, channel)
        else:
            text = "%s: %r is of no use unless the peer is a Go program up to 1.18: others do not take dead letters"
            _log.warning(text, place, channel)
