"""The dashboard's page in a real browser: headless Chromium."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from child import DEADLINE_S, eventually
from test_dashboard import TOKEN, Served, publish

from keyop import Messenger

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(_CHROMIUM is None, reason="no Chromium is installed (apt-get install chromium)")

_ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    # A name of somebody else that points here: what DNS rebinding makes of it.
    "--host-resolver-rules=MAP evil.example 127.0.0.1",
)
HOSTILE = "<script>alert('script')</script><img src=x onerror=\"alert('img')\"><b id=bold>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=_CHROMIUM, args=list(_ARGUMENTS))
        yield chromium
        chromium.close()


@pytest.fixture
def messenger(data_dir: Path) -> Iterator[Messenger]:
    with Messenger(data_dir) as m:
        publish(m, "orders", 1)
        yield m


@pytest.fixture
def serve(data_dir: Path) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def serve(*arguments: str, listen: str = "127.0.0.1:0") -> Served:
        started.append(Served(data_dir, *arguments, listen=listen))
        return started[-1]

    yield serve
    for served in started:
        if served.process.poll() is None:
            served.process.kill()
        served.process.communicate()


class Tab:
    """A page, and what went wrong on it."""

    def __init__(self, context: Any) -> None:
        self.page = context.new_page()
        self.page.set_default_timeout(DEADLINE_S * 1000)
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.faults.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.on("console", lambda said: self.faults.append(said.text) if said.type == "error" else None)

    def sees(self, selector: str, text: str) -> None:
        """Wait until an element that fits holds the text."""
        self.page.locator(selector).filter(has_text=text).first.wait_for()

    def turn_to(self, table: str) -> None:
        """Show another table."""
        self.page.locator(f"nav button[data-table={table}]").click()

    def rows(self) -> list[str]:
        """The first cell of each row."""
        return self.page.locator("tbody tr td:first-child").all_inner_texts()


@pytest.fixture
def tab(browser: Any) -> Iterator[Tab]:
    context = browser.new_context(viewport={"width": 1100, "height": 700})
    yield Tab(context)
    context.close()


def test_it_lives(messenger: Messenger, serve: Callable[..., Served], tab: Tab) -> None:
    messenger.subscribe("orders", "mailer", lambda msg: None)
    tab.page.goto(serve().url)
    tab.sees("#writer", "writer open, strict, pid ")
    tab.sees("tbody tr", "orders")
    publish(messenger, "readings", *range(500))
    tab.sees("tbody tr", "readings")
    tab.page.locator("tbody polyline[points*=',']").first.wait_for(state="attached")
    tab.turn_to("subscribers")
    tab.sees("tbody tr", "orders / mailer")
    tab.sees("tbody tr", "idle")
    tab.turn_to("peers")
    tab.sees("#nothing", "No hub and no client runs here.")
    tab.turn_to("processes")
    tab.sees("tbody tr", "orders/mailer")
    assert tab.faults == []


def test_sort_and_filter(messenger: Messenger, serve: Callable[..., Served], tab: Tab) -> None:
    publish(messenger, "apples", 1)
    publish(messenger, "pears", *range(100))
    tab.page.goto(serve().url)
    tab.sees("tbody tr", "pears")
    assert tab.rows() == ["apples", "orders", "pears"]
    tab.page.get_by_role("button", name="Size").click()
    eventually(lambda: tab.rows()[0] == "pears")
    assert tab.page.locator("th", has_text="Size").get_attribute("aria-sort") == "descending"
    tab.page.get_by_role("button", name="Size").click()
    eventually(lambda: tab.rows()[-1] == "pears")
    tab.page.get_by_label("Filter rows").fill("APP")
    eventually(lambda: tab.rows() == ["apples"])
    tab.page.get_by_label("Filter rows").fill("nothing of that kind")
    tab.sees("#nothing", "Nothing matches the filter.")
    assert tab.faults == []


def test_what_stands_in_a_channel_is_text(messenger: Messenger, serve: Callable[..., Served], tab: Tab) -> None:
    def fail(msg: object) -> None:
        raise ValueError(HOSTILE)

    messenger.subscribe("orders", "mailer", fail, max_retries=0)
    messenger.publish("orders", {HOSTILE: HOSTILE}, payload_type=HOSTILE, service_name=HOSTILE)
    tab.page.goto(serve().url)
    tab.sees("tbody tr", "orders.dead-letter")
    tab.page.get_by_role("button", name="orders", exact=True).click()
    tab.sees("dialog li summary", HOSTILE)
    tab.page.locator("dialog li summary").first.click()
    tab.sees("dialog li pre", "<img src=x onerror=")
    tab.page.get_by_role("button", name="Dead letters").click()
    tab.sees("#messages-title", "orders.dead-letter")
    tab.sees("dialog li summary", f"mailer: ValueError: {HOSTILE}")
    tab.page.locator("dialog li summary").first.click()
    tab.sees("dialog li pre.bad", HOSTILE)
    tab.page.get_by_role("button", name="Close").click()
    tab.page.locator("dialog").wait_for(state="hidden")
    assert tab.page.locator("script").count() == 2  # its own
    assert tab.page.locator("img, #bold").count() == 0
    assert tab.faults == []


def test_no_script_but_its_own_runs(messenger: Messenger, serve: Callable[..., Served], tab: Tab) -> None:
    tab.page.goto(serve().url)
    tab.sees("tbody tr", "orders")
    tab.page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = true'}))"
    )
    assert tab.page.evaluate("window.ran") is None
    assert any("Content Security Policy" in fault for fault in tab.faults)


def test_the_connection_is_lost_and_found(messenger: Messenger, serve: Callable[..., Served], tab: Tab) -> None:
    served = serve()
    tab.page.goto(served.url)
    tab.sees("tbody tr", "orders")
    served.end()
    tab.sees("#trouble", "The connection is lost.")
    assert tab.page.locator("body.stale").count() == 1
    publish(messenger, "news", 1)
    serve(listen=f"127.0.0.1:{served.port}")
    tab.sees("tbody tr", "news")
    tab.page.locator("#trouble").wait_for(state="hidden")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(messenger: Messenger, serve: Callable[..., Served], browser: Any, scheme: str) -> None:
    publish(messenger, "a-channel-with-a-name-that-is-much-too-long-for-the-screen-of-a-telephone." * 2, 1)
    context = browser.new_context(viewport={"width": 390, "height": 700}, color_scheme=scheme)
    tab = Tab(context)
    tab.page.goto(serve().url)
    tab.sees("tbody tr", "a-channel-with")
    for name in ("channels", "subscribers", "peers", "processes"):
        tab.turn_to(name)
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
    red = int(tab.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]"))
    assert (red < 60) == (scheme == "dark")
    assert tab.faults == []
    context.close()


def test_a_token_is_shown_once(
    messenger: Messenger, serve: Callable[..., Served], browser: Any, tab: Tab, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    served = serve("--token-file", str(tmp_path / "token"))
    tab.page.goto(f"{served.url}?token={TOKEN}")
    tab.sees("tbody tr", "orders")
    assert tab.page.url == served.url
    tab.page.reload()
    tab.sees("tbody tr", "orders")
    assert TOKEN not in tab.page.evaluate("document.cookie + document.referrer")
    assert tab.faults == []
    stranger = browser.new_context()
    page = stranger.new_page()
    assert page.goto(served.url).status == 401
    stranger.close()


# ---- pages of others


def test_dns_rebinding(messenger: Messenger, serve: Callable[..., Served], tab: Tab) -> None:
    port = serve().port
    answer = tab.page.goto(f"http://evil.example:{port}/")
    assert answer.status == 403
    assert "is not a name of this dashboard" in answer.text()


class _OtherSite(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>another site</title>")

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def test_another_sites_page(messenger: Messenger, serve: Callable[..., Served], tab: Tab) -> None:
    served = serve()
    with ThreadingHTTPServer(("127.0.0.1", 0), _OtherSite) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        tab.page.goto(f"http://127.0.0.1:{site.server_port}/")
        happened = tab.page.evaluate(
            """url => new Promise(done => {
                const socket = new WebSocket(url);
                socket.onmessage = () => done("heard");
                socket.onclose = () => done("closed");
            })""",
            f"ws://127.0.0.1:{served.port}/live",
        )
        assert happened == "closed"
        read = "url => fetch(url).then(answer => answer.text(), () => 'refused')"
        assert tab.page.evaluate(read, served.url) == "refused"
        site.shutdown()
