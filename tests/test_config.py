"""Configuration: files of both Go releases, environment, arguments, and what is said about faults (cases 77, 78)."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyop.config import Config
from keyop.configuration.address import host_and_port
from keyop.configuration.durations import format_duration, parse_duration
from keyop.configuration.keys import KEYS
from keyop.configuration.lookup import settings_for
from keyop.configuration.settings import (
    SECTIONS,
    ClientSettings,
    HubReference,
    HubSettings,
    PeerSettings,
    Settings,
    StorageSettings,
    WorkerSettings,
)
from keyop.errors import ConfigError

Write = Callable[[str], Path]

GO_1_4_1 = """
name: billing
storage:
  data_dir: /var/lib/keyop
  sync_interval_ms: 0
  compaction_threshold_mb: 256
  max_subscriber_lag_mb: 512
  offset_flush_interval_ms: 0
subscribers:
  max_retries: 5
hub:
  enabled: true
  listen_addr: ":7740"
  allowed_peers:
    - name: edge-1
      subscribe: [alerts]
      publish: [readings, x.dead-letter]
    - name: edge-2
  fed_client_offset_ttl: 168h
client:
  enabled: true
  hubs:
    - addr: hub.example:7740
      subscribe: [alerts]
      publish: []
tls:
  cert: /etc/keyop/billing.crt
  key: /etc/keyop/billing.key
  ca: /etc/keyop/ca.crt
  min_version: "1.3"
  expiry_warn_days: 30
federation:
  reconnect_base_ms: 500
  reconnect_max_ms: 60000
  reconnect_jitter: 0.2
  send_buffer_messages: 10000
  max_batch_bytes: 4194304
dedup:
  seen_id_lru_size: 100000
audit:
  max_size_mb: 100
  max_files: 10
"""

GO_1_24_3 = """
storage:
  data_dir: /var/lib/keyop
  sync_interval_ms: 200
  compaction_threshold_mb: -1
  dead_letter_compaction_threshold_mb: 0
  max_files: 0
  retention: 7d
  offset_flush_interval_ms: 500
subscribers:
  max_retries: 0
  retry_backoff_base_ms: 250
  retry_backoff_max_ms: 10000
hub:
  enabled: false
  listen_addr: 0.0.0.0:7740
  allowed_peers: []
  fed_client_offset_ttl: 1d12h
client:
  enabled: false
  hubs:
    - addr: ""
tls: {cert: a.crt, key: a.key, ca: ca.crt, expiry_warn_days: 14}
federation: {reconnect_base_ms: 1, reconnect_max_ms: 2, reconnect_jitter: 1, max_batch_bytes: 65536}
dedup: {seen_id_lru_size: 5}
audit: {max_size_mb: 1, max_files: 2}
"""


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("KEYOP_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "keyop.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def faults_of(call: Callable[[], object]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        call()
    return str(caught.value).splitlines()


def storage(write: Write, lines: str) -> StorageSettings:
    return Config.load(write("storage: {data_dir: x, " + lines + "}")).to_settings().storage


# Files of the Go program


def test_a_1_4_1_file_with_every_key(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    settings = Config.load(write(GO_1_4_1)).to_settings()
    assert settings.name == "billing"
    assert settings.storage == StorageSettings(data_dir="/var/lib/keyop", compaction_threshold_mb=256)
    assert settings.hub == HubSettings(
        enabled=True,
        listen_addr=":7740",
        allowed_peers=(
            PeerSettings(name="edge-1", subscribe=("alerts",), publish=("readings", "x.dead-letter")),
            PeerSettings(name="edge-2"),
        ),
    )
    assert settings.client == ClientSettings(
        enabled=True, hubs=(HubReference(addr="hub.example:7740", subscribe=("alerts",)),)
    )
    assert (settings.tls.cert, settings.tls.ca) == ("/etc/keyop/billing.crt", "/etc/keyop/ca.crt")
    warned = [record.getMessage() for record in caplog.records if record.name == "keyop.config"]
    lines = GO_1_4_1.splitlines()
    for key in ("storage.max_subscriber_lag_mb", "tls.min_version", "federation.send_buffer_messages"):
        number = next(n for n, line in enumerate(lines, 1) if key.partition(".")[2] in line)
        assert f":{number}: {key} is a key of other releases and has no effect" in warned.pop(0)
    assert [text.partition(" has ")[0] for text in warned] == ["hub.allowed_peers (edge-1): publish: 'x.dead-letter'"]


def test_a_1_24_3_file_with_every_key(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    settings = Config.load(write(GO_1_24_3)).to_settings()
    assert settings.storage == StorageSettings(
        data_dir="/var/lib/keyop",
        sync_interval_ms=200,
        compaction_threshold_mb=-1,
        dead_letter_compaction_threshold_mb=50,
        max_files=0,
        retention=604_800.0,
        offset_flush_interval_ms=500,
    )
    assert settings.subscribers.max_retries == 0
    assert settings.subscribers.retry_backoff_max_ms == 10_000
    assert settings.hub.fed_client_offset_ttl == 129_600.0
    assert settings.client.hubs == (HubReference(),)
    assert settings.federation.reconnect_jitter == 1.0
    assert not caplog.records


def test_every_default_is_that_of_the_settings() -> None:
    config = Config(storage={"data_dir": "x"})
    expected = Settings(storage=StorageSettings(data_dir="x"), explicit=frozenset({"storage.data_dir"}))
    assert config.to_settings() == expected


@pytest.mark.parametrize(("name", "kind"), SECTIONS.items())
def test_config_and_settings_know_the_same_keys(name: str, kind: type[Any]) -> None:
    model = Config.model_fields[name].annotation
    assert model is not None
    assert list(model.model_fields) == [field.name for field in dataclasses.fields(kind)]


@pytest.mark.parametrize(("policy", "interval_ms"), [("always", 0), ("periodic", 200), ("none", 60_000)])
def test_sync_policy_is_translated(
    policy: str, interval_ms: int, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Config.load(write(f"storage:\n  data_dir: x\n  sync_policy: {policy}")).to_settings()
    assert settings.storage.sync_interval_ms == interval_ms
    assert "storage.sync_interval_ms" in settings.explicit
    assert f":3: storage.sync_policy is a key of older releases; instead of '{policy}'" in caplog.text
    assert f"write storage.sync_interval_ms: {interval_ms}" in caplog.text


def test_the_key_of_today_goes_before_sync_policy(write: Write) -> None:
    assert storage(write, "sync_policy: periodic, sync_interval_ms: 500").sync_interval_ms == 500
    assert storage(write, "sync_policy: none, sync_interval_ms: 0").sync_interval_ms == 60_000
    [line] = faults_of(lambda: storage(write, "sync_policy: sometimes"))
    assert "always: 0, periodic: 200, none: 60000" in line


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("storage: {max_channel_size_mb: 500}", "storage.max_files"),
        ("hub: {allowed_clients: [{name: a, allow_channels: [b]}]}", "hub.allowed_peers"),
        ("hub: {peer_hubs: [{addr: a, forward: [b], receive: []}]}", "client.hubs"),
    ],
)
def test_other_keys_of_old_releases_name_their_replacement(
    text: str, named: str, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Config.load(write(text), storage={"data_dir": "x"}).to_settings()
    assert named in caplog.text
    assert settings.explicit == {"storage.data_dir"}
    assert settings.hub.allowed_peers == ()


# Zero, missing, durations


def test_a_dashboard_that_others_can_reach_needs_a_token(write: Write) -> None:
    text = "storage: {{data_dir: x}}\ndashboard: {{enabled: true, listen_addr: '{}'{}}}"
    for address in ("127.0.0.1:7741", "[::1]:7741", "localhost:0", "127.9.9.9:1"):
        assert Config.load(write(text.format(address, ""))).to_settings().dashboard.listen_addr == address
    for address in (":7741", "0.0.0.0:7741", "[::]:7741", "garage.example:7741"):
        with pytest.raises(ConfigError, match=r"dashboard\.token_file: is needed where others may connect"):
            Config.load(write(text.format(address, "")))
        dashboard = Config.load(
            write(text.format(address, ", token_file: token, allowed_hosts: [garage]"))
        ).to_settings()
        assert (dashboard.dashboard.token_file, dashboard.dashboard.allowed_hosts) == ("token", ("garage",))
    # Not enabled, it disturbs nobody.
    assert (
        not Config.load(write("storage: {data_dir: x}\ndashboard: {listen_addr: ':1'}")).to_settings().dashboard.enabled
    )


@pytest.mark.parametrize("line", ["", "max_files:", "max_files: null", "max_files: ~"])
def test_missing_is_the_default_and_not_explicit(line: str, write: Write) -> None:
    settings = Config.load(write(f"storage:\n  data_dir: x\n  {line}\nsubscribers:\n")).to_settings()
    assert settings.storage.max_files == 10
    assert settings.subscribers.max_retries == 5
    assert settings.explicit == {"storage.data_dir"}


def test_zero_is_the_default_unless_zero_means_something(write: Write) -> None:
    text = """
        storage: {data_dir: x, compaction_threshold_mb: 0, max_files: 0, offset_flush_interval_ms: 0,
                  sync_interval_ms: 0}
        subscribers: {max_retries: 0, retry_backoff_base_ms: 0}
        federation: {reconnect_jitter: 0.0, max_batch_bytes: 0}
        dedup: {seen_id_lru_size: 0}
        ipc: {spin_us: 0}
        writer: {idle_exit: 0}
    """
    settings = Config.load(write(text)).to_settings()
    assert settings.storage == StorageSettings(data_dir="x", max_files=0)
    assert (settings.subscribers.max_retries, settings.subscribers.retry_backoff_base_ms) == (0, 100)
    assert (settings.federation.reconnect_jitter, settings.federation.max_batch_bytes) == (0.2, 4_194_304)
    assert settings.dedup.seen_id_lru_size == 100_000
    assert (settings.ipc.spin_us, settings.writer.idle_exit) == (0, 0.0)
    # Strict by an explicit zero; a zero that became another value was nobody's wish.
    assert {"storage.sync_interval_ms", "storage.max_files", "subscribers.max_retries"} < settings.explicit
    assert "storage.compaction_threshold_mb" not in settings.explicit


def test_negative_is_off_where_go_has_no_check(write: Write) -> None:
    assert storage(write, "max_files: -1").max_files == 0
    assert storage(write, "retention: -1s").retention == 0.0
    assert storage(write, "compaction_threshold_mb: -5").compaction_threshold_mb == -5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0.0), ("0s", 0.0), ("-1s", 0.0), ("7d", 604_800.0), ('"1.5d"', 129_600.0), ("168h", 604_800.0)],
)
def test_positions_of_peers_are_kept_for_ever_with_zero(text: str, seconds: float, write: Write) -> None:
    path = write(f"storage: {{data_dir: x}}\nhub: {{fed_client_offset_ttl: {text}}}")
    assert Config.load(path).to_settings().hub.fed_client_offset_ttl == seconds


@pytest.mark.parametrize("text", ["3600", "1.5", "true", "[1h]", '"3600"', "one day", "12h1d", '""'])
def test_a_duration_needs_its_unit(text: str, write: Write) -> None:
    [line] = faults_of(lambda: storage(write, f"retention: {text}"))
    assert ": storage.retention = " in line
    assert "7d" in line or "h or " in line


def test_a_timedelta_is_a_duration() -> None:
    assert Config(storage={"data_dir": "x", "retention": timedelta(days=7)}).storage.retention == 604_800.0


DURATIONS = {
    "0": 0.0,
    "7d": 604_800.0,
    "1.5d": 129_600.0,
    "1d12h": 129_600.0,
    "168h": 604_800.0,
    "1h30m": 5_400.0,
    "500ms": 0.5,
    "-1s": -1.0,
    "+.5h": 1_800.0,
    "1.h": 3_600.0,
    "0s": 0.0,
    "3us": 3e-6,
    "3µs": 3e-6,
    "1.447s": 1.447,
    "0.0000000019s": 1e-9,
}


@pytest.mark.parametrize(("text", "seconds"), DURATIONS.items())
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", " 7d", "7D", "7d\n", "12h1d", "1d1d", "d", "-", ".h", "1d12", "1e3s", "300000d", "٣s", "1" * 5_000 + "h"],
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration|is longer than"):
        parse_duration(text)


def test_a_bare_number_is_told_what_to_write() -> None:
    with pytest.raises(ValueError, match="'3600' has no unit: write 3600s"):
        parse_duration("3600")


@given(st.integers(min_value=-(2**53), max_value=2**53))
def test_durations_round_trip_to_the_nanosecond(nanoseconds: int) -> None:
    seconds = nanoseconds / 1e9
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize("text", ["0s", "7d", "1d12h", "1h30m", "500ms", "-1s", "1m30.25s", "1.5us", "7ns"])
def test_durations_are_written_as_one_would(text: str) -> None:
    assert format_duration(parse_duration(text)) == text


# Environment and precedence


def test_arguments_before_environment_before_file_before_default(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("storage: {data_dir: file, max_files: 1, journal_mb: 1, sync_interval_ms: 1}\nname: file")
    monkeypatch.setenv("KEYOP_DATA_DIR", "environment")
    monkeypatch.setenv("KEYOP_STORAGE__MAX_FILES", "2")
    monkeypatch.setenv("KEYOP_STORAGE__SYNC_INTERVAL_MS", "2")
    settings = Config.load(path, storage={"sync_interval_ms": 3, "max_files": None}, name=None).to_settings()
    assert settings.storage == StorageSettings(data_dir="environment", max_files=2, journal_mb=1, sync_interval_ms=3)
    assert settings.name == "file"
    assert settings.config_file == str(path)
    assert settings.explicit == {
        *("storage.data_dir", "storage.max_files", "storage.journal_mb", "storage.sync_interval_ms", "name")
    }


def test_every_kind_of_value_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "KEYOP_STORAGE__DATA_DIR": "123",
        "KEYOP_NAME": "no",
        "KEYOP_STORAGE__RETENTION": "7d",
        "KEYOP_STORAGE__MAX_FILES": "",
        "KEYOP_CLIENT__HUBS": '[{"addr": "hub:7740", "publish": ["a", "b"], "verify_hostname": true}]',
        "KEYOP_TLS__CA": "1",
        "KEYOP_FEDERATION__RECONNECT_JITTER": "0.5",
    }
    for name, text in values.items():
        monkeypatch.setenv(name, text)
    settings = Config().to_settings()
    assert (settings.storage.data_dir, settings.name, settings.tls.ca) == ("123", "no", "1")
    assert (settings.storage.retention, settings.storage.max_files) == (604_800.0, 10)
    assert settings.client.hubs == (HubReference(addr="hub:7740", publish=("a", "b"), verify_hostname=True),)
    assert settings.federation.reconnect_jitter == 0.5


def test_the_short_name_goes_before_the_long_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYOP_DATA_DIR", "short")
    monkeypatch.setenv("KEYOP_STORAGE__DATA_DIR", "long")
    assert Config().storage.data_dir == "short"


def test_a_slip_in_a_variables_name(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("KEYOP_DATADIR", "x")
    monkeypatch.setenv("KEYOP_SOMEBODY_ELSES", "x")
    monkeypatch.setenv("KEYOP_STORAGE__MAX_FILE", "1")
    monkeypatch.setenv("KEYOP_STORGE__MAX_FILES", "1")
    monkeypatch.setenv("KEYOP_NAME__X", "1")
    lines = faults_of(lambda: Config(storage={"data_dir": "x"}))
    assert any(line.startswith("KEYOP_STORAGE__MAX_FILE: ") and line.endswith("storage.max_files") for line in lines)
    assert any(line.startswith("KEYOP_STORGE__MAX_FILES: ") and line.endswith("storage.max_files") for line in lines)
    assert any(line.startswith("KEYOP_NAME__X: ") for line in lines)
    assert caplog.messages == ["KEYOP_DATADIR is not read; did you mean KEYOP_DATA_DIR?"]


def test_a_list_is_replaced_as_a_whole_and_blamed_on_who_set_it(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("storage: {data_dir: x}\nclient:\n  hubs:\n    - addr: a:1\n    - addr: b:1\n")
    monkeypatch.setenv("KEYOP_CLIENT__HUBS", "[{addr: 5}]")
    [line] = faults_of(lambda: Config.load(path))
    assert line == "KEYOP_CLIENT__HUBS: client.hubs[0].addr = 5: must be text; put it in quotes"


# Faults


def test_all_faults_are_reported_together(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(
        """\
storage:
  max_file: 3
  sync_interval_ms: -5
  compaction_threshold_mb: "3"
hub:
  enabled: yes
  allowed_peers:
    - name: a
      subscribe: [ok, "y/*"]
    - subscribe: alerts
subscribers: {max_retries: true}
tls: {cert: a.crt}
federation: {reconnect_jitter: 1.5}
audt: 3
audit: 7
"""
    )
    monkeypatch.setenv("KEYOP_STORAGE__JOURNAL_MB", "many")
    lines = faults_of(lambda: Config.load(path, ipc={"spin_us": 1.5}))
    expected = [
        f"{path}:14: audt is not a key; the nearest one is audit",
        f"{path}:1: storage.data_dir is not set",
        f"{path}:2: storage.max_file is not a key; the nearest one is storage.max_files",
        f"{path}:3: storage.sync_interval_ms = -5: must be 0 or more",
        f"{path}:4: storage.compaction_threshold_mb = '3': must be a whole number",
        "KEYOP_STORAGE__JOURNAL_MB: storage.journal_mb = 'many': must be a whole number",
        f"{path}:5: hub.listen_addr: must not be empty while hub.enabled is true",
        f"{path}:9: hub.allowed_peers[0].subscribe[1] = 'y/*': not a channel name",
        f"{path}:10: hub.allowed_peers[1].name is not set",
        f"{path}:10: hub.allowed_peers[1].subscribe = 'alerts': must be a list",
        f"{path}:11: subscribers.max_retries = True: must be a whole number",
        f"{path}:12: tls.key: tls.cert and tls.key belong together",
        f"{path}:13: federation.reconnect_jitter = 1.5: must be 1.0 or less",
        f"{path}:15: audit = 7: must hold keys",
        "argument: ipc.spin_us = 1.5: must be a whole number",
    ]
    for line in expected:
        assert any(said.startswith(line) for said in lines), line
    assert len(lines) == len(expected)


@pytest.mark.parametrize(
    ("sections", "nearest"),
    [
        ({"storage": {"data_dri": "x"}}, "storage.data_dir"),
        ({"storage": {"sync_intervall_ms": 1}}, "storage.sync_interval_ms"),
        ({"data_dir": "x"}, "storage.data_dir"),
        ({"hub": {"max_retries": 1}}, "subscribers.max_retries"),
        ({"hub": {"allowed_peers": [{"name": "a", "subscribes": []}]}}, "hub.allowed_peers[].subscribe"),
        ({"client": {"hubs": [{"address": "a:1"}]}}, "client.hubs[].addr"),
        ({"federaton": {}}, "federation"),
        ({"Storage": {}}, "storage"),
    ],
)
def test_an_unknown_key_names_the_nearest_one(sections: dict[str, Any], nearest: str) -> None:
    lines = faults_of(lambda: Config(**sections))
    assert any(line.endswith(f"is not a key; the nearest one is {nearest}") for line in lines)


def test_federation_needs_addresses_and_certificates() -> None:
    lines = faults_of(lambda: Config(storage={"data_dir": "x"}, hub={"enabled": True, "listen_addr": ":7740"}))
    assert lines == ["configuration: tls: cert, key and ca are needed while hub.enabled is true (see keyop keygen)"]
    [line] = faults_of(lambda: Config(storage={"data_dir": "x"}, client={"enabled": True, "hubs": [{}]}))
    assert "entry 0 has no addr" in line
    [line] = faults_of(lambda: Config(storage={"data_dir": "x"}, tls={"key": "a"}))
    assert "set both or none" in line


def test_two_entries_of_one_name(caplog: pytest.LogCaptureFixture) -> None:
    Config(storage={"data_dir": "x"}, hub={"allowed_peers": [{"name": "a"}, {"name": "a", "publish": ["b"]}]})
    assert "2 entries are named 'a'; only the first counts" in caplog.text


def test_names_that_no_peer_takes_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    peer = {"name": "a", "subscribe": ["x", "x.dead-letter", "x.replay"], "publish": ["y", "y.dead-letter", "y.replay"]}
    hub = {"addr": "h:1", "subscribe": ["z.dead-letter"], "publish": ["z.replay"]}
    Config(storage={"data_dir": "x"}, hub={"allowed_peers": [peer]}, client={"hubs": [hub]})
    assert [record.getMessage().split(" is ")[0].split(" has ")[0] for record in caplog.records] == [
        "hub.allowed_peers (a): subscribe: 'x.dead-letter'",
        "hub.allowed_peers (a): subscribe: 'x.replay'",
        "hub.allowed_peers (a): publish: 'y.dead-letter'",
        "hub.allowed_peers (a): publish: 'y.replay'",
        "client.hubs (h:1): subscribe: 'z.dead-letter'",
        "client.hubs (h:1): publish: 'z.replay'",
    ]


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n"])
def test_an_empty_file_is_an_error(text: str, write: Write) -> None:
    with pytest.raises(ConfigError):
        Config.load(write(text))


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("storage:\n  data_dir: [a\nhub: {}\n", 3, "expected"),
        ("storage:\n  data_dir: a\n  data_dir: b\n", 3, "twice"),
        ("storage:\n\tdata_dir: a\n", 2, "cannot start any token"),
        ("a: !!python/object:os.system x", 1, "could not determine a constructor"),
        ("? [a, b]\n: c", 1, "a key must be text"),
        ("- a", 1, "must hold sections"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
    ],
)
def test_a_syntax_error_names_file_and_line(text: str, line: int, problem: str, write: Write) -> None:
    path = write(text)
    [said] = faults_of(lambda: Config.load(path))
    assert said.startswith(f"{path}:{line}: ")
    assert problem in said


@pytest.mark.parametrize("text", ["a: &x [*x]", "a: !!bool maybe", "a: !!int ''", "a: \x00", "a: !!timestamp [x]"])
def test_yaml_that_makes_the_parser_stumble(text: str, write: Write) -> None:
    with pytest.raises(ConfigError, match=r"keyop\.yaml(:1)?: is not YAML that can be read"):
        Config.load(write(text))


def test_yaml_as_go_reads_it(write: Write) -> None:
    text = (
        "x: &x {publish: [a]}\nstorage: {data_dir: 2026-03-31}\nclient: {hubs: [{<<: *x, addr: 'a:1', publish: [b]}]}\n"
    )
    lines = faults_of(lambda: Config.load(write(text)))
    assert len(lines) == 1  # the unknown key x alone: dates are text, and a merged key may be overridden
    assert ":1: x is not a key" in lines[0]


def test_a_key_like_a_switch_of_the_library_is_just_unknown(write: Write) -> None:
    [line] = faults_of(lambda: Config.load(write("storage: {data_dir: x}\n_env_file: y\n")))
    assert ":2: _env_file is not a key" in line


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in faults_of(lambda: Config.load(tmp_path / "none.yaml"))[0]
    assert "Is a directory" in faults_of(lambda: Config.load(tmp_path))[0]


def test_a_refused_configuration_leaves_nothing_behind(tmp_path: Path, write: Write) -> None:
    path = write(f"storage: {{data_dir: {tmp_path / 'data'}}}\nhub: {{enabled: true, listen_addr: nonsense:port}}")
    with pytest.raises(ConfigError):
        settings_for(path)
    assert os.listdir(tmp_path) == ["keyop.yaml"]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (":7740", ("", 7740)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::]:7741", ("::", 7741)),
        ("[::1]", ("::1", 7740)),
        ("hub.example", ("hub.example", 7740)),
    ],
)
def test_addresses(address: str, expected: tuple[str, int]) -> None:
    assert host_and_port(address) == expected


@pytest.mark.parametrize("address", ["hub.example", "[::1]", "0.0.0.0"])
def test_an_address_names_its_port(write: Write, address: str) -> None:
    text = "storage: {{data_dir: x}}\nhub: {{listen_addr: '{0}'}}\nclient: {{hubs: [{{addr: '{0}'}}]}}\n"
    listening, hub = faults_of(lambda: Config.load(write(text.format(address))))
    assert f"hub.listen_addr = '{address}'" in listening
    assert f"names no port: write {address}:7740" in listening
    assert f"client.hubs[0].addr = '{address}'" in hub
    assert f"names no port: write {address}:7740" in hub


def test_a_port_alone_is_no_host(write: Write) -> None:
    """As a host it would be looked up, and be an address of some other network: 9464 is 0.0.36.248."""
    path = write("storage: {data_dir: x}\nmetrics: {listen_addr: '9464'}\n")
    (fault,) = faults_of(lambda: Config.load(path))
    assert "metrics.listen_addr = '9464': '9464' is not an address but a port: write host:9464, or :9464" in fault


@pytest.mark.parametrize(
    "address", ["7740", "::1", "a:b", "a:", "a:65536", "ws://a:1", "a:1/", "a b:1", "a:-1", "a:٣", "[a:1"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match="is not an address"):
        host_and_port(address)


def test_workers(write: Write) -> None:
    path = write("storage: {data_dir: x}\nworkers: [{app: 'a.b:app', processes: 2, only: [c]}, {app: d, name: e}]")
    settings = Config.load(path).to_settings()
    assert settings.workers == (
        WorkerSettings(app="a.b:app", processes=2, only=("c",)),
        WorkerSettings(app="d", name="e"),
    )
    assert Settings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ("{}", "workers[0].app is not set"),
        ("{app: 7}", "workers[0].app = 7: must be text"),
        ("{app: 'shop/orders.py'}", "workers[0].app = 'shop/orders.py': must be a module and an app in it"),
        ("{app: 'a:b:c'}", "workers[0].app = 'a:b:c': must be a module"),
        ("{app: a, processes: -1}", "workers[0].processes = -1: must be 1 or more"),
        ("{app: a, processes: 1000}", "workers[0].processes = 1000: must be 64 or less"),
        ("{app: a, processes: '2'}", "workers[0].processes = '2': must be a whole number"),
        ("{app: a, only: b}", "workers[0].only = 'b': must be a list"),
        ("{app: a, only: [fed-b]}", "workers[0].only[0] = 'fed-b': not a subscriber id"),
        ("{app: a, name: hub}", "workers[0].name = 'hub': is the name of a process of keyop's own"),
        ("{app: a, name: 'a/2'}", "workers[0].name = 'a/2': must be up to 50 of"),
        ("{app: a, prozesse: 2}", "workers[0].prozesse is not a key; the nearest one is workers[].processes"),
        ("{app: a, name: c}, {app: b, name: c}", "2 entries are named 'c'"),
    ],
)
def test_faults_of_workers(entry: str, fault: str, write: Write) -> None:
    path = write(f"storage: {{data_dir: x}}\nworkers: [{entry}]")
    [line] = faults_of(lambda: Config.load(path))
    assert line.startswith(f"{path}:2: ")
    assert fault in line


# Settings


def test_settings_survive_json(write: Write) -> None:
    settings = Config.load(write(GO_1_4_1), writer={"idle_exit": "1m"}).to_settings()
    assert Settings.from_json(settings.to_json()) == settings
    assert "\n" not in settings.to_json()
    assert Settings.from_json(Settings().to_json()) == Settings()


def test_settings_of_another_release() -> None:
    text = '{"storage":{"data_dir":"x","new_key":1},"new_section":{},"explicit":["storage.new_key"]}'
    settings = Settings.from_json(text)
    assert settings.storage == StorageSettings(data_dir="x")
    with pytest.raises(ValueError, match="object"):
        Settings.from_json("[]")


def test_settings_for_each_kind_of_source(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("storage: {data_dir: file, max_files: 3}")
    odd = path.rename(tmp_path / "odd-name")
    assert settings_for(odd).storage.max_files == 3
    assert settings_for("./data") == Config(storage={"data_dir": "./data"}).to_settings()
    assert settings_for(tmp_path).storage.data_dir == str(tmp_path)
    assert settings_for("./data", storage={"max_files": 4}).storage == StorageSettings(data_dir="./data", max_files=4)
    config = Config.load(odd)
    assert settings_for(config) == settings_for(config.to_settings()) == config.to_settings()
    (tmp_path / "is.yaml").mkdir()
    assert settings_for(tmp_path / "is.yaml").storage.data_dir == str(tmp_path / "is.yaml")
    monkeypatch.setenv("KEYOP_CONFIG", str(odd))
    assert settings_for().storage == StorageSettings(data_dir="file", max_files=3)
    assert settings_for("./data").storage == StorageSettings(data_dir="./data", max_files=3)
    monkeypatch.setenv("KEYOP_DATA_DIR", "environment")
    assert settings_for().storage.data_dir == "environment"
    monkeypatch.delenv("KEYOP_CONFIG")
    assert settings_for() == Config().to_settings()


def test_settings_for_nothing_says_what_to_set(tmp_path: Path) -> None:
    [line] = faults_of(settings_for)
    assert "KEYOP_DATA_DIR" in line
    assert "KEYOP_CONFIG" in line
    assert "No such file" in faults_of(lambda: settings_for(tmp_path / "none.yml"))[0]
    assert "must not be empty" in faults_of(lambda: settings_for(""))[0]
    assert "neither a path" in faults_of(lambda: settings_for(5))[0]  # type: ignore[arg-type]
    assert "dataclasses.replace" in faults_of(lambda: settings_for(Settings(), storage={}))[0]


def test_a_data_directory_needs_neither_pydantic_nor_yaml() -> None:
    code = (
        "import sys; from keyop.configuration.lookup import settings_for; settings_for('./x');"
        "print([m for m in ('pydantic', 'pydantic_settings', 'yaml', 'keyop.config') if m in sys.modules])"
    )
    environment = {"PATH": os.environ["PATH"], "KEYOP_DATA_DIR": "elsewhere"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_page_has_every_key_with_its_default_and_variable() -> None:
    page = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text(encoding="utf-8")
    for key, field in KEYS.items():
        if key in SECTIONS or key in ("client.hubs", "hub.allowed_peers"):
            continue
        [row] = [line for line in page.splitlines() if line.startswith(f"| `{key}` |")]
        [default] = re.findall(r"^\| `\S+` \| (.*?) ?\|", row)
        if isinstance(field.default, bool):
            assert default == str(field.default).lower()
        elif isinstance(field.default, float) and key != "federation.reconnect_jitter":
            assert parse_duration(default) == field.default
        elif isinstance(field.default, (int, float)):
            assert default == str(field.default)


def test_the_example_on_the_page_loads(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    page = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text(encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        for example in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL):
            Config.load(write(example))
    assert not caplog.records
