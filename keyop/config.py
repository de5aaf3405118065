"""Reading and checking a configuration: a YAML file, environment variables, arguments.

Keys and defaults are those of the Go program, so that its files can be used as they are; `docs/configuration.md` has
the table. What a process works with afterwards is a `keyop.settings.Settings`.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, Protocol, TypeAlias, TypeVar, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StrictBool,
    StrictStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from keyop.durations import parse_duration
from keyop.errors import ConfigError
from keyop.names import check_channel
from keyop.settings import (
    CONFIG_VARIABLE,
    DATA_DIR_VARIABLE,
    ENVIRONMENT_PREFIX,
    SECTIONS,
    ClientSettings,
    HubReference,
    HubSettings,
    PeerSettings,
    Settings,
    host_and_port,
)

_log = logging.getLogger("keyop.config")

_MOST = 10**12
"""Far beyond what makes sense, and small enough that no product with a unit leaves 64 bits."""
_MOST_MS = 2**31 - 1
"""Milliseconds travel in 32-bit words of shared memory. 24 days."""
_MOST_DAYS = 36_500
_LONGEST_MESSAGE_BYTES = 10_485_760
"""Go's readers hold no longer line."""

_Place: TypeAlias = tuple[str | int, ...]
"""Where a value stands: ``("client", "hubs", 0, "addr")``."""


def _seconds(value: object) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError("must be a duration, such as 7d, 1d12h, 1h30m, 90s or 500ms")
    return parse_duration(str(value))


def _path(value: object) -> object:
    return os.fsdecode(value) if isinstance(value, os.PathLike) else value


def _address(value: str) -> str:
    if value:
        host_and_port(value)
    return value


def _hub_address(value: str) -> str:
    if value:
        host, port = host_and_port(value)
        if not host or not port:
            raise ValueError("needs a host and a port: hub.example:7740")
    return value


_Number = TypeVar("_Number", int, float)


def _negative_is_off(value: _Number) -> _Number:
    return max(value, type(value)(0))


Count = Annotated[int, Field(strict=True, ge=0, le=_MOST)]
Milliseconds = Annotated[int, Field(strict=True, ge=0, le=_MOST_MS)]
Signed = Annotated[int, Field(strict=True, ge=-_MOST, le=_MOST)]
Limit = Annotated[Signed, AfterValidator(_negative_is_off)]
Duration = Annotated[float, BeforeValidator(_seconds), AfterValidator(_negative_is_off)]
Fraction = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
FilePath = Annotated[str, BeforeValidator(_path), Field(strict=True)]
ListenAddress = Annotated[StrictStr, AfterValidator(_address)]
HubAddress = Annotated[StrictStr, AfterValidator(_hub_address)]
Channel = Annotated[StrictStr, AfterValidator(check_channel)]


class _ZeroCounts:
    """Marks a key whose explicit zero is a value, although its default is another."""


_ZERO_COUNTS = _ZeroCounts()


class _Section(BaseModel):
    """A section of the file, or an entry of a list in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _zero_is_the_default(cls, values: object) -> object:
        """As in Go, a zero is as good as a missing key, unless the key is marked otherwise."""
        if not isinstance(values, Mapping):
            return values
        return {key: value for key, value in values.items() if not (_is_zero(value) and cls._replaces_zero(key))}

    @classmethod
    def _replaces_zero(cls, key: str) -> bool:
        field = cls.model_fields.get(key)
        if field is None or _ZERO_COUNTS in field.metadata:
            return False
        return isinstance(field.default, (int, float)) and bool(field.default)


def _is_zero(value: object) -> bool:
    return type(value) in (int, float) and not value


_default = Settings()
_reference = HubReference()


class Storage(_Section):
    """Section ``storage``."""

    data_dir: Annotated[FilePath, Field(min_length=1)]
    sync_interval_ms: Milliseconds = _default.storage.sync_interval_ms
    compaction_threshold_mb: Signed = _default.storage.compaction_threshold_mb
    dead_letter_compaction_threshold_mb: Signed = _default.storage.dead_letter_compaction_threshold_mb
    max_files: Annotated[Limit, _ZERO_COUNTS] = _default.storage.max_files
    retention: Duration = _default.storage.retention
    offset_flush_interval_ms: Milliseconds = _default.storage.offset_flush_interval_ms
    max_message_bytes: Annotated[int, Field(strict=True, ge=1_024, le=_LONGEST_MESSAGE_BYTES)] = (
        _default.storage.max_message_bytes
    )
    journal_mb: Annotated[int, Field(strict=True, ge=1, le=1_024)] = _default.storage.journal_mb


class Subscribers(_Section):
    """Section ``subscribers``."""

    max_retries: Annotated[Count, _ZERO_COUNTS] = _default.subscribers.max_retries
    retry_backoff_base_ms: Milliseconds = _default.subscribers.retry_backoff_base_ms
    retry_backoff_max_ms: Milliseconds = _default.subscribers.retry_backoff_max_ms


class Peer(_Section):
    """An entry of ``hub.allowed_peers``."""

    name: Annotated[StrictStr, Field(min_length=1)]
    subscribe: tuple[Channel, ...] = ()
    publish: tuple[Channel, ...] = ()


class Hub(_Section):
    """Section ``hub``."""

    enabled: StrictBool = _default.hub.enabled
    listen_addr: Annotated[ListenAddress, Field(validate_default=True)] = _default.hub.listen_addr
    allowed_peers: tuple[Peer, ...] = ()
    fed_client_offset_ttl: Annotated[Duration, _ZERO_COUNTS] = _default.hub.fed_client_offset_ttl

    @field_validator("listen_addr")
    @classmethod
    def _hub_listens(cls, listen_addr: str, info: ValidationInfo) -> str:
        if info.data.get("enabled") and not listen_addr:
            raise ValueError("must not be empty while hub.enabled is true: ':7740'")
        return listen_addr

    @field_validator("allowed_peers")
    @classmethod
    def _first_entry_counts(cls, allowed_peers: tuple[Peer, ...]) -> tuple[Peer, ...]:
        for name, count in Counter(peer.name for peer in allowed_peers).items():
            if count > 1:
                _log.warning("hub.allowed_peers: %d entries are named %r; only the first counts", count, name)
        return allowed_peers


class HubEntry(_Section):
    """An entry of ``client.hubs``."""

    addr: HubAddress = _reference.addr
    subscribe: tuple[Channel, ...] = ()
    publish: tuple[Channel, ...] = ()
    expect_hub: StrictStr = _reference.expect_hub
    verify_hostname: StrictBool = _reference.verify_hostname
    max_bytes_per_s: Count = _reference.max_bytes_per_s


class Client(_Section):
    """Section ``client``."""

    enabled: StrictBool = _default.client.enabled
    hubs: tuple[HubEntry, ...] = ()

    @field_validator("hubs")
    @classmethod
    def _hubs_have_addresses(cls, hubs: tuple[HubEntry, ...], info: ValidationInfo) -> tuple[HubEntry, ...]:
        without = [index for index, hub in enumerate(hubs) if not hub.addr]
        if info.data.get("enabled") and without:
            raise ValueError(f"entry {without[0]} has no addr, and client.enabled is true: addr: 'hub.example:7740'")
        return hubs


class Tls(_Section):
    """Section ``tls``."""

    cert: FilePath = _default.tls.cert
    key: Annotated[FilePath, Field(validate_default=True)] = _default.tls.key
    ca: FilePath = _default.tls.ca
    expiry_warn_days: Annotated[int, Field(strict=True, ge=-_MOST_DAYS, le=_MOST_DAYS)] = _default.tls.expiry_warn_days

    @field_validator("key")
    @classmethod
    def _both_or_none(cls, key: str, info: ValidationInfo) -> str:
        if "cert" in info.data and bool(info.data["cert"]) != bool(key):
            raise ValueError("tls.cert and tls.key belong together: set both or none")
        return key


class Federation(_Section):
    """Section ``federation``."""

    reconnect_base_ms: Milliseconds = _default.federation.reconnect_base_ms
    reconnect_max_ms: Milliseconds = _default.federation.reconnect_max_ms
    reconnect_jitter: Fraction = _default.federation.reconnect_jitter
    max_batch_bytes: Count = _default.federation.max_batch_bytes


class Dedup(_Section):
    """Section ``dedup``."""

    seen_id_lru_size: Count = _default.dedup.seen_id_lru_size


class Audit(_Section):
    """Section ``audit``."""

    max_size_mb: Count = _default.audit.max_size_mb
    max_files: Count = _default.audit.max_files


class Ipc(_Section):
    """Section ``ipc``."""

    spin_us: Annotated[int, Field(strict=True, ge=0, le=100_000), _ZERO_COUNTS] = _default.ipc.spin_us


class Writer(_Section):
    """Section ``writer``."""

    idle_exit: Annotated[Duration, _ZERO_COUNTS] = _default.writer.idle_exit


class Config(BaseSettings):
    """A checked configuration: arguments go before environment variables, these before the file, that before defaults.

    `config_file` is the YAML file, by default the one that ``KEYOP_CONFIG`` names, if any. The other arguments are
    sections: ``Config(storage={"data_dir": "./data", "retention": "7d"})``; None counts as not given.

    Raises ConfigError with one line for each fault: where it stands, key, value, and what is allowed.
    """

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    name: StrictStr = ""
    storage: Storage
    subscribers: Subscribers = Subscribers()
    hub: Hub = Hub()
    client: Client = Client()
    tls: Annotated[Tls, Field(validate_default=True)] = Tls()
    federation: Federation = Federation()
    dedup: Dedup = Dedup()
    audit: Audit = Audit()
    ipc: Ipc = Ipc()
    writer: Writer = Writer()

    _config_file: str | None = PrivateAttr(default=None)

    def __init__(self, *, config_file: str | os.PathLike[str] | None = None, **sections: Any) -> None:
        config_file = config_file or os.environ.get(CONFIG_VARIABLE)
        sources: list[_Source] = [_Arguments(sections), _Environment(os.environ)]
        if config_file:
            sources.append(_File(config_file))
        given = _merged(sources)
        known = {key: value for key, value in given.items() if key in type(self).model_fields}
        faults = [_unknown_key(sources, (key,)) for key in given if key not in known]
        try:
            # Named one by one they cannot be taken for one of the switches (`_env_file`) of BaseSettings.
            super().__init__(**known)
        except ValidationError as error:
            faults += [_fault(sources, detail) for detail in error.errors(include_url=False)]
        if faults:
            raise ConfigError("\n".join(faults))
        self._config_file = os.fsdecode(config_file) if config_file else None

    @classmethod
    def load(cls, path: str | os.PathLike[str], **sections: Any) -> Config:
        """The configuration of this file, under environment and arguments. Raises ConfigError."""
        return cls(config_file=path, **sections)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `__init__` hands over: it merges the sources itself, since it must know who set a wrong value."""
        return (init_settings,)

    @field_validator("tls")
    @classmethod
    def _federation_needs_certificates(cls, tls: Tls, info: ValidationInfo) -> Tls:
        enabled = [key for key in ("hub", "client") if key in info.data and info.data[key].enabled]
        if enabled and not (tls.cert and tls.key and tls.ca):
            raise ValueError(f"cert, key and ca are needed while {enabled[0]}.enabled is true (see keyop keygen)")
        return tls

    @property
    def explicit(self) -> frozenset[str]:
        """The dotted keys that file, environment or arguments set."""
        keys = {f"{name}.{key}" for name in SECTIONS for key in getattr(self, name).model_fields_set}
        return frozenset(keys | ({"name"} & self.model_fields_set))

    def to_settings(self) -> Settings:
        """The plain values that processes work with."""
        hub = _plain(
            HubSettings, self.hub, allowed_peers=tuple(_plain(PeerSettings, p) for p in self.hub.allowed_peers)
        )
        client = _plain(ClientSettings, self.client, hubs=tuple(_plain(HubReference, h) for h in self.client.hubs))
        others = {
            key: _plain(kind, getattr(self, key)) for key, kind in SECTIONS.items() if key not in ("hub", "client")
        }
        return Settings(
            name=self.name or None,
            hub=hub,
            client=client,
            **others,
            explicit=self.explicit,
            config_file=self._config_file,
        )


_T = TypeVar("_T")


def _plain(kind: type[_T], section: BaseModel, **lists: Any) -> _T:
    return kind(**{key: getattr(section, key) for key in type(section).model_fields} | lists)


class _Source(Protocol):
    """One of the three places that values come from."""

    values: dict[str, Any]

    def place(self, at: _Place) -> str:
        """How a message calls the place of this value."""


class _Arguments:
    """What the caller passes."""

    def __init__(self, sections: Mapping[str, Any]) -> None:
        self.values = _without_nulls(sections)

    def place(self, at: _Place) -> str:
        return "argument"


class _Environment:
    """``KEYOP_SECTION__KEY``, and ``KEYOP_DATA_DIR`` for short. An empty variable counts as not set."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.values: dict[str, Any] = {}
        self._names: dict[_Place, str] = {}
        for name in sorted(environment):
            if name.startswith(ENVIRONMENT_PREFIX) and name != CONFIG_VARIABLE and environment[name]:
                self._take(name, environment[name])
        # Last, so that it goes before the long name of the same key.
        if environment.get(DATA_DIR_VARIABLE):
            self._set(DATA_DIR_VARIABLE, ("storage", "data_dir"), environment[DATA_DIR_VARIABLE])

    def place(self, at: _Place) -> str:
        return next((name for key, name in self._names.items() if key[: len(at)] == at[: len(key)]), "environment")

    def _take(self, name: str, text: str) -> None:
        section, has_key, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        if section in SECTIONS and has_key:
            self._set(name, (section, key), text if _is_text(f"{section}.{key}") else _yaml_value(text))
        elif has_key:
            self._set(name, (f"{section}.{key}",), text)  # an unknown key, which is reported as such
        elif section == "name":
            self._set(name, ("name",), text)
        elif name != DATA_DIR_VARIABLE:
            _warn_of_variable(name)

    def _set(self, name: str, at: tuple[str, ...], value: Any) -> None:
        holder = self.values if len(at) == 1 else self.values.setdefault(at[0], {})
        holder[at[-1]] = value
        self._names[at] = name


def _is_text(key: str) -> bool:
    """Whether the key holds text, which must not be read as a number or a truth value."""
    return key in _KEYS and _KEYS[key].annotation is str


def _yaml_value(text: str) -> Any:
    try:
        return _without_nulls(yaml.load(text, _Loader))
    except _YAML_FAULTS:
        return text  # the check of the key will say what is wrong with it


def _warn_of_variable(name: str) -> None:
    """A variable without ``__`` may belong to somebody else: only what looks like a slip is worth a word."""
    meant = difflib.get_close_matches(name, [CONFIG_VARIABLE, *map(_variable, _KEYS)], 1, 0.85)
    if meant:
        _log.warning("%s is not read; did you mean %s?", name, meant[0])


def _variable(key: str) -> str:
    return DATA_DIR_VARIABLE if key == "storage.data_dir" else ENVIRONMENT_PREFIX + key.replace(".", "__").upper()


class _File:
    """A YAML file. Raises ConfigError if it cannot be read, has a syntax error, or holds no mapping."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fsdecode(path)
        try:
            with open(self.path, "rb") as file:
                loader = _Loader(file)
                root = loader.get_single_node()
                document = None if root is None else _without_nulls(loader.construct_document(root))
            self._lines = dict(_lines_of(root, ()))
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be read: {error.strerror}") from error
        except _YAML_FAULTS as error:
            raise ConfigError(_syntax_fault(self.path, error)) from error
        if root is None:
            raise ConfigError(f"{self.path}: is empty; at least storage.data_dir is needed")
        if not isinstance(document, dict):
            raise ConfigError(f"{self.place(())}: must hold sections, such as 'storage:', not {_shown(document)}")
        self.values: dict[str, Any] = document
        self._read_old_keys()

    def place(self, at: _Place) -> str:
        while at and at not in self._lines:
            at = at[:-1]
        return f"{self.path}:{self._lines.get(at, 1)}"

    def _read_old_keys(self) -> None:
        for key, advice in _OLD_KEYS.items():
            name, _, old = key.partition(".")
            section = self.values.get(name)
            if not isinstance(section, dict) or old not in section:
                continue
            if key != _SYNC_POLICY:
                text = "%s: %s is a key of other releases and has no effect: %s"
                _log.warning(text, self.place((name, old)), key, advice)
                del section[old]
            elif str(section[old]) in _SYNC_POLICIES_MS:
                self._read_sync_policy(section)

    def _read_sync_policy(self, storage: dict[str, Any]) -> None:
        """Where both are set, the key of today counts."""
        old, new = ("storage", "sync_policy"), ("storage", "sync_interval_ms")
        policy = storage.pop("sync_policy")
        if not storage.get("sync_interval_ms"):
            storage["sync_interval_ms"] = _SYNC_POLICIES_MS[policy]
            self._lines[new] = self._lines[old]
        text = "%s: storage.sync_policy is a key of older releases; instead of %r write storage.sync_interval_ms: %s"
        _log.warning(text, self.place(old), policy, storage["sync_interval_ms"])


_SYNC_POLICY = "storage.sync_policy"
_SYNC_POLICIES_MS = {"always": 0, "periodic": 200, "none": 60_000}
"""What it could be until Go 0.14, as ``storage.sync_interval_ms``."""

_OLD_KEYS = {
    _SYNC_POLICY: "use storage.sync_interval_ms (always: 0, periodic: 200, none: 60000)",
    "storage.max_subscriber_lag_mb": "it only warned; `keyop subscribers` shows how far each one is behind",
    "storage.max_channel_size_mb": "use storage.max_files",
    "tls.min_version": "nothing replaces it, TLS 1.3 is always used",
    "hub.allowed_clients": "use hub.allowed_peers; these clients are not let in",
    "hub.peer_hubs": "use hub.allowed_peers, and client.hubs at the other end",
    "federation.send_buffer_messages": "nothing replaces it, what waits for a hub stands in the segments",
}
"""Keys of other releases of the Go program, and what to do instead."""


_YAML_FAULTS = (yaml.YAMLError, ValueError, LookupError, RecursionError)
"""What PyYAML raises, with a value like ``!!bool maybe`` or a list that contains itself."""


class _Loader(yaml.SafeLoader):
    """Safe, as Go's reader in what it refuses, and keys are text: ``on:`` is the key `on`."""

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(None, None, "must hold keys and values", node.start_mark)
        _refuse_repeated(node)
        self.flatten_mapping(node)  # after the look for repeated keys: those beside `<<` may repeat what it brings
        if not all(isinstance(key, yaml.ScalarNode) for key, _ in node.value):
            raise yaml.constructor.ConstructorError(None, None, "a key must be text", node.start_mark)
        return {key.value: self.construct_object(value, deep) for key, value in node.value}


def _refuse_repeated(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands here twice", key.start_mark)
        seen.add(str(key.value))


def _date(loader: _Loader, node: yaml.ScalarNode) -> Any:
    """A date stays text, as in Go where text is expected; PyYAML fails with an AttributeError on some."""
    return loader.construct_scalar(node)


_Loader.add_constructor("tag:yaml.org,2002:timestamp", _date)


def _lines_of(node: yaml.Node | None, at: _Place) -> Iterator[tuple[_Place, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*at, key.value), key.start_mark.line + 1
            yield from _lines_of(value, (*at, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*at, index), value.start_mark.line + 1
            yield from _lines_of(value, (*at, index))


def _syntax_fault(path: str, error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"{path}:{mark.line + 1}" if mark else path
    problem = getattr(error, "problem", None) or (str(error) or type(error).__name__).partition("\n")[0]
    return f"{place}: is not YAML that can be read: {problem}"


def _without_nulls(value: Any) -> Any:
    """A copy in which a key without a value is missing."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_without_nulls(item) for item in value]
    return value


def _merged(sources: Sequence[_Source]) -> dict[str, Any]:
    """The values of all sources, key by key; of a key, and of a list, the first source's counts."""
    merged: dict[str, Any] = {"storage": {}}
    for source in reversed(sources):
        for name, section in source.values.items():
            below = merged.get(name)
            both = isinstance(below, dict) and isinstance(section, dict)
            merged[name] = {**below, **section} if both and below is not None else section
    return merged


def _keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield prefix + name, field
        entries = get_args(field.annotation)
        below, dot = (entries[0], "[].") if entries else (field.annotation, ".")
        if isinstance(below, type) and issubclass(below, BaseModel):
            yield from _keys_of(below, prefix + name + dot)


_KEYS = dict(_keys_of(Config))
"""Every section and key, dotted; those of a list's entries like ``hub.allowed_peers[].name``."""

_RULES = {
    "int_type": "must be a whole number, without quotes",
    "float_type": "must be a number, without quotes",
    "bool_type": "must be true or false, without quotes",
    "string_type": "must be text; put it in quotes",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "tuple_type": "must be a list",
    "model_type": "must hold keys and their values",
    "finite_number": "must be a finite number",
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
}
"""What is allowed, by pydantic's name for the fault."""


def _fault(sources: Sequence[_Source], detail: ErrorDetails) -> str:
    at, kind, context = detail["loc"], detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(sources, at)
    if kind == "missing":
        return f"{_place(sources, at)}: {_dotted(at)} is not set" + _WHERE_TO_SET.get(_dotted(at), "")
    # Our own checks say themselves what is allowed.
    rule = str(context["error"]) if kind == "value_error" else _RULES.get(kind, detail["msg"]).format(**context)
    value = f" = {_shown(detail['input'])}" if any(_holds(source, at) for source in sources) else ""
    return f"{_place(sources, at)}: {_dotted(at)}{value}: {rule}"


_WHERE_TO_SET = {
    "storage.data_dir": f": name a data directory, set {DATA_DIR_VARIABLE}, or set {CONFIG_VARIABLE} to a YAML file"
}


def _unknown_key(sources: Sequence[_Source], at: _Place) -> str:
    key = _dotted(at)
    if key in _OLD_KEYS:
        return f"{_place(sources, at)}: {key} is a key of older releases: {_OLD_KEYS[key]}"
    return f"{_place(sources, at)}: {key} is not a key; the nearest one is {_nearest(at)}"


def _nearest(at: _Place) -> str:
    parent, _, leaf = "".join("[]" if isinstance(part, int) else f".{part}" for part in at)[1:].rpartition(".")

    def likeness(known: str) -> float:
        known_parent, _, known_leaf = known.rpartition(".")
        # The key's own name says more than the section: many a key stands in the wrong one.
        return _similarity(leaf, known_leaf) + 0.4 * _similarity(parent, known_parent)

    return max(_KEYS, key=likeness)


def _similarity(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _dotted(at: _Place) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at)[1:]


def _place(sources: Sequence[_Source], at: _Place) -> str:
    """Where the value was set; of a missing one, the file's section that it is missing in."""
    for source in sources:
        if _holds(source, at):
            return source.place(at)
    file = sources[-1]
    return file.place(at) if isinstance(file, _File) else "configuration"


def _holds(source: _Source, at: _Place) -> bool:
    value: Any = source.values
    for part in at:
        if not isinstance(value, dict):
            return True  # the rest lies within a list, which a source sets whole
        if part not in value:
            return False
        value = value[part]
    return True


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text):,} characters)"
