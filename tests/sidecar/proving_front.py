"""A front that proves itself as a verifier does, honestly or as a test likes."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kbs.attested import ATTESTED_PATH
from kbs.base64url import decode
from kbs.messages import NONCE_HEADER, read_json
from kbs.spki import spki_digest
from tests.attestation.kms import Kms
from tests.sidecar.front import Fault, Front, Request, Spoilt, front, never
from tests.support.certificates import make_pair

NOWHERE = (1, make_pair()[0].decode())
"""A target that nothing is passed on to."""


def spki_of(pem: str) -> bytes:
    return spki_digest(ssl.PEM_cert_to_DER_cert(pem))


def nonce_of(request: Request) -> bytes:
    """The request is a nonce and nothing else."""
    document = read_json(request.body, 100, "body")
    assert document.keys() == {"nonce"}
    return decode(document["nonce"], 32)


@dataclass
class Played:
    """A front that proves itself as this KMS, changed as a test likes; what it does not answer, its target does."""

    kms: Kms
    change: Callable[[Kms], Kms] = lambda kms: kms
    answer: Callable[[bytes], bytes] = lambda body: body
    spoil: Fault = never
    front: Front | None = None

    def fault(self, request: Request, seen: Sequence[Request]) -> Spoilt | None:
        spoilt = self.spoil(request, seen)
        if spoilt is not None or request.path != ATTESTED_PATH:
            return spoilt
        assert self.front is not None
        kms = self.change(replace(self.kms, spki=spki_of(self.front.ca)))
        return Spoilt(200, body=self.answer(kms.body(nonce_of(request))))


@contextmanager
def played(folder: Path, target: tuple[int, str], played: Played, **options: Any) -> Iterator[Front]:
    with front(folder, target, played.fault, **options) as running:
        played.front = running
        yield running


def asked_only(fronted: Front) -> None:
    """The other side got nonces, and not one byte about the pod."""
    assert fronted.seen
    for request in fronted.seen:
        assert (request.method, request.path) == ("POST", ATTESTED_PATH)
        nonce_of(request)
        assert not {"authorization", NONCE_HEADER.lower()} & {name.lower() for name in request.headers}
