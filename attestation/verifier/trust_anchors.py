"""The operator's certificate files: roots and intermediates, read once, and revocation lists, which are followed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from attestation.errors import CertificateError
from attestation.pki.certificates import Certificate, parse_certificate, parse_certificates
from attestation.pki.crl import RevocationList, parse_crl
from attestation.pki.roots import TrustAnchors, amd_trust_anchors
from attestation.verifier.configuration import Certificates
from server.yaml.strict import ConfigurationError, Loaded

T = TypeVar("T")
_MAX_FILE_SIZE = 1 << 20


def load_trust_anchors(configured: Certificates) -> TrustAnchors:
    """Roots by product line. Raises ConfigurationError, also for a root that differs from its pinned digest."""
    anchors = amd_trust_anchors(_read_all(configured.roots, parse_certificates))
    wrong = [
        f"certificates.roots: {certificate.subject_name} has SHA-256 {certificate.sha256}, pinned {anchors.pins[line]}"
        for line, certificate in anchors.certificates.items()
        if certificate.sha256 != anchors.pins[line]
    ]
    if wrong:
        raise ConfigurationError(wrong)
    if configured.simulatedRoot is None:
        return anchors
    try:
        return anchors.with_simulated(parse_certificate(_read(configured.simulatedRoot)))
    except CertificateError as error:
        raise ConfigurationError([f"{configured.simulatedRoot}: {error}"]) from None


def load_intermediates(configured: Certificates) -> tuple[Certificate, ...]:
    """ASKs and ASVKs. AMD serves issuer and root in one file, so the roots' files are looked into as well."""
    found = _read_all((*configured.intermediates, *configured.roots), parse_certificates)
    return tuple(certificate for certificate in found if certificate.subject != certificate.issuer)


def load_crls(configured: Certificates) -> Loaded[tuple[RevocationList, ...]]:
    """Revocation lists."""
    lists = (
        *_read_all(configured.crls, lambda data: (parse_crl(data),)),
        *_read_all(configured.vlekCrls, lambda data: (parse_crl(data, for_vleks=True),)),
    )
    return Loaded(lists, hashlib.sha256(b"".join(bytes([each.for_vleks]) + each.der for each in lists)).hexdigest())


def crl_files(configured: Certificates) -> list[Path]:
    """The paths that a watch has to look at."""
    paths = (*configured.crls, *configured.vlekCrls)
    return [*paths, *(file for path in paths for file in _files(path))]


def _read_all(paths: Iterable[Path], parse: Callable[[bytes], tuple[T, ...]]) -> list[T]:
    found: list[T] = []
    for path in paths:
        for file in _files(path):
            try:
                found += parse(_read(file))
            except CertificateError as error:
                raise ConfigurationError([f"{file}: {error}"]) from None
    return found


def _files(path: Path) -> list[Path]:
    return sorted(each for each in path.iterdir() if each.name[0] != ".") if path.is_dir() else [path]


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE_SIZE)
    except OSError as error:
        raise ConfigurationError([f"{path}: cannot be read: {error.strerror}"]) from None
