"""The verifier's ES256 keys: the first signs the JWTs for Vault, all are listed while Vault learns of a new one.

A key that others can read is refused: with it, anyone can log in as every workload.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from attestation.verifier.secret_file import read_secret_file
from server.files import UnusableInputError, read_bounded
from server.yaml.strict import ConfigurationError, Loaded

ALGORITHM = "ES256"
_MAX_KEY_SIZE = 8192


class Signer(Protocol):
    """Signs the JWTs, and lists the public keys to check them with. Both may raise RefusedError."""

    @property
    def jwks(self) -> bytes: ...

    async def sign(self, claims: dict[str, Any]) -> str:
        """A JWT."""


@dataclass(frozen=True)
class SigningKeys:
    """`signer` has the private key; `jwks` is for Vault: public, in the order of the configuration."""

    signer: ECKey = field(repr=False)
    signer_id: str
    jwks: bytes

    @classmethod
    def of(cls, key: ECKey) -> SigningKeys:
        """One private key, which alone is listed."""
        public = public_jwk(key)
        return cls(key, public["kid"], _jwks([public]))

    async def sign(self, claims: dict[str, Any]) -> str:
        """A JWT."""
        return jwt.encode({"alg": ALGORITHM, "kid": self.signer_id}, claims, self.signer, algorithms=[ALGORITHM])


def load_signing_keys(paths: Sequence[Path]) -> Loaded[SigningKeys]:
    """PEM files, P-256: the first private and of mode 0400, the others may be public. Raises ConfigurationError."""
    keys = [_load(path, is_signer=index == 0) for index, path in enumerate(paths)]
    public = [public_jwk(key) for key in keys]
    if len({each["kid"] for each in public}) != len(public):
        raise ConfigurationError(["signing.keys: the same key is listed twice"])
    jwks = _jwks(public)
    return Loaded(SigningKeys(keys[0], public[0]["kid"], jwks), hashlib.sha256(jwks).hexdigest())


def generate_signing_keys() -> SigningKeys:
    """A new key, which lives as long as this process."""
    return SigningKeys.of(ECKey.generate_key("P-256"))


def read_signing_key(pem: bytes, name: str) -> ECKey:
    """A private P-256 key; `name` stands for it in problems. Raises ConfigurationError."""
    return _read(pem, name, is_signer=True)


def _load(path: Path, *, is_signer: bool) -> ECKey:
    try:
        content = read_secret_file(path) if is_signer else read_bounded(path, _MAX_KEY_SIZE)
    except UnusableInputError as error:
        raise ConfigurationError([str(error)]) from None
    if b"PRIVATE KEY" in content and not is_signer:
        content = read_secret_file(path)
    return _read(content, str(path), is_signer=is_signer)


def _read(pem: bytes, name: str, *, is_signer: bool) -> ECKey:
    try:
        key = ECKey.import_key(pem)
    except (JoseError, ValueError, TypeError):
        raise ConfigurationError([f"{name}: is not an unencrypted PEM key"]) from None
    if key.curve_name != "P-256":
        raise ConfigurationError([f"{name}: is on {key.curve_name}, required P-256 for {ALGORITHM}"])
    if is_signer and not key.is_private:
        raise ConfigurationError([f"{name}: is a public key; the first one signs"])
    return key


def _jwks(public: Sequence[dict[str, str]]) -> bytes:
    return json.dumps({"keys": list(public)}, separators=(",", ":")).encode()


def public_jwk(key: ECKey) -> dict[str, str]:
    """The public half as it is listed (RFC 7517); `kid` is its thumbprint (RFC 7638)."""
    both = key.as_dict(private=False)
    point = {name: str(both[name]) for name in ("crv", "kty", "x", "y")}
    return {**point, "use": "sig", "alg": ALGORITHM, "kid": key.thumbprint()}
