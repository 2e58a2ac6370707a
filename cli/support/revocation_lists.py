"""Folders of certificates and revocation lists, as an operator keeps them."""

from __future__ import annotations

from pathlib import Path

from attestation.errors import CertificateError
from attestation.pki.certificates import parse_certificates
from attestation.pki.crl import RevocationList, parse_crl
from server.files import UnusableInputError, read_bounded


def files_of(folder: Path) -> list[tuple[Path, bytes]]:
    """Every file of a folder but the hidden ones, by name. Raises UnusableInputError."""
    if not folder.is_dir():
        raise UnusableInputError(f"{folder}: not a folder")
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return [(path, read_bounded(path)) for path in paths]


def read_crls(folder: Path | None, *, for_vleks: bool = False) -> list[RevocationList]:
    """All revocation lists of a folder, which may hold certificates too. Any other file is an error: it may matter."""
    found: list[RevocationList] = []
    for path, data in [] if folder is None else files_of(folder):
        try:
            found.append(parse_crl(data, for_vleks=for_vleks))
        except CertificateError as error:
            if not _is_certificate_file(data):
                raise UnusableInputError(f"{path}: {error}") from None
    return found


def _is_certificate_file(data: bytes) -> bool:
    try:
        return bool(parse_certificates(data))
    except CertificateError:
        return False
