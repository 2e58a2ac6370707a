"""The options that say where a verifier is, checked before anything is sent."""

from __future__ import annotations

from kbs import attested_connection
from kbs.attested_connection import Address
from kbs.trust import trusting
from server.files import UnusableInputError


def addresses_of(url: str) -> tuple[Address, ...]:
    """Every address that the URL's host has, each once. Raises UnusableInputError, UnreachableError."""
    try:
        return attested_connection.addresses_of(url)
    except ValueError:
        raise UnusableInputError("URL: is not of the form https://HOST[:PORT], such as https://10.0.0.7:8443") from None


def check_ca(ca: str) -> str:
    """The PEM text, if it holds certificates or nothing. Raises UnusableInputError."""
    try:
        trusting(ca)
    except ValueError as error:
        raise UnusableInputError(f"--ca: {error}") from None
    return ca
