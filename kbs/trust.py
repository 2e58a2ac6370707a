"""TLS to one server with a given CA, the same for every client of Vault and of the verifier, on every Python."""

from __future__ import annotations

import re
import ssl
from typing import Final

_CERTIFICATE: Final = re.compile(r"-----BEGIN (X509 )?CERTIFICATE-----[^-]*-----END (?:X509 )?CERTIFICATE-----")
_BEGIN: Final = re.compile(r"-----BEGIN [A-Z0-9 ]*CERTIFICATE-----")


def trusting(ca: str) -> ssl.SSLContext:
    """A client's context that trusts the certificates of the PEM text `ca` alone; the system's store where it is empty.

    Around the certificates PEM text may hold anything (RFC 7468, 5.2): comments in any script, a byte order mark.
    Python takes such text as ASCII only, so the certificates alone are handed over. Each of them is an anchor, also an
    intermediate CA without its root, as for curl and Go: the partial-chain flag is on, and strict checks of extensions
    are off, which Python 3.13 made its default and 3.11 does not have.

    Raises ValueError where the text holds no usable certificate.
    """
    certificates = certificates_of(ca)
    if ca and not certificates:
        raise ValueError("holds no certificate as PEM")
    if len(_BEGIN.findall(ca)) != certificates.count("-----BEGIN "):
        raise ValueError("holds a certificate that is cut off, or in a form of its own (TRUSTED CERTIFICATE)")
    try:
        context = ssl.create_default_context(cadata=f"{certificates}\n" if ca else None)
    except (ssl.SSLError, ValueError, TypeError):
        raise ValueError("holds a certificate that cannot be read") from None
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def same_certificates(one: str, other: str) -> bool:
    """Whether two PEM texts hold the same certificates, in whatever order and with whatever text around them."""
    return _bodies(one) == _bodies(other)


def _bodies(pem: str) -> set[str]:
    return {"".join(match[0].split("-----")[2].split()) for match in _CERTIFICATE.finditer(pem)}


def certificates_of(text: str) -> str:
    """The certificates in PEM text, without what stands around them; empty where it holds none."""
    return "\n".join(match[0] for match in _CERTIFICATE.finditer(text))


def tls_name(host: str) -> str:
    """What SNI and the certificate call `host`: an absolute name, `vault.example.`, loses its dot (RFC 6066, 3)."""
    return host.removesuffix(".")
