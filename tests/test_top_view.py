"""What `keyop top` draws and what keys do, without a terminal; and its cells."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyop.live import figures
from keyop.live.messages import MessageView
from keyop.live.snapshot import ChannelView, PeerView, ProcessView, Snapshot, SubscriberView, WriterView
from keyop.top.cells import clean, fit, width, wrap
from keyop.top.printing import plain
from keyop.top.view import View

NOW = 1_800_000_000.0


def a_channel(number: int, per_s: float = 0.0) -> ChannelView:
    return ChannelView(f"c{number:03}", per_s, per_s * 100, (per_s,) if per_s else (), 1000, 1000, 1, NOW - number)


def a_snapshot(*channels: ChannelView) -> Snapshot:
    return Snapshot(
        data_dir="/var/lib/keyop",
        taken_unix_s=NOW,
        elapsed_s=1.0,
        trouble=None,
        writer=WriterView("open", 4711, "strict", None, 1.0, 1.0),
        channels=channels or tuple(a_channel(number) for number in range(100)),
        subscribers=(
            SubscriberView(
                "c001", "one", "subscriber", "stuck", (12, 13), 5000, 50, False, NOW - 90, 0.0, 5, 1, 1, None, 3, 2
            ),
            SubscriberView(
                "c001", "fedout-hub_7740", "peer", "away", (), 0, 0, True, None, 0.0, None, None, None, None, 1, 0
            ),
        ),
        peers=(PeerView("client", "garten-ü", "hub:7740", "connected", 1.5, 0.0, 10, 0, 12.34, 0, 0),),
        processes=(ProcessView("writer", 4711, "open, strict", 14 << 20, 3.5, NOW - 7200),),
    )


def a_message(number: int, error: str | None = None) -> MessageView:
    return MessageView(
        number, f"id{number}", "2026-03-31T14:22:01Z", "host", "t", f'{{"n": {number}}}', error, "one", 5
    )


def text(view: View, cells: int = 80, height: int = 24) -> list[str]:
    lines = ["".join(text for text, _ in line) for line in view.lines(cells, height)]
    assert len(lines) <= height
    assert all(width(line) <= cells for line in lines), [line for line in lines if width(line) > cells]
    return lines


def no_messages(channel: str) -> list[MessageView]:
    return []


@given(
    st.integers(1, 300),
    st.integers(1, 80),
    st.lists(
        st.sampled_from("1234sSr/?pjk dqx")
        | st.sampled_from(
            ["up", "down", "pageup", "pagedown", "home", "end", "enter", "escape", "tab", "backspace", "left"]
        ),
        max_size=30,
    ),
)
def test_whatever_is_pressed_it_fits(cells: int, height: int, keys: list[str]) -> None:
    view = View(lambda channel: [a_message(number, "e\n" * number) for number in range(3)])
    view.take(a_snapshot())
    for key in keys:
        view.press(key)
        lines = view.lines(cells, height)
        assert len(lines) <= height
        view.take(a_snapshot(*(a_channel(number) for number in range(7))))


def test_a_selected_row_is_kept_while_others_come() -> None:
    opened: list[str] = []
    view = View(lambda channel: opened.append(channel) or [])  # type: ignore[func-returns-value]
    view.take(a_snapshot(a_channel(5), a_channel(6)))
    view.press("down")
    view.take(a_snapshot(a_channel(1), a_channel(2), a_channel(5), a_channel(6)))
    view.press("enter")
    assert opened == ["c006"]
    view.press("q")
    view.take(a_snapshot(a_channel(1)))  # gone: the nearest one
    view.press("enter")
    assert opened == ["c006", "c001"]


def test_dead_letters_of_one_subscriber() -> None:
    def read(channel: str) -> list[MessageView]:
        assert channel == "c001.dead-letter"
        return [
            replace(a_message(number, f"error {number}"), subscriber=id)
            for number, id in enumerate(("one", "two", None))
        ]

    view = View(read)
    view.take(a_snapshot())
    view.show(1)
    view.press("down")
    view.press("d")
    assert [line.split()[-1] for line in text(view)[3:5]] == ["0", "2"]
    assert text(view)[5] == ""
    view.press("q")
    view.show(0)
    view.press("down")
    view.press("d")
    assert [line.split()[-1] for line in text(view)[3:6]] == ["0", "1", "2"]


def test_at_the_top_one_stays_at_the_top() -> None:
    view = View(no_messages)
    view.take(a_snapshot(a_channel(1, 5.0), a_channel(2, 9.0)))
    view.press("s")
    assert text(view)[3].startswith("c002")
    view.take(a_snapshot(a_channel(1, 50.0), a_channel(2, 9.0)))
    assert [line[:4] for line in text(view)[3:5]] == ["c001", "c002"]


def test_a_held_picture() -> None:
    view = View(no_messages)
    view.take(a_snapshot(a_channel(1)))
    view.press("p")
    view.take(a_snapshot(a_channel(2)))
    assert "c001" in "".join(text(view))
    assert "HELD" in text(view)[0]
    view.press("p")
    view.take(a_snapshot(a_channel(2)))
    assert "c002" in "".join(text(view))


def test_what_cannot_be_read_is_told() -> None:
    def fail(channel: str) -> list[MessageView]:
        raise OSError(13, "Permission denied", f"/data/{channel}")

    view = View(fail)
    view.take(replace(a_snapshot(), trouble="/data/x: Input/output error"))
    assert text(view)[-1].startswith("/data/x: Input/output error")
    view.press("enter")
    assert any("/data/c000: Permission denied" in line for line in text(view))


def test_subscribers_peers_and_processes() -> None:
    view = View(no_messages)
    view.take(a_snapshot())
    view.show(1)
    rows = text(view)[3:5]
    assert rows[0].split() == ["c001/fedout-hub_7740", "away", "0", "0", "-", "-"]
    assert rows[1].split()[:6] == ["c001/one", "2", "of", "3", "stuck", "4.9K"]
    view.show(2)
    assert text(view)[3].split() == ["garten-ü", "hub:7740", "client", "connected", "1.5", "12.3ms", "0", "0"]
    view.show(3)
    assert text(view)[3].split()[:4] == ["writer", "4711", "3.5", "14M"]


def test_plain_tables() -> None:
    lines = plain(a_snapshot(a_channel(1, 5.0))).splitlines()
    assert lines[0] == "/var/lib/keyop: writer open, strict, pid 4711"
    assert lines[2].split() == ["CHANNEL", "MSG/S", "BYTES/S", "SIZE", "SUBS", "LAST"]
    assert lines[3].split() == ["c001", "5.0", "500", "1000", "1", "1s"]
    assert "fedout-hub_7740" in plain(a_snapshot())


# ---- cells


@given(st.text(), st.integers(0, 100))
def test_a_cell_is_exactly_as_wide_as_it_should_be(found: str, cells: int) -> None:
    assert width(fit(clean(found), cells)) == cells
    assert width(fit(clean(found), cells, right=True)) == cells


@given(st.text())
def test_nothing_reaches_the_terminal_that_it_would_obey(found: str) -> None:
    assert clean(found).isprintable()
    assert clean(clean(found)) == clean(found)


@given(st.text(), st.integers(2, 100))
def test_wrapped_lines_fit_and_lose_nothing(found: str, cells: int) -> None:
    lines = list(wrap(found, cells))
    assert all(width(line) <= cells for line in lines)
    assert "".join(lines) == "".join(map(clean, found.expandtabs(4).split("\n")))


def test_figures() -> None:
    assert [figures.rate(n) for n in (None, 0, 0.25, 7.34, 12, 999.4, 999.6, 1200, 45e6)] == [
        *("-", "", "0.25", "7.3", "12", "999", "1.0k", "1.2k", "45M")
    ]
    assert [figures.size(n) for n in (0, 1023, 1024, 1536, 10240, 1048575, 104857600)] == [
        *("0", "1023", "1.0K", "1.5K", "10K", "1.0M", "100M")
    ]
    assert [figures.count(n) for n in (None, 0, 9999, 10000, 12345678)] == ["-", "0", "9,999", "10k", "12M"]
    assert [figures.age(n) for n in (None, 0.2, 59, 60, 3599, 3600, 86400 * 12)] == [
        *("", "now", "59s", "1m", "59m", "1h", "12d")
    ]


@pytest.mark.parametrize(
    ("values", "line"),
    [((), ""), ((0, 0), ""), ((0, 1, 8), "   ▁█"), ((8, 1, 2, 3, 4, 8), "▁▂▃▄█"), ((1,), "    █")],
)
def test_sparklines(values: tuple[float, ...], line: str) -> None:
    assert figures.sparkline(values, 5) == line
