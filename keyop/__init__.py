"""keyop: durable publish/subscribe between processes and between hosts, without a broker.

    from keyop import Messenger

    with Messenger("./data") as m:
        m.publish("greetings", {"text": "hello"}, payload_type="com.example.greeting.v1")

The same for asyncio is `keyop.aio.Messenger`. Everything here is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyop.version import __version__

if TYPE_CHECKING:
    from keyop.app import App
    from keyop.config import Config
    from keyop.ephemeral import EphemeralMessenger
    from keyop.errors import (
        AppError,
        AtomicError,
        CertificateError,
        ChannelNameError,
        ClosedError,
        ConfigError,
        ConnectionLost,
        DataDirectoryError,
        FederationBusy,
        FederationError,
        HubRefused,
        KeyopError,
        MessageTooLarge,
        NameRuleError,
        OffsetDamaged,
        PayloadError,
        PayloadTypeError,
        PeerRefused,
        PublishError,
        PublishRefused,
        PublishTimeout,
        ReservedChannelError,
        RetryLater,
        SharedMemoryError,
        SubscribeError,
        SubscriberBusy,
        SubscriberIdError,
        WriterBusy,
        WriterError,
        WriterUnavailable,
    )
    from keyop.inspection.following import follow
    from keyop.messages.message import Message
    from keyop.messenger import Messenger, Transaction
    from keyop.publishing.publish_context import context
    from keyop.statistics import Statistics

__all__ = [
    "App",
    "AppError",
    "AtomicError",
    "CertificateError",
    "ChannelNameError",
    "ClosedError",
    "Config",
    "ConfigError",
    "ConnectionLost",
    "DataDirectoryError",
    "EphemeralMessenger",
    "FederationBusy",
    "FederationError",
    "HubRefused",
    "KeyopError",
    "Message",
    "MessageTooLarge",
    "Messenger",
    "NameRuleError",
    "OffsetDamaged",
    "PayloadError",
    "PayloadTypeError",
    "PeerRefused",
    "PublishError",
    "PublishRefused",
    "PublishTimeout",
    "ReservedChannelError",
    "RetryLater",
    "SharedMemoryError",
    "Statistics",
    "SubscribeError",
    "SubscriberBusy",
    "SubscriberIdError",
    "Transaction",
    "WriterBusy",
    "WriterError",
    "WriterUnavailable",
    "__version__",
    "context",
    "follow",
]

_HOMES = {
    "App": "keyop.app",
    "Config": "keyop.config",
    "EphemeralMessenger": "keyop.ephemeral",
    "Message": "keyop.messages.message",
    "Messenger": "keyop.messenger",
    "Statistics": "keyop.statistics",
    "Transaction": "keyop.messenger",
    "context": "keyop.publishing.publish_context",
    "follow": "keyop.inspection.following",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module 'keyop' has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "keyop.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
