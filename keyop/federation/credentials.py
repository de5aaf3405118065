"""What this instance shows to others: certificate, key and CA from the files of section ``tls``, which may change.

They are tried before they are used: a handshake with ourselves, in memory, under the rules that a peer will apply. So a
wrong file is an error with its name at the start, not a riddle in a peer's log.
"""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

from keyop.configuration.settings import TlsSettings
from keyop.errors import CertificateError, PeerRefused
from keyop.federation import identity, pem
from keyop.federation.identity import Role

_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME. Certificates that are not valid now are warned of: it may be the clock that is wrong, as
on a Pi that has not heard of the time yet."""

_NOT_OURS = {2, 7, 18, 19, 20, 21}
"""Codes of OpenSSL: no issuer, or a signature that is another's."""

_DAY_S = 86_400


class Credentials:
    """Certificate, key and CA of a hub or a client, and the contexts made of them.

    Raises `CertificateError`, with the file's name, for all that a peer would not accept but time: unreadable or
    damaged files, an encrypted key, one that belongs to another certificate, a CA that is none, a certificate that
    this CA has not signed, or that is not for this role.
    """

    def __init__(self, tls: TlsSettings, role: Role) -> None:
        self._tls = tls
        self._role = role
        self._loaded = _load(tls, role)
        self._front = identity.server_context()
        # A context cannot forget a CA. So each reload makes a new one, and each connection is handed over to the
        # newest as it begins; this is called for clients that name no server too.
        self._front.sni_callback = self._hand_over

    @property
    def name(self) -> str:
        """This instance's identity: the CN of its certificate."""
        return self._loaded.name

    @property
    def paths(self) -> tuple[str, ...]:
        """The files to watch."""
        return (self._tls.cert, self._tls.key, self._tls.ca)

    @property
    def server_context(self) -> ssl.SSLContext:
        """For a hub to listen with, once and for all: connections that begin after a reload see what it brought."""
        assert self._role == "hub"
        return self._front

    def client_context(self, *, verify_hostname: bool = False) -> ssl.SSLContext:
        """For a client's next connection; ask for it anew each time."""
        assert self._role == "client"
        return self._loaded.host_context if verify_hostname else self._loaded.context

    def reload(self) -> tuple[str, ...]:
        """Read the files again; those that have changed. Connections that stand are not touched.

        Raises `CertificateError`, also while somebody is still writing: then everything stays as it was. Warn, and
        call it again when a file changes, and a few seconds later in any case.
        """
        before = self._loaded
        if all(pem.read(path) == text for path, text in before.files.items()):
            return ()
        loaded = _load(self._tls, self._role)
        if loaded.name != before.name:
            raise CertificateError(
                f"{self._tls.cert}: is now the certificate of {loaded.name!r}; {before.name!r} goes on as it was until "
                "it is started again"
            )
        self._loaded = loaded
        return tuple(path for path, text in loaded.files.items() if before.files[path] != text)

    def warnings(self, now: float | None = None) -> list[str]:
        """What the owner should know now: certificates near their end, beyond it, or before their beginning, and a key
        that everybody may read. ``now`` is in seconds of the epoch."""
        now = time.time() if now is None else now
        said = [validity.warning(now, self._tls.expiry_warn_days) for validity in self._loaded.validities]
        return [text for text in (*said, pem.open_to_others(self._tls.key)) if text is not None]

    def _hand_over(self, connection: Any, _server_name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._loaded.context


@dataclass(frozen=True, slots=True)
class _Validity:
    what: str
    remedy: str
    begins: float
    ends: float

    def warning(self, now: float, days: int) -> str | None:
        if days < 0:
            return None
        if now < self.begins:
            return f"{self.what} is valid from {_timestamp(self.begins)} on; is the clock of this host right?"
        if now >= self.ends:
            return f"{self.what} expired at {_timestamp(self.ends)}; {self.remedy}"
        if self.ends - now < days * _DAY_S:
            left = int((self.ends - now) / _DAY_S)
            return f"{self.what} expires in {left} days, at {_timestamp(self.ends)}; {self.remedy}"
        return None


@dataclass(frozen=True, slots=True)
class _Loaded:
    files: dict[str, bytes]
    name: str
    context: ssl.SSLContext
    host_context: ssl.SSLContext
    validities: tuple[_Validity, ...]


def _load(tls: TlsSettings, role: Role) -> _Loaded:
    files = {path: pem.read(path) for path in (tls.cert, tls.key, tls.ca)}
    pem.certificates(tls.cert, files[tls.cert])
    pem.private_key(tls.key, files[tls.key])
    authorities = b"\n".join(pem.certificates(tls.ca, files[tls.ca])).decode("ascii")
    name, validities = _try(tls, role, authorities)
    context = identity.server_context() if role == "hub" else identity.client_context()
    host_context = context if role == "hub" else identity.client_context(verify_hostname=True)
    for one in {context, host_context}:
        _show(one, tls)
        _trust(one, tls, authorities)
    for path, text in files.items():
        # A context reads its files itself: what was tried may not be what is used.
        if pem.read(path) != text:
            raise CertificateError(f"{path}: has changed while it was read")
    return _Loaded(files, name, context, host_context, validities)


def _try(tls: TlsSettings, role: Role, authorities: str) -> tuple[str, tuple[_Validity, ...]]:
    """Shake hands with ourselves; our name, and how long the certificates are valid."""
    server, client = identity.server_context(), identity.client_context()
    ours, other = (server, client) if role == "hub" else (client, server)
    ours.check_hostname, ours.verify_mode = False, ssl.CERT_NONE
    other.verify_flags |= _NO_CHECK_TIME
    _show(server, tls)
    _show(client, tls)
    _trust(other, tls, authorities)
    try:
        seen = _shake_hands(server, client, server_asks=role == "client")
        name = identity.peer_name(seen)
    except ssl.SSLCertVerificationError as error:
        raise CertificateError(_unacceptable(error, tls, role)) from error
    except PeerRefused as error:
        raise CertificateError(f"{tls.cert}: no peer would accept it: {error}") from error
    except ssl.SSLError as error:
        raise CertificateError(f"{tls.cert}: cannot be used: {error.reason or error}") from error
    own = _validity(f"{tls.cert}: the certificate", "make a new one (keyop keygen instance)", seen.getpeercert() or {})
    remedy = "make a new CA (keyop keygen ca); both may stand in the file until all peers have new certificates"
    cas = [_validity(f"{tls.ca}: the CA", remedy, authority) for authority in other.get_ca_certs()]
    return name, (own, *cas)


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, *, server_asks: bool) -> ssl.SSLObject:
    """The end that asks for the other's certificate, as soon as it is satisfied."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    accepting = server.wrap_bio(to_server, to_client, server_side=True)
    dialling = client.wrap_bio(to_client, to_server)
    asking = accepting if server_asks else dialling
    for end in (dialling, accepting, dialling, accepting):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
        if end is asking:
            return end
    raise CertificateError("the handshake with ourselves came to no end")


def _show(context: ssl.SSLContext, tls: TlsSettings) -> None:
    def encrypted() -> NoReturn:
        # Without this OpenSSL would ask on the terminal.
        raise CertificateError(f"{tls.key}: the key is encrypted; `openssl pkey -in {tls.key}` decrypts it")

    try:
        context.load_cert_chain(tls.cert, tls.key, encrypted)
    except OSError as error:  # ssl.SSLError is one
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            raise CertificateError(f"{tls.key}: is not the key of {tls.cert}") from error
        why = (error.reason if isinstance(error, ssl.SSLError) else error.strerror) or error
        raise CertificateError(f"{tls.cert}, {tls.key}: cannot be used: {why}") from error


def _trust(context: ssl.SSLContext, tls: TlsSettings, authorities: str) -> None:
    try:
        context.load_verify_locations(cadata=authorities)
    except ssl.SSLError as error:
        raise CertificateError(f"{tls.ca}: a certificate in it cannot be read: {error.reason or error}") from error
    store = context.cert_store_stats()
    if store["x509"] != store["x509_ca"]:
        raise CertificateError(f"{tls.ca}: holds a certificate that is none of a CA")


def _unacceptable(error: ssl.SSLCertVerificationError, tls: TlsSettings, role: Role) -> str:
    if error.verify_code in _NOT_OURS:
        return f"{tls.cert}: was not signed by the CA in {tls.ca}"
    if error.verify_code == 26:  # X509_V_ERR_INVALID_PURPOSE
        return f"{tls.cert}: its key usages are not those of a {role}; keyop keygen instance has --role"
    return f"{tls.cert}: no peer would accept it: {error.verify_message}"


def _validity(what: str, remedy: str, certificate: dict[str, Any]) -> _Validity:
    begins, ends = (ssl.cert_time_to_seconds(certificate[key]) for key in ("notBefore", "notAfter"))
    return _Validity(what, remedy, begins, ends)


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
