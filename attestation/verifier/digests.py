"""The two digests that the verifier's report binds beside its key: of its configuration, and of its policies in force.

Both are functions of content alone, so that a command computes them from files and compares them with what a running
verifier attests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from enum import Enum
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import rfc8785
from pydantic import BaseModel

from attestation.verifier.configuration import VerifierConfiguration
from attestation.verifier.policies.model import PolicySet
from kbs.guest_values import write_guest

CONFIGURATION_CONTEXT: Final = "morphisms-configuration/v1"
POLICIES_CONTEXT: Final = "morphisms-policies/v1"

# A file in one of these keys decides whom the verifier trusts: its content counts, wherever it lies.
PINNED: Final = frozenset({"ca", "file", "simulatedRoot"})
# A file or folder in one of these keys counts by its name as written: it holds a secret, or certificates and lists that
# AMD has signed, or it is kept by the verifier, or the digest of policies covers it. `nodes` narrows what rests on the
# control plane anyway, and changes with each node. `references` lists this very digest.
NAMED: Final = frozenset(
    {
        "token",
        "nodes",
        "roots",
        "intermediates",
        "crls",
        "vlekCrls",
        "cache",
        "roleId",
        "secretId",
        "tokenFile",
        "keys",
        "policies",
        "guests",
        "folder",
        "references",
    }
)


def configuration_digest(configuration: VerifierConfiguration, read: Callable[[Path], bytes]) -> bytes:
    """SHA-256 over the whole configuration, as `load_configuration` returns it.

    `read` gives the content of a file that the configuration pins, by its absolute path: the verifier's reads files as
    they are, a command's may look for them elsewhere. Comments, order of keys and left out defaults change nothing.
    Lets through what `read` raises.
    """
    content = _canonical(configuration.written, configuration, "", read)
    return sha256(rfc8785.dumps({"context": CONFIGURATION_CONTEXT, "configuration": content})).digest()


def policies_digest(policies: PolicySet) -> bytes:
    """SHA-256 over the policies in force, each with its guests' values; in whatever order and files they were read."""
    content = {
        policy.name: {
            "record": policy.record.model_dump(mode="json") | {"hostData": sorted(policy.record.hostData)},
            "guests": {guest.name: write_guest(guest) for guest in policy.guests},
        }
        for policy in policies.policies
    }
    return sha256(rfc8785.dumps({"context": POLICIES_CONTEXT, "policies": content})).digest()


def _canonical(written: object, absolute: object, name: str, read: Callable[[Path], bytes]) -> Any:
    """JSON of one value. `name`: the key that it stands under, also for the entries of a list."""
    if isinstance(written, BaseModel):
        return {
            key: _canonical(getattr(written, key), getattr(absolute, key), key, read)
            for key in type(written).model_fields
        }
    if isinstance(written, tuple | list) and isinstance(absolute, tuple | list):
        pairs = zip(written, absolute, strict=True)
        return [_canonical(one, other, name, read) for one, other in pairs]
    if isinstance(written, Path) and isinstance(absolute, Path):
        if name in PINNED:
            return {"sha256": sha256(read(absolute)).hexdigest()}
        if name in NAMED:
            return str(written)
        raise AssertionError(f"{name} is a file that the configuration's digest does not know")
    if isinstance(written, Enum):
        return written.value
    if isinstance(written, date):
        return written.isoformat()
    if written is None or isinstance(written, str | bool | int | float):
        return written
    if isinstance(written, Mapping):
        raise AssertionError(f"{name} is a mapping, whose form the configuration's digest does not know")
    raise AssertionError(f"{name} has a type that the configuration's digest does not know")
