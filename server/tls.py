"""The serving certificate: TLS 1.3, replaced while connections are open.

A listener keeps one front context, whose SNI callback gives each handshake the newest context. To load a new pair into
the live context was measured to fail when the key type changes: OpenSSL keeps one certificate per type, and after EC
then RSA it still serves the EC one. A new pair that does not match would also leave a broken context.
"""

import hashlib
import math
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.spki import spki_digest
from server.files import UnusableInputError, read_bounded
from server.watched import FileMetrics, Watched
from server.yaml.strict import ConfigurationError, Loaded


class ServingCertificateError(ConfigurationError):
    """A pair that the server cannot use: it is unreadable or incomplete, or its certificate and key do not match."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """PEM files: `chain`, the leaf first, and its unencrypted private `key`."""

    chain: Path
    key: Path
    interval: float = 2.0
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3


class ServingContext(ssl.SSLContext):
    """A server's context with its pair.

    `spki`: SHA-256 of the leaf's public key (SubjectPublicKeyInfo, DER). `not_after`: the leaf's end, Unix seconds.
    """

    spki: bytes = b""
    not_after: float = math.nan


def shown_spki(connection: ssl.SSLSocket | ssl.SSLObject | None) -> bytes:
    """`spki` of the certificate that this very connection's handshake showed; empty without TLS.

    It comes from the connection's own context: the newest pair may be another one already.
    """
    context = None if connection is None else connection.context
    return context.spki if isinstance(context, ServingContext) else b""


class Certificate:
    """The newest valid pair of two files. `front` is the context to listen with."""

    def __init__(self, files: CertificateFiles, metrics: FileMetrics) -> None:
        self._watched: Watched[ServingContext] = Watched(
            "certificate",
            read=lambda: _load(files),
            paths=lambda: [files.chain, files.key],
            metrics=metrics,
            interval=files.interval,
        )
        self.front = _context(files.minimum)
        self.front.sni_callback = self._choose

    async def watch(self) -> None:
        """Poll the files until cancelled."""
        await self._watched.watch()

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the chain file that is in use."""
        return self._watched.digest

    @property
    def not_after(self) -> float:
        """The end of the certificate in use, Unix seconds."""
        return self._watched.value.not_after

    # OpenSSL calls this per handshake, with or without a server name. An open connection keeps its context.
    def _choose(self, handshake: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _front: ssl.SSLContext) -> None:
        handshake.context = self._watched.value


class HeldCertificate:
    """A pair that its owner hands over in memory, and replaces likewise. Until the first one every handshake fails."""

    def __init__(self, minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        self._minimum = minimum
        self._newest: ServingContext | None = None
        self.front = _context(minimum)
        self.front.sni_callback = self._choose

    def replace(self, chain: bytes, key: bytes) -> None:
        """Serve this pair (PEM) from the next handshake on. Raises ServingCertificateError, and keeps the old pair."""
        self._newest = _load_pair(chain, key, self._minimum, "the pair handed over")

    @property
    def not_after(self) -> float:
        """The end of the certificate in use, Unix seconds; NaN before the first one."""
        return math.nan if self._newest is None else self._newest.not_after

    async def watch(self) -> None:
        """Return at once: the owner replaces the pair."""

    def _choose(
        self, handshake: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _front: ssl.SSLContext
    ) -> ssl.AlertDescription | None:
        if self._newest is None:
            return ssl.AlertDescription.ALERT_DESCRIPTION_INTERNAL_ERROR
        handshake.context = self._newest
        return None


def _context(minimum: ssl.TLSVersion) -> ServingContext:
    context = ServingContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = minimum
    context.set_alpn_protocols(["http/1.1"])
    # Neither API servers nor guests resume sessions: to make tickets for them was a twelfth of a handshake's time.
    context.num_tickets = 0
    return context


def _load(files: CertificateFiles) -> Loaded[ServingContext]:
    chain, key = _read(files.chain), _read(files.key)
    context = _load_pair(chain, key, files.minimum, f"{files.chain}, {files.key}")
    return Loaded(context, hashlib.sha256(chain).hexdigest())


def _load_pair(chain: bytes, key: bytes, minimum: ssl.TLSVersion, name: str) -> ServingContext:
    context = _context(minimum)
    # One memory file holds both, so that OpenSSL checks the pair that it will serve, and no key reaches a disk.
    pair = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(pair), "wb") as file:
            file.write(chain + b"\n" + key)
        context.load_cert_chain(f"/proc/self/fd/{pair}", password=_no_password)
        leaf = x509.load_pem_x509_certificate(chain)
        context.not_after = leaf.not_valid_after_utc.timestamp()
        context.spki = spki_digest(leaf.public_bytes(Encoding.DER))
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or "encrypted key"
        raise ServingCertificateError([f"{name}: not a usable pair ({reason})"]) from None
    finally:
        os.close(pair)
    return context


def _no_password() -> str:
    # Without this OpenSSL would prompt on the terminal for an encrypted key's password.
    raise ValueError("encrypted key")


def _read(path: Path) -> bytes:
    try:
        return read_bounded(path)
    except UnusableInputError as error:
        raise ServingCertificateError([str(error)]) from None
