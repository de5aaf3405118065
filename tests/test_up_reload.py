"""The configuration of a running ``keyop up`` changes: what differs is started again, and faults change nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from child import eventually
from supervised import Site, keyop, site

pytestmark = pytest.mark.alone


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as there:
        there.with_worker(name="clerks", only=["clerk"])
        there.with_worker(only=["book"])
        yield there


def _changed(before: dict[str, int], after: dict[str, int]) -> set[str]:
    return {role for role in before.keys() | after.keys() if before.get(role) != after.get(role)}


def test_only_what_differs_is_started_again(here: Site) -> None:
    here.with_hub()
    up = here.up()
    before = here.pids()

    here.sections["workers"][1]["only"] = ["book", "clerk"]
    here.sections["workers"][0] = {"app": "shop:app", "name": "nobody", "only": ["book"]}
    here.sections["workers"].pop(1)
    here.write_config()
    up.wait_for("clerks is stopped, shop is stopped, nobody is started").wait_for("nobody is ready")
    up.wait_for("shop has left").wait_for("clerks has left")
    after = here.pids()
    assert _changed(before, after) == {"clerks", "shop", "nobody"}

    here.sections["subscribers"] = {"max_retries": 2}
    here.write_config()
    up.wait_for(": nobody is started again").wait_for("nobody is ready", 2)
    assert _changed(after, here.pids()) == {"nobody"}
    after = here.pids()

    here.sections["storage"]["max_files"] = 3
    here.write_config()
    up.wait_for(": writer is started again").wait_for("writer is ready", 2)
    assert _changed(after, here.pids()) == {"writer"}
    after = here.pids()

    here.sections["federation"] = {"max_batch_bytes": 1_000_000}
    here.write_config()
    up.wait_for(": hub is started again").wait_for("hub is ready", 2)
    assert _changed(after, here.pids()) == {"hub"}
    assert up.stop() == 0


def test_the_hub_takes_its_list_of_peers_up_itself(here: Site) -> None:
    here.with_hub()
    up = here.up()
    before = here.pids()
    here.sections["hub"]["allowed_peers"].append({"name": "host3"})
    here.write_config()
    up.wait_for("supervisor", 1).wait_for("nothing to be started again")
    up.wait_for("read again: ", 2)  # the hub's own words, and the supervisor's
    assert here.pids() == before
    # What it is given at its next start is the list of now.
    os.kill(before["hub"], signal.SIGKILL)
    up.wait_for("hub is ready", 2)
    assert up.stop() == 0


def test_roles_that_are_switched_on_and_off(here: Site) -> None:
    up = here.up()
    here.with_hub()
    here.write_config()
    up.wait_for("hub is started").wait_for("listening at")
    assert "hub" in here.pids()
    here.sections["hub"]["enabled"] = False
    here.write_config()
    up.wait_for("hub is stopped").wait_for("hub has left")
    eventually(lambda: "hub" not in here.pids())
    assert up.stop() == 0


def test_another_number_of_processes(here: Site) -> None:
    """Parts of another number are granted only when the old ones have left."""
    up = here.up()
    for processes, ready in ((2, ["clerks/1", "clerks/2"]), (3, ["clerks/1", "clerks/2", "clerks/3"]), (1, ["clerks"])):
        here.sections["workers"][0]["processes"] = processes
        here.write_config()
        eventually(
            lambda ready=ready: (
                {name: row["state"] for name, row in here.rows().items() if name.startswith("clerks")}
                == dict.fromkeys(ready, "running")
            )
        )
        here.publish("orders", f"with-{processes}")
        up.wait_for(f"clerk with-{processes}")
    assert up.stop() == 0


def test_a_file_that_is_emptied_or_removed_or_broken_changes_nothing(here: Site) -> None:
    up = here.up()
    before = here.pids()
    here.config_path.write_text("")
    up.wait_for("is empty; at least storage.data_dir is needed").wait_for("what was read before stays in force")
    here.config_path.unlink()
    up.wait_for("cannot be read: No such file").wait_for("what was read before stays in force", 2)
    here.write_config("storage: {data_dir: [\n")
    up.wait_for("is not YAML that can be read").wait_for("what was read before stays in force", 3)
    here.write_config(f"storage: {{data_dir: {here.data_dir}, max_file: 3}}\n")
    up.wait_for("storage.max_file is not a key; the nearest one is storage.max_files")
    up.wait_for("what was read before stays in force", 4)
    assert here.pids() == before
    here.write_config()
    up.wait_for("nothing to be started again")
    assert here.pids() == before
    assert keyop("status", "-d", here.data_dir).returncode == 0
    assert up.stop() == 0


def test_another_data_directory_needs_another_start(here: Site) -> None:
    up = here.up()
    before = here.pids()
    here.sections["storage"]["data_dir"] = str(here.path / "other")
    here.write_config()
    up.wait_for(f"storage.data_dir cannot change while it runs ({here.data_dir})")
    assert here.pids() == before
    assert not (here.path / "other").exists()
    assert up.stop() == 0


def test_sighup_reads_the_file_again_at_once(here: Site) -> None:
    up = here.up()
    up.process.send_signal(signal.SIGHUP)
    up.wait_for("nothing to be started again")
    assert up.stop() == 0


def test_a_worker_that_cannot_start_after_a_change_leaves_the_others_alone(here: Site) -> None:
    up = here.up()
    before = here.pids()
    here.sections["workers"].append({"app": "nowhere:app"})
    here.write_config()
    up.wait_for("nowhere cannot start (exit code 1); the next one is started in 0.4 s")
    rows = here.rows()
    assert rows["nowhere"]["state"] in ("pausing", "starting")
    assert "there is no module nowhere" in rows["nowhere"]["reason"]
    assert rows["supervisor"]["state"] == "degraded"
    assert {role: rows[role]["pid"] for role in before} == before
    status = keyop("status", "-d", here.data_dir)
    assert status.returncode == 5
    assert "there is no module nowhere" in status.stdout
    (here.path / "nowhere.py").write_text(
        (here.path / "shop.py").read_text().replace("clerk", "c").replace("book", "b")
    )
    up.wait_for("nowhere is ready")
    eventually(lambda: keyop("status", "-d", here.data_dir).returncode == 0)
    assert up.stop() == 0


_WRONG: dict[str, Any] = {
    "name": 7,
    "storage": {
        "data_dir": "",
        "sync_interval_ms": "often",
        "compaction_threshold_mb": "3",
        "dead_letter_compaction_threshold_mb": [],
        "max_files": 1.5,
        "retention": 30,
        "offset_flush_interval_ms": -1,
        "max_message_bytes": 1,
        "journal_mb": 5000,
    },
    "subscribers": {"max_retries": -1, "retry_backoff_base_ms": "x", "retry_backoff_max_ms": -5},
    "hub": {"enabled": "perhaps", "listen_addr": "nowhere:port", "allowed_peers": [{}], "fed_client_offset_ttl": 7},
    "client": {"enabled": 3, "hubs": [{"addr": "http://x/"}]},
    "tls": {"cert": "a.crt", "key": "a.key", "ca": 3, "expiry_warn_days": "x"},
    "federation": {"reconnect_base_ms": -1, "reconnect_jitter": 2},
    "dedup": {"seen_id_lru_size": "many"},
    "audit": {"max_size_mb": -3, "max_files": True},
    "ipc": {"spin_us": 10**9},
    "writer": {"idle_exit": 30},
    "workers": {"app": "shop:app"},
}
_CASES = [
    (section, key, value)
    for section, keys in _WRONG.items()
    for key, value in (keys.items() if isinstance(keys, dict) and section != "workers" else [("", keys)])
]


def test_every_key_wrong_in_turn_starts_nothing_and_is_named(tmp_path: Path) -> None:
    """At the start; a running one is told by the same words, see above."""
    for section, key, value in _CASES:
        sections: dict[str, Any] = {"storage": {"data_dir": str(tmp_path / "data")}}
        if key:
            sections.setdefault(section, {})[key] = value
        else:
            sections[section] = value
        if (section, key) == ("tls", "cert") or (section, key) == ("tls", "key"):
            needle = "belong together"
        else:
            needle = f"{section}.{key}" if key else section
        path = tmp_path / "keyop.yaml"
        path.write_text(yaml.safe_dump(sections))
        done = keyop("up", "-c", path)
        assert done.returncode == 2, (section, key, done.stderr)
        assert f"{path}:" in done.stderr
        assert needle in done.stderr, (section, key, done.stderr)
        assert not (tmp_path / "data").exists()
