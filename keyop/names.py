"""The rules for names that become part of a path: channels and subscriber ids."""

from __future__ import annotations

import re

from keyop.errors import ChannelNameError, ReservedChannelError, SubscriberIdError

DEAD_LETTER_SUFFIX = ".dead-letter"
REPLAY_SUFFIX = ".replay"
MAX_NAME_BYTES = 200
"""Without a reserved ending: with one, and with what is put behind a name in files, it stays below 255 bytes."""

_RESERVED_SUFFIXES = (DEAD_LETTER_SUFFIX, REPLAY_SUFFIX)
PEER_PREFIXES = ("fed-", "fedout-")
"""Of the positions of federation peers, which stand beside subscribers' offsets."""

# Only ASCII can match, so characters are bytes. Always fullmatch: `$` would let a final newline pass.
_is_name = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,200}").fullmatch
_is_channel = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,200}(?:\.dead-letter|\.replay)?").fullmatch

_is_pattern = re.compile(r"(?!\.)[A-Za-z0-9._*?\[\]!-]{1,200}").fullmatch
_SET = re.compile(r"\[!?+\]?+[^\]]*\]")

_RULE = "1 to 200 of A-Z a-z 0-9 . _ -, not starting with a dot"


def _refusal(kind: str, name: object, rule: str) -> str:
    shown = repr(name)
    if len(shown) > 100:
        shown = f"{shown[:80]}... ({len(shown):,} characters)"
    return f"not a {kind}: {shown} ({rule})"


def check_channel(name: str) -> str:
    """Give `name` back if one may subscribe to it; reserved endings are allowed and do not count for the length.

    Raises ChannelNameError, also for what is no string.
    """
    if not isinstance(name, str) or not _is_channel(name):
        raise ChannelNameError(_refusal("channel name", name, _RULE))
    return name


def is_channel(name: str) -> bool:
    """Whether one may subscribe to it."""
    return bool(_is_channel(name))


def check_publish_channel(name: str) -> str:
    """Give `name` back if one may publish to it.

    Raises ChannelNameError, and of that ReservedChannelError for what keyop alone writes.
    """
    check_channel(name)
    if name.endswith(_RESERVED_SUFFIXES):
        raise ReservedChannelError(
            _refusal("channel to publish to", name, "endings .dead-letter and .replay are written by keyop alone")
        )
    return name


def is_pattern(name: str) -> bool:
    """Whether it may stand for several channels: it has one of ``* ? [``, which no channel's name has."""
    return isinstance(name, str) and not {"*", "?", "["}.isdisjoint(name)


def check_channel_or_pattern(name: str) -> str:
    """Give `name` back if one may subscribe to it, as one channel or as a pattern. Raises ChannelNameError."""
    if not is_pattern(name):
        return check_channel(name)
    if not _is_pattern(name):
        rule = "1 to 200 of A-Z a-z 0-9 . _ - and * ? [...] [!...], not starting with a dot"
        raise ChannelNameError(_refusal("pattern of channel names", name, rule))
    if "[" in _SET.sub("", name):
        raise ChannelNameError(_refusal("pattern of channel names", name, "a [ without its ]"))
    return name


def matches(pattern: str, channel: str) -> bool:
    """Whether a channel belongs to a pattern, by the rules of `fnmatch`, upper and lower case being different.

    What keyop alone writes belongs only to a pattern that has the reserved ending itself, such as ``*.dead-letter``.
    """
    from fnmatch import fnmatchcase

    if any(channel.endswith(suffix) and not pattern.endswith(suffix) for suffix in _RESERVED_SUFFIXES):
        return False
    return fnmatchcase(channel, pattern)


def check_subscriber_id(subscriber_id: str) -> str:
    """Give `subscriber_id` back if it may name an offset file. Raises SubscriberIdError."""
    if not isinstance(subscriber_id, str) or not _is_name(subscriber_id):
        raise SubscriberIdError(_refusal("subscriber id", subscriber_id, _RULE))
    if subscriber_id.startswith(PEER_PREFIXES):
        raise SubscriberIdError(
            _refusal("subscriber id", subscriber_id, "fed- and fedout- begin the positions of federation peers")
        )
    return subscriber_id


def dead_letter_channel(channel: str) -> str:
    """The channel that takes the messages which the subscribers of `channel` gave up on."""
    return channel + DEAD_LETTER_SUFFIX


def replay_channel(channel: str) -> str:
    """The channel on which messages of `channel` are put back for the one subscriber that failed at them."""
    return channel + REPLAY_SUFFIX


def is_replay(channel: str) -> bool:
    """Whether `channel` holds messages that were put back."""
    return channel.endswith(REPLAY_SUFFIX)


def is_dead_letter(channel: str) -> bool:
    """Whether `channel` holds dead letters."""
    return channel.endswith(DEAD_LETTER_SUFFIX)


def is_reserved(channel: str) -> bool:
    """Whether keyop alone publishes to `channel`."""
    return channel.endswith(_RESERVED_SUFFIXES)
