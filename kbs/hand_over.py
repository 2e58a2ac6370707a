"""Hand-over: a verifier that starts sealed gets the secrets of one that is not, by the three calls of a guest.

It differs from a pod's attestation in two places, and both are bound by REPORT_DATA or by the encryption:

- `additional_evidence` is `{"morphisms-replica": B}` in place of a pod token: the digest of the requester's whole
  configuration (`kbs.attested`). Its host may have written another one, with a Vault or provisioners of its own.
- The third call is `GET /kbs/v0/resource/kms/provisioned`; the answer's plaintext is `{NAME: TEXT, …}` with names of
  `kbs.provision`.

The requester has attested the other side by `/attested` on the same connection before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kbs.attested import DIGEST_SIZE
from kbs.base64url import decode, encode
from kbs.messages import WireError, write_json

PROVISIONED_PATH: Final = "/kbs/v0/resource/kms/provisioned"
PROVISIONED_ROLE: Final = "kms/provisioned"  # the JWE's role: no role of a Vault token has a slash
REPLICA_KEY: Final = "morphisms-replica"


def write_replica_evidence(configuration: bytes) -> str:
    """The `additional_evidence` of a verifier whose configuration has this digest."""
    return write_json({REPLICA_KEY: encode(configuration)}).decode()


def read_replica_evidence(document: Mapping[str, Any]) -> bytes:
    """The digest. Raises WireError."""
    if document.keys() != {REPLICA_KEY}:
        raise WireError(f"additional_evidence has other members than {REPLICA_KEY}")
    try:
        return decode(document[REPLICA_KEY], DIGEST_SIZE)
    except ValueError as error:
        raise WireError(f"{REPLICA_KEY}: {error}") from None


def read_secrets(content: Mapping[str, Any]) -> Mapping[str, str]:
    """The answer's plaintext. Raises WireError."""
    if not all(isinstance(value, str) for value in content.values()):
        raise WireError("content is not of names and texts")
    return content
