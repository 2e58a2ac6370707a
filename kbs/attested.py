"""How the verifier proves itself before a guest does: what its report binds, and the tree over the guests' nonces.

    POST /attested   {"nonce": B}
    200              {"evidence": {…}, "path": [{"side": "left" | "right", "hash": B}, …],
                      "policies": B, "configuration": B, "references": TEXT}

The call is made on the TLS connection that the guest goes on to use. Each B is 32 bytes as base64url without padding
(43 characters).

- `evidence` is the document that a guest sends about itself, `{attestation_report, cert_chain}` (read by
  `attestation.report.coco`). `cert_chain` holds the leaf (VCEK or VLEK), its issuer (ASK or ASVK) and AMD's root (ARK),
  which the reader accepts by its pinned digest alone.
- REPORT_DATA is `statement_digest`, in one of the two encodings of `attestation.report.report_data`. Its `nonce` is the
  root that `climb` reaches from the guest's own nonce by `path`. Its `spki` is not in the answer: the reader takes it
  from the certificate that its own handshake showed.
- `policies` is the digest of the appraisal policies and guests in force, `configuration` that of the verifier's whole
  configuration.
- `simulated` is there, and true, only where the evidence is of `morphisms simulated-hardware`. It is for people who
  look at an answer; a reader of the evidence sees it there.
- `references` is the compact JWS of `kbs.references`, as the operator signed it; left out where the verifier has none.

404: this verifier does not attest itself. 503 with Retry-After: it cannot at the moment. Both have the body of every
other error (`kbs.guest.read_error`).

One firmware call serves all nonces that arrived during the one before. Their tree is that of RFC 9162, 2.1: leaf
SHA-256(0x00 ‖ nonce), node SHA-256(0x01 ‖ left ‖ right), and a node without a partner moves up as it is. So the root of
a single nonce is its leaf, and its path is empty.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from hashlib import sha256, sha384
from typing import Final, NamedTuple

from kbs.base64url import encode

ATTESTED_PATH: Final = "/attested"
STATEMENT_CONTEXT: Final = "morphisms-verifier/v1"
NONCE_SIZE: Final = 32
DIGEST_SIZE: Final = 32  # SHA-256: nodes, `spki`, `policies` and `configuration`
MAX_LEVELS: Final = 10
MAX_NONCES: Final = 1 << MAX_LEVELS  # of one tree

MAX_ATTESTED_SIZE: Final = 4 * 1024
MAX_REFERENCES_SIZE: Final = 16 * 1024
MAX_ATTESTED_ANSWER_SIZE: Final = 96 * 1024  # evidence with three certificates as lists of integers has 25 KB

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"


class Side(StrEnum):
    """Where a step's hash stands in the node above."""

    LEFT = "left"
    RIGHT = "right"


class Step(NamedTuple):
    """One level on the way up: the other half of the node above, 32 bytes, and its side."""

    side: Side
    hash: bytes


class NonceTree(NamedTuple):
    """The root over some nonces, and the path of each, in their order."""

    root: bytes
    paths: tuple[tuple[Step, ...], ...]


def statement_digest(*, nonce: bytes, spki: bytes, policies: bytes, configuration: bytes) -> bytes:
    """SHA-384 of the canonical JSON (RFC 8785) of what the verifier's REPORT_DATA binds.

    `nonce`: the root of a tree. `spki`: SHA-256 of the SubjectPublicKeyInfo (DER) of the certificate that the
    connection's handshake showed.
    """
    statement = {
        "context": STATEMENT_CONTEXT,
        "nonce": encode(nonce),
        "spki": encode(spki),
        "policies": encode(policies),
        "configuration": encode(configuration),
    }
    # Names and values are ASCII text, for which the standard library writes the canonical form.
    return sha384(json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()).digest()


def climb(nonce: bytes, path: Sequence[Step]) -> bytes:
    """The root that this nonce's path leads to."""
    node = _leaf(nonce)
    for step in path:
        node = _node(step.hash, node) if step.side is Side.LEFT else _node(node, step.hash)
    return node


def build_tree(nonces: Sequence[bytes]) -> NonceTree:
    """The tree over 1 to MAX_NONCES nonces. Raises ValueError for another number of them."""
    if not 1 <= len(nonces) <= MAX_NONCES:
        raise ValueError(f"{len(nonces)} nonces, required 1 to {MAX_NONCES}")
    paths: list[list[Step]] = [[] for _ in nonces]
    level = [_leaf(nonce) for nonce in nonces]
    depth = 0
    while len(level) > 1:
        for number, path in enumerate(paths):
            own = number >> depth
            other = own ^ 1
            if other < len(level):
                path.append(Step(Side.RIGHT if other > own else Side.LEFT, level[other]))
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [_node(left, right) for left, right in pairs] + (level[-1:] if len(level) % 2 else [])
        depth += 1
    return NonceTree(level[0], tuple(map(tuple, paths)))


def _leaf(nonce: bytes) -> bytes:
    return sha256(_LEAF + nonce).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(_NODE + left + right).digest()
