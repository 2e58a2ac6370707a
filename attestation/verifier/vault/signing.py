"""The verifier's ES256 keys: the first signs what Vault gets, all are listed while Vault learns of a new one.

A key that others can read is refused: whoever has it is every workload.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from server.files import UnusableInputError, read_bounded, read_stream
from server.yaml.strict import ConfigurationError, Loaded

ALGORITHM = "ES256"
_MAX_KEY_SIZE = 8192


class Signer(Protocol):
    """Whoever makes the JWTs, and the public keys to check them with. Both may raise RefusedError."""

    @property
    def jwks(self) -> bytes: ...

    async def sign(self, claims: dict[str, Any]) -> str:
        """A JWT."""


@dataclass(frozen=True)
class SigningKeys:
    """`signer` has the private key; `jwks` is what Vault is given: public, in the order of the configuration."""

    signer: ECKey = field(repr=False)
    signer_id: str
    jwks: bytes

    async def sign(self, claims: dict[str, Any]) -> str:
        """A JWT."""
        return jwt.encode({"alg": ALGORITHM, "kid": self.signer_id}, claims, self.signer, algorithms=[ALGORITHM])


def load_signing_keys(paths: Sequence[Path]) -> Loaded[SigningKeys]:
    """PEM files, P-256: the first private and of mode 0400, the others may be public. Raises ConfigurationError."""
    keys = [_load(path, is_signer=index == 0) for index, path in enumerate(paths)]
    public = [public_jwk(key) for key in keys]
    if len({each["kid"] for each in public}) != len(public):
        raise ConfigurationError(["signing.keys: the same key is listed twice"])
    jwks = json.dumps({"keys": public}, separators=(",", ":")).encode()
    return Loaded(SigningKeys(keys[0], public[0]["kid"], jwks), hashlib.sha256(jwks).hexdigest())


def read_secret(path: Path, limit: int = _MAX_KEY_SIZE) -> bytes:
    """A file that only its owner may read. Raises ConfigurationError that says what to do."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            _check_mode(path, status)
            return read_stream(file, str(path), limit)
    except OSError as error:
        raise ConfigurationError([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnusableInputError as error:
        raise ConfigurationError([str(error)]) from None


def _check_mode(path: Path, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    # With fsGroup the kubelet makes a Secret's 0400 file of root's into 0440 for the pod's own group.
    is_kubelets = mode == 0o440 and status.st_uid == 0 and os.getuid() != 0
    if mode != 0o400 and not is_kubelets:
        raise ConfigurationError([f"{path}: has mode {mode:04o}, required 0400; chmod 400 it"])


def _load(path: Path, *, is_signer: bool) -> ECKey:
    try:
        content = read_secret(path) if is_signer else read_bounded(path, _MAX_KEY_SIZE)
        if b"PRIVATE KEY" in content and not is_signer:
            content = read_secret(path)
        key = ECKey.import_key(content)
    except UnusableInputError as error:
        raise ConfigurationError([str(error)]) from None
    except (JoseError, ValueError, TypeError):
        raise ConfigurationError([f"{path}: is no unencrypted PEM key"]) from None
    if key.curve_name != "P-256":
        raise ConfigurationError([f"{path}: is on {key.curve_name}, required P-256 for {ALGORITHM}"])
    if is_signer and not key.is_private:
        raise ConfigurationError([f"{path}: is a public key; the first one signs"])
    return key


def public_jwk(key: ECKey) -> dict[str, str]:
    """The public half as it is listed (RFC 7517); `kid` is its thumbprint (RFC 7638)."""
    both = key.as_dict(private=False)
    point = {name: str(both[name]) for name in ("crv", "kty", "x", "y")}
    return {**point, "use": "sig", "alg": ALGORITHM, "kid": key.thumbprint()}
