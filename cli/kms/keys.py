"""The operator's own keys for the KMS: one signs reference values, others sign what provisions a verifier."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from attestation.verifier.secret_file import read_secret_file
from server.files import UnusableInputError

_CURVE: Final = "P-256"


def read_key(path: Path) -> ECKey:
    """The private P-256 key of a PEM file of mode 0400. Raises ConfigurationError, UnusableInputError."""
    text = read_secret_file(path)
    try:
        key = ECKey.import_key(text)
    except (JoseError, ValueError, TypeError):
        raise UnusableInputError(f"{path}: is not an unencrypted key as PEM; --new-key makes one") from None
    if key.curve_name != _CURVE or not key.is_private:
        raise UnusableInputError(f"{path}: is not a private key on {_CURVE}; --new-key makes one")
    return key


def make_key(path: Path) -> ECKey:
    """Write a new key (PKCS#8 PEM, mode 0400) to a file that does not exist yet. Raises UnusableInputError."""
    private = ec.generate_private_key(ec.SECP256R1())
    text = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o400)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise UnusableInputError(f"{path}: exists already; leave --new-key out to use it") from None
    except OSError as error:
        raise UnusableInputError(f"{path}: cannot be written: {error.strerror}") from None
    return ECKey.import_key(text)
