"""The text of a first configuration file, which ``keyop init`` writes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

_is_plain = re.compile(r"[A-Za-z/.][A-Za-z0-9/._-]*").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Starter:
    """What is asked for."""

    data_dir: str
    certificates: str = ""
    """The path of the PEM files, without their endings."""
    ca: str = ""
    is_hub: bool = False
    hub_address: str = ""
    """Of the hub to connect to; empty: none."""

    def text(self) -> str:
        """YAML that `keyop.config.Config` loads."""
        return "\n".join([_HEAD, self._storage(), _WORKERS, self._hub(), self._client(), self._tls()]).rstrip() + "\n"

    def _storage(self) -> str:
        return _STORAGE.format(data_dir=_quoted(self.data_dir))

    def _hub(self) -> str:
        return _HUB if self.is_hub else _commented(_HUB)

    def _client(self) -> str:
        if self.hub_address:
            return _CLIENT.format(addr=json.dumps(self.hub_address))
        return _commented(_CLIENT.format(addr='"hub.example:7740"'))

    def _tls(self) -> str:
        values = {"cert": f"{self.certificates}.crt", "key": f"{self.certificates}.key", "ca": self.ca}
        section = _TLS.format(**{key: _quoted(value) for key, value in values.items()})
        return section if self.is_hub or self.hub_address else _commented(section)


def _quoted(text: str) -> str:
    """A text that YAML reads as this text; JSON's form is one of YAML's."""
    return text if _is_plain(text) else json.dumps(text, ensure_ascii=False)


def _commented(section: str) -> str:
    """With a # before each line that is none already."""
    return "\n".join(line if not line or line.startswith("#") else f"#{line}" for line in section.split("\n"))


_HEAD = """\
# keyop.yaml, for `keyop up`. docs/configuration.md has all keys; what is not set here has a good default.
# While `keyop up` runs, a change of this file takes effect when it is saved.
"""
_STORAGE = """\
storage:
  data_dir: {data_dir}
  # 0: a publish returns when the message is on the disk. 200: at once, and a power cut may take the last 200 ms.
  sync_interval_ms: 0
  # Files of 100 MiB that a channel keeps at most, read or not. 0: all of them.
  max_files: 10
  # What is older goes, read or not; for example 30d. 0: nothing goes by its age.
  retention: 0
"""
_WORKERS = """\
# Apps whose handlers `keyop up` runs, each in processes of its own: see `keyop worker --help`.
#workers:
#  - app: "shop.orders:app"     # the module shop.orders, found from here, and the keyop.App in it
#    processes: 2               # they share the work
"""
_HUB = """\
# Lets other hosts in.
hub:
  enabled: true
  listen_addr: ":7740"
  # Who may come, by the name in its certificate; nobody is let in who is not here.
  allowed_peers: []             # instead of [] for example:
  #  - name: host2
  #    subscribe: [alerts]      # channels that it may receive; without this line: any
  #    publish: [readings]      # channels that it may send; without this line: any
"""
_CLIENT = """\
# Connects to a hub on another host.
client:
  enabled: true
  hubs:
    - addr: {addr}
      subscribe: []             # channels to receive
      publish: []               # channels to send
"""
_TLS = """\
# Certificates: `keyop keygen` makes them.
tls:
  cert: {cert}
  key: {key}
  ca: {ca}
"""
