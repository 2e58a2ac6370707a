"""`morphisms certificates`: a small CA in a folder, for servers that no cert-manager looks after."""

from __future__ import annotations

import argparse
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from certs.authority import issue_leaf, make_authority
from certs.chain import is_authority
from certs.pem import Pair, read_certificates, read_pair
from certs.periods import Periods
from cli.support.whole_file import write_whole
from server.files import UnusableInputError, read_bounded
from server.text import printable

HELP = "make a CA once, and issue certificates by it, such as the verifier's"
EXAMPLE = "morphisms certificates issue --ca-dir ca --name morphisms-verifier.morphisms-kms.svc --out tls"

_MAX_DAYS: Final = 825
_NAME: Final = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's own commands and their options."""
    commands = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    issue = commands.add_parser("issue", help="issue a certificate, and make the CA first where the folder has none")
    issue.add_argument("--ca-dir", type=Path, required=True, metavar="DIR", help="the CA: ca.crt, ca.key; keep it safe")
    issue.add_argument(
        "--name",
        type=_name,
        action="append",
        required=True,
        metavar="NAME",
        help="DNS name or address; may be repeated",
    )
    issue.add_argument("--out", type=Path, required=True, metavar="DIR", help="gets tls.crt, tls.key, ca.crt")
    issue.add_argument("--days", type=_days, default=90, metavar="N", help="lifetime; default %(default)s")
    show = commands.add_parser("show", help="print the certificates in a file")
    show.add_argument("file", type=Path, metavar="FILE")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0. Raises UnusableInputError for files that cannot be used."""
    if arguments.what == "show":
        _show(arguments.file)
        return 0
    now = datetime.now(UTC).replace(microsecond=0)
    authority = _authority(arguments.ca_dir, now)
    leaf = issue_leaf(authority, arguments.name, now, Periods(leaf=timedelta(days=arguments.days)))
    _make_folder(arguments.out, 0o700)
    write_whole(arguments.out / "tls.key", leaf.key_pem, 0o400)
    write_whole(arguments.out / "tls.crt", leaf.certificate_pem, 0o600)
    write_whole(arguments.out / "ca.crt", authority.certificate_pem, 0o600)
    print(f"{arguments.out}: tls.crt, tls.key, ca.crt; expires {leaf.certificate.not_valid_after_utc:%Y-%m-%d}")
    return 0


def _authority(folder: Path, now: datetime) -> Pair:
    certificate, key = folder / "ca.crt", folder / "ca.key"
    if not certificate.exists() and not key.exists():
        made = make_authority(now, Periods())
        _make_folder(folder, 0o700)
        write_whole(key, made.key_pem, 0o400)
        write_whole(certificate, made.certificate_pem, 0o600)
        print(f"{folder}: ca.crt, ca.key; expires {made.certificate.not_valid_after_utc:%Y-%m-%d}")
        return made
    pair = read_pair(read_bounded(certificate), read_bounded(key))
    if pair is None:
        raise UnusableInputError(f"{folder}: ca.crt and ca.key are not a pair; nothing was written")
    if not is_authority(pair, now):
        raise UnusableInputError(f"{folder}: ca.crt is not a CA's certificate, or has expired; nothing was written")
    return pair


def _show(file: Path) -> None:
    certificates = read_certificates(read_bounded(file))
    if not certificates:
        raise UnusableInputError(f"{file}: no certificates in it")
    for certificate in certificates:
        names: list[str] = []
        with suppress(x509.ExtensionNotFound):
            found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            names = [str(name.value) for name in found]
        print(f"subject  {printable(certificate.subject.rfc4514_string())}")
        print(f"issuer   {printable(certificate.issuer.rfc4514_string())}")
        print(f"names    {printable(', '.join(names)) or '-'}")
        print(f"valid    {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} to {_end(certificate)} UTC")
        print(f"SHA-256  {certificate.fingerprint(hashes.SHA256()).hex()}")


def _end(certificate: x509.Certificate) -> str:
    return f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M}"


def _make_folder(path: Path, mode: int) -> None:
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise UnusableInputError(f"{path}: cannot be made: {error.strerror}") from None


def _name(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        pass
    if len(text) > 253 or not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError("expected a DNS name in lower case, or an IP address")
    return text


def _days(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= _MAX_DAYS:
        raise argparse.ArgumentTypeError(f"expected a number of days from 1 to {_MAX_DAYS}")
    return int(text)
