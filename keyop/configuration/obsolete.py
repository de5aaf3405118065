"""Keys of other releases of the Go program: what became of each, and what to write instead."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keyop.configuration.keys import Path

_log = logging.getLogger("keyop.config")

_SYNC_POLICY = "storage.sync_policy"
_SYNC_POLICIES_MS = {"always": 0, "periodic": 200, "none": 60_000}
"""What it could be until Go 0.14, as ``storage.sync_interval_ms``."""

OLD_KEYS = {
    _SYNC_POLICY: "use storage.sync_interval_ms (always: 0, periodic: 200, none: 60000)",
    "storage.max_subscriber_lag_mb": "it only warned; `keyop subscribers` shows how far each one is behind",
    "storage.max_channel_size_mb": "use storage.max_files",
    "tls.min_version": "nothing replaces it, TLS 1.3 is always used",
    "hub.allowed_clients": "use hub.allowed_peers; these clients are not let in",
    "hub.peer_hubs": "use hub.allowed_peers, and client.hubs at the other end",
    "federation.send_buffer_messages": "nothing replaces it, what waits for a hub stands in the segments",
}
"""What to do instead of each."""


def take_out_old_keys(document: dict[str, Any], place: Callable[[Path], str]) -> None:
    """Take them out of a file's values, with a warning for each. A sync policy nobody knows stays, as a fault."""
    for key, advice in OLD_KEYS.items():
        name, _, old = key.partition(".")
        section = document.get(name)
        if not isinstance(section, dict) or section.get(old) is None:
            continue
        if key == _SYNC_POLICY:
            _translate_sync_policy(section, place((name, old)))
        else:
            _log.warning("%s: %s is a key of other releases and has no effect: %s", place((name, old)), key, advice)
            del section[old]


def _translate_sync_policy(storage: dict[str, Any], place: str) -> None:
    """Where both are set, the key of today counts."""
    policy = str(storage["sync_policy"])
    if policy not in _SYNC_POLICIES_MS:
        return
    del storage["sync_policy"]
    storage["sync_interval_ms"] = storage.get("sync_interval_ms") or _SYNC_POLICIES_MS[policy]
    text = "%s: storage.sync_policy is a key of older releases; instead of %r write storage.sync_interval_ms: %s"
    _log.warning(text, place, policy, storage["sync_interval_ms"])
