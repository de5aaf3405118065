"""Two programs, each whole in itself: messengers that run their hub and client as children."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from child import Child, eventually
from conftest import leave
from inbox import Inbox
from pki import Pki

from keyop import Messenger
from keyop.config import Config
from keyop.errors import CertificateError, ConfigError, FederationBusy, FederationError
from keyop.federation.children import missing
from keyop.ipc import lease


class Site:
    """A configuration for each of two hosts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        pki = Pki(path / "pki")
        self.tls = {name: pki.instance(name) for name in ("hub1", "host2")}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"

    def config(self, name: str, **sections: object) -> Config:
        tls = self.tls[name]
        return Config(
            storage={"data_dir": str(self.path / name)},  # type: ignore[arg-type]
            tls={"cert": tls.cert, "key": tls.key, "ca": tls.ca},  # type: ignore[arg-type]
            **sections,  # type: ignore[arg-type]
        )

    def hub(self) -> Config:
        peers = [{"name": "host2"}]
        return self.config("hub1", hub={"enabled": True, "listen_addr": self.address, "allowed_peers": peers})

    def client(self) -> Config:
        hubs = [{"addr": self.address, "subscribe": ["down"], "publish": ["up"]}]
        return self.config("host2", client={"enabled": True, "hubs": hubs})


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    for name in ("hub1", "host2"):
        leave(tmp_path / name)


def test_two_programs(site: Site) -> None:
    up, down = Inbox(), Inbox()
    with Messenger(site.hub(), federate=True) as hub, Messenger(site.client(), federate=True) as client:
        hub.subscribe("up", "s", up, start="earliest")
        client.subscribe("down", "s", down, start="earliest")
        client.publish("up", 1, payload_type="t")
        message = up.next()
        assert (message.payload, message.origin) == (1, client.instance_name)
        hub.publish("down", 2, payload_type="t")
        assert down.next().payload == 2
    assert missing(site.hub().to_settings()) == ["hub"]


def role_pid(data_dir: Path, role: str) -> int:
    return int((data_dir / "run" / f"{role}.lock").read_text().split()[1])


def test_a_child_that_is_killed_is_started_again(site: Site) -> None:
    up = Inbox()
    with Messenger(site.hub(), federate=True) as hub, Messenger(site.client(), federate=True) as client:
        hub.subscribe("up", "s", up, start="earliest")
        killed = role_pid(site.path / "hub1", "hub")
        os.kill(killed, signal.SIGKILL)
        client.publish("up", 1, payload_type="t")
        assert up.next().payload == 1
        assert role_pid(site.path / "hub1", "hub") != killed


def test_children_leave_with_a_parent_that_is_killed(site: Site, tmp_path: Path) -> None:
    config = tmp_path / "hub.yaml"
    tls = site.tls["hub1"]
    config.write_text(
        f"storage: {{data_dir: {site.path / 'hub1'}}}\n"
        f"tls: {{cert: {tls.cert}, key: {tls.key}, ca: {tls.ca}}}\n"
        f"hub: {{enabled: true, listen_addr: '{site.address}', allowed_peers: [{{name: host2}}]}}\n"
    )
    source = """
    m = Messenger(sys.argv[2], federate=True)
    say("ready")
    hear()
    """
    lock = site.path / "hub1" / "run" / "hub.lock"
    with Child(source, site.path / "hub1", config) as parent:
        parent.expect("ready")
        assert lease.is_held(lock)
        parent.kill()
        eventually(lambda: not lease.is_held(lock))


def test_what_is_wrong_is_raised_here(site: Site) -> None:
    settings = site.hub()
    with Messenger(settings, federate=True), pytest.raises(FederationBusy):
        Messenger(settings, federate=True)
    Path(site.tls["hub1"].key).write_text("no key")
    with pytest.raises(CertificateError, match=r"hub1\.key"):
        Messenger(settings, federate=True)
    with pytest.raises(ConfigError, match="keygen"):
        Messenger(settings.model_copy(update={"tls": type(settings.tls)()}), federate=True)


def test_a_start_that_fails_half_way_leaves_nobody(site: Site) -> None:
    """Case 84: the client runs already when the hub finds its port taken, or the other way round."""
    settings = site.hub()
    hubs = [{"addr": "127.0.0.1:9", "publish": ["up"]}]
    both = settings.model_copy(update={"client": site.config("hub1", client={"enabled": True, "hubs": hubs}).client})
    host, _, port = site.address.rpartition(":")
    with socket.create_server((host, int(port))), pytest.raises(FederationError, match="another program listens there"):
        Messenger(both, federate=True)
    run = site.path / "hub1" / "run"
    eventually(lambda: not any(lease.is_held(run / f"{role}.lock") for role in ("hub", "client")))
    with Messenger(both, federate=True):
        assert all(lease.is_held(run / f"{role}.lock") for role in ("hub", "client"))


def test_a_role_that_nobody_plays_is_said(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with Messenger(site.client()):
        assert "start `keyop client`" in caplog.text
