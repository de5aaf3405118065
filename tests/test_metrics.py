"""``keyop metrics``: what Prometheus reads, of real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest
from child import DEADLINE_S, ROOT, Child, eventually, freeze, kill_writer, writer_pid
from federation import net_at, to_hub

pytest.importorskip("prometheus_client")

from prometheus_client.parser import text_string_to_metric_families

from keyop import Messenger
from keyop.metrics.catalogue import CATALOGUE, exposed_names
from keyop.metrics.exposition import Exposition
from keyop.metrics.observer import Observer
from keyop.metrics.totals import Key
from keyop.storage.directory import DataDirectory

TYPE = "com.example.number.v1"
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parse(text: str) -> Series:
    """Each series once, by name and labels."""
    found: Series = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"twice: {key}"
            found[key] = sample.value
    return found


def of(found: Series, name: str, **labels: str) -> float:
    """Its value; -1 where there is no such series."""
    return found.get((name, tuple(sorted(labels.items()))), -1)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "keyop.cli", "metrics", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def run(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=env or environment(), capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


def scrape(data_dir: Path) -> Series:
    done = run("-d", data_dir)
    assert done.returncode == 0, done.stderr
    return parse(done.stdout)


class Server:
    """``keyop metrics --listen`` at a free port."""

    def __init__(self, data_dir: Path, address: str = "127.0.0.1:0") -> None:
        self.process = subprocess.Popen(
            command("-d", data_dir, "--listen", address), env=environment(), stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r"serving (http://\S+/metrics)", line)
        assert found, line + self.process.stderr.read()
        self.url = found[1]
        self.port = int(found[1].rpartition(":")[2].partition("/")[0])

    def scrape(self) -> Series:
        with urllib.request.urlopen(self.url, timeout=DEADLINE_S) as answer:
            return parse(answer.read().decode())

    def status(self, host: str, path: str = "/metrics", method: str = "GET") -> int:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", host)
        connection.endheaders()
        status = connection.getresponse().status
        connection.close()
        return status

    def stop(self) -> int:
        self.process.terminate()
        code = self.process.wait(DEADLINE_S)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


@pytest.fixture
def server(data_dir: Path) -> Iterator[Server]:
    data_dir.mkdir()
    server = Server(data_dir)
    yield server
    if server.process.poll() is None:
        server.stop()


_SUBSCRIBER = """
def handle(message):
    time.sleep(0.002)
    if message.payload == "bad":
        raise ValueError
with Messenger(str(data_dir)) as m:
    m.subscribe("a", "s", handle, start="earliest", max_retries=1, retry_backoff=(0.001, 0.001))
    say("ready")
    hear()
"""


def test_traffic_errors_saturation_and_latency(data_dir: Path) -> None:
    with Child(_SUBSCRIBER, data_dir) as child, Messenger(data_dir) as m:
        child.expect("ready")
        for number in range(5):
            m.publish("a", number, payload_type=TYPE)
        m.publish("a", "bad", payload_type=TYPE)
        m.publish("a", 6, payload_type=TYPE)
        eventually(lambda: of(scrape(data_dir), "keyop_subscriber_handled_total", channel="a", subscriber="s") == 6)
        found = scrape(data_dir)
        child.say()
    assert of(found, "keyop_writer_up") == of(found, "keyop_writer_strict") == 1
    assert of(found, "keyop_writer_state", state="open") == 1
    assert of(found, "keyop_writer_commits_total") >= 7
    assert of(found, "keyop_writer_sync_seconds_count") >= 7
    assert of(found, "keyop_channel_messages_total", channel="a") == 7
    assert of(found, "keyop_channel_messages_total", channel="a.dead-letter") == 1
    size = sum(path.stat().st_size for path in (data_dir / "channels" / "a").iterdir())
    assert of(found, "keyop_channel_appended_bytes_total", channel="a") == size
    assert of(found, "keyop_channel_stored_bytes", channel="a") == size
    assert abs(of(found, "keyop_channel_last_write_timestamp_seconds", channel="a") - time.time()) < 60
    s = {"channel": "a", "subscriber": "s"}
    assert of(found, "keyop_subscriber_failed_total", **s) == 2
    assert of(found, "keyop_subscriber_dead_lettered_total", **s) == 1
    assert (
        of(found, "keyop_subscriber_lag_bytes", **s) == of(found, "keyop_subscriber_oldest_pending_seconds", **s) == 0
    )
    assert of(found, "keyop_subscriber_attached", **s) == 1
    assert of(found, "keyop_handler_seconds_count", **s) == 8  # attempts
    assert of(found, "keyop_handler_seconds_sum", **s) > 0.014
    assert of(found, "keyop_handler_seconds_bucket", le="0.001048576", **s) == 0
    assert of(found, "keyop_delivery_age_seconds_count", **s) == 7
    assert of(found, "keyop_publish_to_disk_seconds_count", channel="a") == 7
    assert of(found, "keyop_processes", role="subscriber") == of(found, "keyop_processes", role="publisher") == 1
    assert 0 < of(found, "keyop_storage_free_bytes") < of(found, "keyop_storage_size_bytes")
    assert of(found, "keyop_journal_bytes") >= 2 << 20


def test_every_metric_is_in_the_catalogue_and_histograms_are_cumulative(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        m.subscribe("a", "s", lambda _: None)
        m.publish_batch("a", range(1000), payload_type=TYPE)
        m.drain(10)
        found = scrape(data_dir)
    known = {name for metric in CATALOGUE for name in exposed_names(metric)}
    assert {name for name, _ in found} <= known
    for metric in CATALOGUE:
        assert metric.name.startswith("keyop_")
        assert (metric.kind != "histogram") == (not metric.name.endswith("_seconds") or metric.kind == "gauge")
    buckets: dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[float, float]]] = {}
    for (name, labels), value in found.items():
        if name.endswith("_bucket"):
            rest = tuple(label for label in labels if label[0] != "le")
            buckets.setdefault((name.removesuffix("_bucket"), rest), []).append((float(dict(labels)["le"]), value))
    assert len(buckets) >= 4
    for (name, labels), counts in buckets.items():
        ordered = [count for _, count in sorted(counts)]
        assert ordered == sorted(ordered)
        assert ordered[-1] == found[f"{name}_count", labels]


def test_the_last_write_is_seen_also_where_files_are_looked_at_in_turn(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        for number in range(100):
            m.publish(f"channel-{number:02}", number, payload_type=TYPE)
        observer = Observer(DataDirectory(data_dir))
        first = observer.look().gauges
        m.publish("channel-99", 0, payload_type=TYPE)
        second = observer.look().gauges
        observer.close()
    key = Key("keyop_channel_last_write_timestamp_seconds", ("channel-99",))
    assert first[key] < second[key] < time.time() + 0.01
    appended = Key("keyop_channel_appended_bytes", ("channel-99",))
    assert first[appended] < second[appended]
    other = Key("keyop_channel_last_write_timestamp_seconds", ("channel-50",))
    assert first[other] == second[other]


def test_a_lagging_subscriber_and_one_that_is_away(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        m.subscribe("a", "away", print)
        m.publish("a", 0, payload_type=TYPE)
        m.drain(10)
    with Messenger(data_dir) as m:
        m.publish_batch("a", range(3), payload_type=TYPE)
        time.sleep(0.01)  # for an age that is not 0
        found = scrape(data_dir)
    away = {"channel": "a", "subscriber": "away"}
    assert of(found, "keyop_subscriber_attached", **away) == 0
    assert of(found, "keyop_subscriber_lag_messages", **away) == 3
    assert of(found, "keyop_subscriber_lag_bytes", **away) > 300
    assert 0 < of(found, "keyop_subscriber_oldest_pending_seconds", **away) < 60
    assert ("keyop_subscriber_handled_total", tuple(sorted(away.items()))) not in found


def test_a_directory_without_a_writer_and_an_empty_one(data_dir: Path) -> None:
    data_dir.mkdir()
    found = scrape(data_dir)
    assert of(found, "keyop_writer_up") == 0
    assert of(found, "keyop_writer_state", state="not_running") == 1
    assert not list(data_dir.iterdir())  # nothing was made
    with Messenger(data_dir) as m:
        m.publish("a", 0, payload_type=TYPE)
    kill_writer(data_dir, signal.SIGTERM)
    found = scrape(data_dir)
    assert of(found, "keyop_writer_up") == 0
    assert of(found, "keyop_channel_appended_bytes_total", channel="a") > 0
    assert writer_pid(data_dir) is None


def test_a_full_ring_is_seen(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        m.publish("a", 0, payload_type=TYPE)
        pid = writer_pid(data_dir)
        assert pid is not None
        freeze(pid)
        try:
            threads = [
                threading.Thread(target=lambda: m.publish("a", "x" * 100_000, payload_type=TYPE)) for _ in range(3)
            ]
            for thread in threads:
                thread.start()
            eventually(lambda: m.stats().ring_used_bytes > 190_000)
            assert of(scrape(data_dir), "keyop_ring_fill_ratio", role="publisher") > 0.7
        finally:
            os.kill(pid, signal.SIGCONT)
        for thread in threads:
            thread.join()


def test_counters_stay_when_their_process_leaves(data_dir: Path, server: Server) -> None:
    s = {"channel": "a", "subscriber": "s"}
    for round_ in (1, 2):
        with Child(_SUBSCRIBER, data_dir) as child:
            child.expect("ready")
            with Messenger(data_dir) as m:
                m.publish_batch("a", range(10), payload_type=TYPE)
                eventually(lambda: of(server.scrape(), "keyop_subscriber_handled_total", **s) == 10 * round_)  # noqa: B023
                assert of(server.scrape(), "keyop_publish_to_disk_seconds_count", channel="a") == round_
            child.say()
            assert child.end() == 0
        found = server.scrape()
        assert of(found, "keyop_subscriber_handled_total", **s) == 10 * round_
        assert of(found, "keyop_handler_seconds_count", **s) == 10 * round_
        assert of(found, "keyop_publish_to_disk_seconds_count", channel="a") == round_
    messages = of(server.scrape(), "keyop_channel_messages_total", channel="a")
    kill_writer(data_dir)
    assert messages == 20
    with Messenger(data_dir) as m:
        m.publish("a", 0, payload_type=TYPE)
        eventually(lambda: of(server.scrape(), "keyop_channel_messages_total", channel="a") == 21)
    assert of(server.scrape(), "keyop_writer_commits_total") > 2


def test_peers(tmp_path: Path) -> None:
    with net_at(tmp_path) as net:
        hub = net.host("hub1").is_hub("host2")
        client = net.host("host2").is_client(to_hub(hub.address, subscribe=("down",), publish=("up",)))
        hub.start_hub()
        client.start_client().wait_for("connected to hub1")
        client.publish("up", 1, 2, 3)
        hub.has("up", 3)
        labels = {"role": "client", "peer": "hub1"}
        eventually(lambda: of(scrape(client.path), "keyop_peer_sent_total", **labels) == 3)
        found = scrape(client.path)
        assert of(found, "keyop_peer_connected", **labels) == 1
        assert of(found, "keyop_peer_behind_bytes", **labels) == 0
        assert of(found, "keyop_peer_round_trip_seconds_count", **labels) >= 1
        assert of(found, "keyop_processes", role="client") == 1
        labels = {"role": "hub", "peer": "host2"}
        eventually(lambda: of(scrape(hub.path), "keyop_peer_received_total", **labels) == 3)
        assert not [name for name, of_ in scrape(hub.path) if dict(of_).get("subscriber", "").startswith("fed")]


# ---- the server


def test_it_answers_whom_it_should(server: Server) -> None:
    port = server.port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", "localhost", "[::1]:9464", "192.0.2.7", f"LOCALHOST:{port}"):
        assert server.status(host) == 200, host
    for host in (f"evil.example:{port}", "evil.example", "localhost.evil.example:80", "127.0.0.1.evil.example"):
        assert server.status(host) == 403, host
    assert server.status("localhost", "/") == 200
    assert server.status("localhost", "/metrics?name=x") == 200
    assert server.status("localhost", "/etc/passwd") == 404
    assert server.status("localhost", method="HEAD") == 200
    assert server.status("localhost", method="POST") == 501


def test_openmetrics_is_told_to_whom_asks_for_it(server: Server) -> None:
    accept = "application/openmetrics-text; version=1.0.0"
    with urllib.request.urlopen(urllib.request.Request(server.url, headers={"Accept": accept}), timeout=5) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        assert answer.read().endswith(b"# EOF\n")


def test_lines_that_are_kept_are_those_that_would_be_written(data_dir: Path) -> None:
    accepted = ("", "application/openmetrics-text; version=1.0.0", "text/plain; version=1.0.0; escaping=allow-utf-8")
    with Messenger(data_dir) as m:
        observer = Observer(DataDirectory(data_dir))
        kept = Exposition(observer)
        for number in range(6):
            m.publish(f"channel-{number % 3}", number, payload_type=TYPE)
            if number == 2:
                m.subscribe("channel-0", "s", lambda _: None, start="earliest")
            if number == 4:
                m.unsubscribe("channel-0", "s")
            m.drain(10)
            for accept in accepted:
                looked = observer.look()
                observer.look = lambda looked=looked: looked  # type: ignore[method-assign, misc]
                assert kept.text(accept) == Exposition(observer).text(accept)
                del observer.look  # type: ignore[method-assign]
        observer.close()


def test_it_stops_at_sigterm_with_a_connection_open(server: Server) -> None:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    connection.request("GET", "/metrics")
    connection.getresponse().read()
    assert server.stop() == 0
    connection.close()


def test_silent_connections_are_bounded(server: Server) -> None:
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(64)]

    def is_full() -> bool:
        """Whether one more is closed at once."""
        try:
            with urllib.request.urlopen(server.url, timeout=DEADLINE_S):
                return False
        except (OSError, HTTPException):
            return True

    eventually(is_full)
    assert len(os.listdir(f"/proc/{server.process.pid}/fd")) < 100
    for connection in silent:
        connection.close()
    eventually(lambda: not is_full())


def test_many_scrapes_at_once(data_dir: Path, server: Server) -> None:
    with Messenger(data_dir) as m:
        m.publish("a", 0, payload_type=TYPE)
        # A directory that changes twice within the kernel's tick is looked at again a few looks later.
        eventually(lambda: of(server.scrape(), "keyop_channel_messages_total", channel="a") == 1)
        failures: list[BaseException] = []

        def ask() -> None:
            try:
                for _ in range(5):
                    assert of(server.scrape(), "keyop_channel_messages_total", channel="a") == 1
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []


def test_a_port_in_use_is_told_with_the_way_out(data_dir: Path, server: Server) -> None:
    done = run("-d", data_dir, "--listen", f"127.0.0.1:{server.port}")
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"keyop metrics: cannot serve metrics at 127.0.0.1:{server.port}: Address already in use"
    )
    assert "--listen" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--listen", "nonsense:port"), 2, "'nonsense:port' is not an address"),
        (("--listen", "does-not-exist.invalid:1"), 1, "cannot serve metrics at does-not-exist.invalid:1"),
    ],
)
def test_wrong_addresses(data_dir: Path, arguments: tuple[str, ...], code: int, text: str) -> None:
    data_dir.mkdir()
    done = run("-d", data_dir, *arguments)
    assert (done.returncode, text in done.stderr) == (code, True), done.stderr


@pytest.mark.parametrize("arguments", [(), ("--listen", "127.0.0.1:0")])
def test_a_directory_that_is_not_there(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run("-d", tmp_path / "nowhere", *arguments)
    assert done.returncode != 0
    assert "nowhere" in done.stderr
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("arguments", [(), ("--listen", "127.0.0.1:0")])
def test_without_prometheus_client_it_says_what_to_install(
    data_dir: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    data_dir.mkdir()
    hide = tmp_path / "hide"
    hide.mkdir()
    (hide / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'prometheus_client':\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    done = run("-d", data_dir, *arguments, env=environment(PYTHONPATH=f"{hide}:{ROOT}"))
    assert done.returncode == 1
    assert "pip install 'keyop[metrics]'" in done.stderr


def test_ready_is_said_to_whom_waits(data_dir: Path) -> None:
    data_dir.mkdir()
    reading, writing = os.pipe()
    process = subprocess.Popen(
        command("-d", data_dir, "--listen", "127.0.0.1:0"),
        env=environment(KEYOP_READY_FD=str(writing)),
        pass_fds=[writing],
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    try:
        assert os.read(reading, 100) == b"ready\n"
        assert os.read(reading, 100) == b""
    finally:
        os.close(reading)
        process.terminate()
        assert process.wait(DEADLINE_S) == 0


def test_it_outlives_its_directory_and_says_so(data_dir: Path, server: Server) -> None:
    with Messenger(data_dir) as m:
        m.publish("a", 0, payload_type=TYPE)
    kill_writer(data_dir, signal.SIGTERM)
    assert of(server.scrape(), "keyop_channel_appended_bytes_total", channel="a") > 0
    elsewhere = data_dir.with_name("elsewhere")
    data_dir.rename(elsewhere)
    found = server.scrape()
    assert of(found, "keyop_writer_up") == 0
    assert of(found, "keyop_storage_free_bytes") == -1
    elsewhere.rename(data_dir)
    assert of(server.scrape(), "keyop_channel_appended_bytes_total", channel="a") > 0


def test_it_listens_at_an_ipv6_address(data_dir: Path) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    data_dir.mkdir()
    server = Server(data_dir, "[::1]:0")
    try:
        assert server.url.startswith("http://[::1]:")
        assert of(server.scrape(), "keyop_writer_up") == 0
    finally:
        assert server.stop() == 0


def test_keyop_up_serves_them(data_dir: Path, tmp_path: Path) -> None:
    config = tmp_path / "keyop.yaml"
    config.write_text(f"storage: {{data_dir: {data_dir}}}\nmetrics: {{enabled: true, listen_addr: '127.0.0.1:0'}}\n")
    up = [sys.executable, "-m", "keyop.cli", "up", "-c", str(config)]
    process = subprocess.Popen(up, env=environment(), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "all is up" in line:
                break
        (url,) = re.findall(r"serving (http://\S+/metrics)", "".join(lines))
        with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
            assert of(parse(answer.read().decode()), "keyop_writer_up") == 1
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0


# ---- the Grafana dashboard


def test_the_dashboard_shows_metrics_that_exist() -> None:
    path = ROOT / "docs" / "grafana-dashboard.json"
    dashboard = json.loads(path.read_text())
    assert dashboard["uid"] == "keyop"
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(expressions) >= 12
    known = {name for metric in CATALOGUE for name in exposed_names(metric)}
    expressions += [str(variable.get("query", "")) for variable in dashboard["templating"]["list"]]
    used = {name for expression in expressions for name in re.findall(r"\bkeyop_[a-z_]+", expression)}
    assert used <= known
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


def test_the_page_on_metrics_names_each_of_them() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    for metric in CATALOGUE:
        name = f"{metric.name}_total" if metric.kind == "counter" else metric.name
        assert f"`{name}`" in text, name
    known = {name for metric in CATALOGUE for name in (metric.name, *exposed_names(metric))}
    assert set(re.findall(r"\bkeyop_[a-z_]+\b", text)) <= known
