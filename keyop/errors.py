"""Every exception that keyop raises, in one file.

KeyopError
├── AppError                        an app declares what cannot be, or cannot be loaded
├── CertificateError                a certificate or key file cannot be used
├── ConfigError                     a configuration key or value is wrong
├── ClosedError                     the messenger was closed
├── DataDirectoryError              the data directory cannot be used
├── FederationError                 a hub or client process could not be started
│   └── FederationBusy              one runs on this data directory already
├── NameRuleError (ValueError)
│   ├── ChannelNameError            not a channel name
│   │   └── ReservedChannelError    .dead-letter and .replay are written by keyop alone
│   └── SubscriberIdError           not a subscriber id
├── PayloadError (ValueError)       not JSON
│   ├── MessageTooLarge             the envelope is over storage.max_message_bytes
│   └── PayloadTypeError            a payload class or type name is unknown, or registered twice
├── PeerRefused                     the other end's certificate is none that may be there
├── PublishError
│   ├── ConnectionLost              an ephemeral publish: the hub may have it or not
│   ├── HubRefused                  an ephemeral publish: the hub does not let this client in
│   ├── PublishTimeout              not committed yet; it may still be
│   ├── PublishRefused              the writer refused the transaction: nothing of it was written
│   └── AtomicError                 a misuse of atomic() or of publish in an exactly-once handler
├── SubscribeError
│   ├── SubscriberBusy              another live process holds this subscriber id
│   └── OffsetDamaged               an exactly-once subscriber's offset file fails its check
└── WriterError
    ├── WriterUnavailable           no writer answers, and none could be started
    ├── WriterBusy                  another writer runs on this data directory
    └── SharedMemoryError           /dev/shm is full, or an object in it is not ours

RetryLater is not an error: a handler raises it to have its message again later.
"""

from __future__ import annotations


class KeyopError(Exception):
    """The root of all errors of this package."""


class AppError(KeyopError):
    """An app declares something twice or wrongly, cannot be loaded, or is used before it is attached."""


class CertificateError(KeyopError):
    """A file of a certificate or key cannot be used: damaged, encrypted, no CA, ... The text names the file."""


class ConfigError(KeyopError):
    """A configuration file, environment variable or argument is wrong. The text names the key and the value."""


class ClosedError(KeyopError):
    """The messenger was closed; make a new one."""


class DataDirectoryError(KeyopError):
    """The data directory cannot be used: not a directory, not writable, on a network file system, ..."""


class NameRuleError(KeyopError, ValueError):
    """A name breaks the rules that make it safe as part of a file's path."""


class ChannelNameError(NameRuleError):
    """Not a channel name: 1 to 200 of ``A-Z a-z 0-9 . _ -``, not starting with a dot."""


class ReservedChannelError(ChannelNameError):
    """Channels that end in ``.dead-letter`` or ``.replay`` are written by keyop alone; subscribing is allowed."""


class SubscriberIdError(NameRuleError):
    """Not a subscriber id: the rule of channel names, and not beginning with ``fed-`` or ``fedout-``."""


class PayloadError(KeyopError, ValueError):
    """The payload is not JSON: an object of an unknown class, NaN, infinity, a lone surrogate, ..."""


class MessageTooLarge(PayloadError):
    """The whole envelope is longer than ``storage.max_message_bytes``."""


class PayloadTypeError(PayloadError):
    """A payload class or type name is not registered, or registered twice."""


class FederationError(KeyopError):
    """A hub or client process could not be started, or did not get ready."""


class FederationBusy(FederationError):
    """A hub (or a client) process runs on this data directory already; there is one of each at most."""


class PeerRefused(KeyopError):
    """The certificate of the other end was signed by our CA and still may not be there. The text says why."""


class PublishError(KeyopError):
    """A publish did not succeed."""


class ConnectionLost(PublishError):
    """The connection went while the message was under way: the hub may have it or not. Publish again with care."""


class HubRefused(PublishError):
    """The hub does not let this client in, or is not the one it should be: trying again changes nothing."""


class PublishTimeout(PublishError, TimeoutError):
    """The time limit passed before the message was known to be committed. It may still be committed."""


class PublishRefused(PublishError):
    """The writer refused the transaction; nothing of it was written. The text says why."""


class AtomicError(PublishError):
    """``atomic()`` was nested, used inside an exactly-once handler, or published to from elsewhere."""


class SubscribeError(KeyopError):
    """A subscription could not be opened."""


class SubscriberBusy(SubscribeError):
    """A live process already handles this channel under this subscriber id; choose another id, or stop that one."""


class OffsetDamaged(SubscribeError):
    """The offset file of an exactly-once subscriber fails its check; write into it where to go on."""


class WriterError(KeyopError):
    """Something is wrong with the writer process or the memory shared with it."""


class WriterUnavailable(WriterError):
    """No writer process answers, and none could be started. The text says what was tried."""


class SupervisorUnavailable(KeyopError):
    """No `keyop up` answers for this data directory."""


class WriterBusy(WriterError):
    """Another writer process runs on this data directory."""


class SharedMemoryError(WriterError):
    """Shared memory is full or unusable. The text names the object and the way out."""


class RetryLater(Exception):
    """Raise this in a handler to have the same message again later, without using up a retry."""
