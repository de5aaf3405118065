"""Names become paths: what may pass and what may not (cases 32, 33, 34)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyop import names
from keyop.errors import ChannelNameError, ReservedChannelError, SubscriberIdError

BAD: list[Any] = [
    *("", ".", "..", ".hidden", "a/b", "../x", "a b", "a:b", "ä", "a\n", "\n", "a\x00", "a\\b", "x" * 201, "x" * 256),
    *("\ud800", "٣", "x" * 250, ".dead-letter", ".replay", None, 5, b"orders", ["a"]),
]


@pytest.mark.parametrize("name", BAD)
def test_bad_names_are_refused_everywhere(name: Any) -> None:
    with pytest.raises(ChannelNameError, match="not a channel"):
        names.check_channel(name)
    with pytest.raises(ChannelNameError):
        names.check_publish_channel(name)
    with pytest.raises(SubscriberIdError, match="not a subscriber id"):
        names.check_subscriber_id(name)


@pytest.mark.parametrize("name", ["orders", "a", "-", "_x", "a.b-c_d", "0", "x" * 200, "dead-letter", "a..b", "x."])
def test_good_names_come_back(name: str) -> None:
    assert names.check_channel(name) == name
    assert names.check_publish_channel(name) == name
    assert names.check_subscriber_id(name) == name


@pytest.mark.parametrize("name", ["x.dead-letter", "a.b.dead-letter", "x.replay", "x" * 200 + ".dead-letter"])
def test_reserved_channels_can_be_subscribed_to_only(name: str) -> None:
    assert names.check_channel(name) == name
    assert names.is_reserved(name)
    with pytest.raises(ReservedChannelError):
        names.check_publish_channel(name)


def test_a_reserved_ending_does_not_lengthen_the_rest() -> None:
    with pytest.raises(ChannelNameError):
        names.check_channel("x" * 201 + ".dead-letter")
    with pytest.raises(SubscriberIdError):
        names.check_subscriber_id("x" * 195 + ".dead-letter")


@pytest.mark.parametrize("subscriber_id", ["fed-x", "fedout-x", "fed-", "fedout-hub_7740"])
def test_ids_of_peers_are_refused(subscriber_id: str) -> None:
    with pytest.raises(SubscriberIdError, match="peers"):
        names.check_subscriber_id(subscriber_id)


def test_the_error_names_the_value_and_stays_short() -> None:
    with pytest.raises(ChannelNameError, match=r"'a/b'.*not starting with a dot"):
        names.check_channel("a/b")
    with pytest.raises(ChannelNameError) as caught:
        names.check_channel("/" * 1_000_000)
    assert len(str(caught.value)) < 250


def test_dead_letter_channels() -> None:
    assert names.dead_letter_channel("orders") == "orders.dead-letter"
    assert names.is_dead_letter("orders.dead-letter")
    assert not names.is_dead_letter("orders.replay")
    assert not names.is_reserved("orders")


@given(st.text(max_size=300))
def test_whatever_passes_is_safe_as_a_file_name(name: str) -> None:
    try:
        names.check_channel(name)
    except ChannelNameError:
        return
    file_name = names.dead_letter_channel(name).encode("ascii")
    assert len(file_name) <= 255 - len(".offset")
    assert b"/" not in file_name
    assert not name.startswith(".")


@pytest.mark.parametrize(
    ("pattern", "channel", "does"),
    [
        ("sensors.*", "sensors.attic", True),
        ("sensors.*", "sensors.attic.left", True),
        ("sensors.*", "sensors", False),
        ("sensors.*", "Sensors.attic", False),
        ("sensor?", "sensors", True),
        ("room[12]", "room2", True),
        ("room[!12]", "room2", False),
        ("room[!12]", "room3", True),
        ("*", "anything", True),
        ("*", "anything.dead-letter", False),
        ("*", "anything.replay", False),
        ("*.dead-letter", "anything.dead-letter", True),
        ("*.dead-letter", "anything.replay", False),
        ("*.replay", "anything.replay", True),
    ],
)
def test_a_pattern_stands_for_channels(pattern: str, channel: str, does: bool) -> None:
    assert names.is_pattern(pattern)
    assert names.check_channel_or_pattern(pattern) == pattern
    assert names.matches(pattern, channel) is does


@pytest.mark.parametrize("name", [".*", "a/*", "*" * 201, "[a", "x[!]", "a b*", "*\n", "[\n]"])
def test_what_is_no_pattern_is_refused(name: str) -> None:
    with pytest.raises(ChannelNameError, match="pattern"):
        names.check_channel_or_pattern(name)
