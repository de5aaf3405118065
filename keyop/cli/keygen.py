"""``keyop keygen``."""

from __future__ import annotations

import importlib.util
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from datetime import datetime

    from keyop.federation.authority import Pair
    from keyop.federation.certificates import Certificate

_days = click.option(
    "--days", type=click.IntRange(1, 36_500), default=730, show_default=True, help="How long it is valid from now."
)
_force = click.option("--force", is_flag=True, help="Replace files that are there.")
_file = click.Path(dir_okay=False, path_type=Path)
_SAME_DAY = timedelta(days=1)


@click.group("keygen")
def command() -> None:
    """Make certificates for hubs and clients, and say what is in one.

    One CA for all hosts, and a pair of certificate and key for each instance. An instance's name is who it is to the
    others: the hub's list of allowed peers speaks of that name. The CA's key signs new instances; it stays where they
    are made. Each instance gets its own pair, and ca.crt.

    \b
    Examples:
      keyop keygen ca
      keyop keygen instance --ca ca.crt --ca-key ca.key --name hub1 --san hub.example --san 192.168.1.5
      keyop keygen instance --ca ca.crt --ca-key ca.key --name garage --role client
      keyop keygen inspect garage.crt
    """
    if importlib.util.find_spec("cryptography") is None:
        raise click.ClickException(
            "keygen needs the package cryptography (pip install cryptography); or make the certificates on another host"
        )


@command.command("ca")
@click.option("--out-cert", type=_file, default="ca.crt", show_default=True, help="File for the certificate.")
@click.option("--out-key", type=_file, default="ca.key", show_default=True, help="File for the key.")
@_days
@_force
def ca(out_cert: Path, out_key: Path, days: int, force: bool) -> None:
    """Make a CA: what signs the certificates of all instances.

    \b
    Examples:
      keyop keygen ca
      keyop keygen ca --out-cert /etc/keyop/ca.crt --out-key ~/keyop-ca.key --days 3650
    """
    _check_outputs(out_cert, out_key, force)
    from keyop.federation.authority import Authority

    _put(Authority.make(days), out_cert, out_key, force)


@command.command("instance")
@click.option("--ca", required=True, type=_file, help="The CA's certificate.")
@click.option("--ca-key", required=True, type=_file, help="The CA's key.")
@click.option("--name", required=True, help="The instance's name, which other instances know it by.")
@click.option("--san", "sans", multiple=True, metavar="HOST", help="A host name or address it is dialled by; several.")
@click.option(
    "--role",
    type=click.Choice(["hub", "client", "both"]),
    default="both",
    show_default=True,
    help="What it may be to others.",
)
@click.option("--out-cert", type=_file, help="File for the certificate.  [default: NAME.crt]")
@click.option("--out-key", type=_file, help="File for the key.  [default: NAME.key]")
@_days
@_force
def instance(
    ca: Path,
    ca_key: Path,
    name: str,
    sans: tuple[str, ...],
    role: Literal["hub", "client", "both"],
    out_cert: Path | None,
    out_key: Path | None,
    days: int,
    force: bool,
) -> None:
    """Make an instance's certificate and key.

    The name is always a SAN of the certificate. Others (--san) matter to clients that check the host name of a hub:
    those with verify_hostname, and Go clients up to 1.10.

    \b
    Examples:
      keyop keygen instance --ca ca.crt --ca-key ca.key --name hub1 --san hub.example --san 192.168.1.5
      keyop keygen instance --ca ca.crt --ca-key ca.key --name garage --role client --out-cert g.crt --out-key g.key
    """
    if "/" in name and (out_cert is None or out_key is None):
        raise click.UsageError(f"the name {name!r} cannot be a file's name: give --out-cert and --out-key")
    out_cert, out_key = out_cert or Path(f"{name}.crt"), out_key or Path(f"{name}.key")
    _check_outputs(out_cert, out_key, force, ca, ca_key)
    from keyop.errors import CertificateError
    from keyop.federation import pem
    from keyop.federation.authority import Authority
    from keyop.federation.certificates import timestamp

    for path in (ca, ca_key):
        if not path.exists():
            way = "`keyop keygen ca` makes a CA, once for all hosts"
            raise CertificateError(f"{path}: No such file or directory; {way}")
    authority = Authority.read(str(ca), str(ca_key))
    _warn(pem.open_to_others(str(ca_key)))
    pair = authority.issue(name, sans, role, days)
    _put(pair, out_cert, out_key, force)
    # A CA that was made some minutes ago, with as many days, ends those minutes earlier.
    if authority.valid_until + _SAME_DAY < pair.certificate.valid_until:
        _warn(f"{ca}: the CA expires before that, at {timestamp(authority.valid_until)}, and with it this certificate")


@command.command("inspect", short_help="Say what the certificates in FILE say.")
@click.argument("file", type=_file)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def inspect(file: Path, as_json: bool) -> None:
    """Say what the certificates in FILE say: name, validity, SANs, usage, fingerprint.

    \b
    Examples:
      keyop keygen inspect hub1.crt
      keyop keygen inspect hub1.crt --json | jq -r '.[0].valid_until'
    """
    from keyop.federation import certificates

    found = certificates.inspect(str(file))
    if as_json:
        import json

        print(json.dumps([_as_json(certificate) for certificate in found]))
        return
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    print("\n\n".join("\n".join(_labelled(certificate, now)) for certificate in found))


def _check_outputs(out_cert: Path, out_key: Path, force: bool, *inputs: Path) -> None:
    """Before anything is made: where the two go, and that they take nothing away."""
    from keyop.federation.new_files import refuse_existing

    taken = {path.resolve() for path in inputs}
    if out_cert.resolve() == out_key.resolve():
        raise click.UsageError("--out-cert and --out-key name the same file")
    for path in (out_cert, out_key):
        if path.resolve() in taken:
            raise click.UsageError(f"{path} is a file of the CA, and would be overwritten")
    if not force:
        refuse_existing(out_cert, out_key)


def _put(pair: Pair, out_cert: Path, out_key: Path, force: bool) -> None:
    from keyop.federation import pem
    from keyop.federation.certificates import timestamp
    from keyop.federation.new_files import put

    put([(out_key, pair.key_pem), (out_cert, pair.certificate_pem)], force=force)
    certificate = pair.certificate
    print(f"Subject:     {certificate.subject}")
    print(f"Valid from:  {timestamp(certificate.valid_from)}")
    print(f"Valid until: {timestamp(certificate.valid_until)}")
    print(f"Fingerprint: SHA-256:{certificate.fingerprint}")
    click.echo(f"keyop: wrote {out_cert} and {out_key}", err=True)
    _warn(pem.open_to_others(str(out_key)))


def _warn(text: str | None) -> None:
    if text is not None:
        click.echo(f"keyop: {text}", err=True)


def _labelled(certificate: Certificate, now: datetime) -> list[str]:
    from keyop.federation.certificates import timestamp

    lines = [
        ("Subject CN:", certificate.subject_cn),
        ("Subject:", certificate.subject),
        ("Issuer CN:", certificate.issuer_cn),
        ("DNS SANs:", ", ".join(certificate.dns_names)),
        ("IP SANs:", ", ".join(certificate.ip_addresses)),
        ("Valid from:", timestamp(certificate.valid_from) + (" (NOT YET)" if certificate.valid_from > now else "")),
        ("Valid until:", f"{timestamp(certificate.valid_until)} ({_remaining(certificate.valid_until, now)})"),
        ("Is CA:", str(certificate.is_ca).lower()),
        ("Ext key usage:", ", ".join(certificate.ext_key_usage)),
        ("Serial:", str(certificate.serial)),
        ("Fingerprint:", f"SHA-256:{certificate.fingerprint}"),
    ]
    optional = ("DNS SANs:", "IP SANs:", "Ext key usage:")
    shown = [(label, value if value.isprintable() else repr(value)) for label, value in lines]
    return [f"{label:<15}{value}".rstrip() for label, value in shown if value or label not in optional]


def _remaining(until: datetime, now: datetime) -> str:
    seconds = int((until - now).total_seconds())
    return f"expires in {_length(seconds)}" if seconds > 0 else f"EXPIRED {_length(-seconds)} ago"


def _length(seconds: int) -> str:
    if seconds >= 86_400:
        return f"{seconds // 86_400} day(s)"
    return f"{seconds // 3600}h{seconds // 60 % 60}m{seconds % 60}s"


def _as_json(certificate: Certificate) -> dict[str, Any]:
    from dataclasses import asdict

    from keyop.federation.certificates import timestamp

    times = {
        "valid_from": timestamp(certificate.valid_from),
        "valid_until": timestamp(certificate.valid_until),
    }
    return asdict(certificate) | times | {"serial": str(certificate.serial)}
