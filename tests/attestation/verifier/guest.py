"""A guest: makes evidence on a simulated machine and speaks the wire, from this process or from one of its own.

`python -m tests.attestation.verifier.guest`: settings as JSON on stdin, what happened as JSON on stdout.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attestation.evidence.coco_document import coco_document
from attestation.evidence.order import collect_first
from attestation.evidence.source import CollectedEvidence
from attestation.report.certificate_table import parse_certificate_table
from attestation.report.report_data import ascii_encoded, padded
from attestation.simulator.device import Device
from kbs.ephemeral_key import EphemeralKey
from kbs.guest import (
    ErrorAnswer,
    open_token,
    read_attest_answer,
    read_auth_answer,
    read_error,
    token_path,
    write_additional_evidence,
    write_attest,
    write_auth,
)
from kbs.messages import ATTEST_PATH, AUTH_PATH, DEFAULT_ROLE, binding
from plan.document import EvidenceSource


@dataclass
class Answer:
    """Status, headers and body of an answer."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def error(self) -> ErrorAnswer:
        return read_error(self.body)


class Client:
    """One TLS connection to a verifier."""

    def __init__(self, port: int, ca: Path) -> None:
        context = ssl.create_default_context(cafile=str(ca))
        self._connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=300, context=context)

    def call(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        """One request on the connection, opened anew when the server has closed it."""
        self._connection.request(method, path, body, headers or {})
        answer = self._connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def nonce(self) -> str:
        """First call."""
        answer = self.call("POST", AUTH_PATH, write_auth())
        assert answer.status == 200
        return read_auth_answer(answer.body)

    def attest(self, body: bytes) -> Answer:
        """Second call."""
        return self.call("POST", ATTEST_PATH, body)

    def token(self, bearer: str, role: str = DEFAULT_ROLE, headers: dict[str, str] | None = None) -> Answer:
        """Third call."""
        return self.call("GET", token_path(role), headers={"Authorization": f"Bearer {bearer}"} | (headers or {}))

    def close(self) -> None:
        self._connection.close()


def document(device: Device, digest: bytes, *, as_ascii: bool = False) -> dict[str, Any]:
    """CoCo evidence of this device that binds the digest."""
    report = device.report(ascii_encoded(digest) if as_ascii else padded(digest))
    return coco_document(CollectedEvidence("simulated", report, parse_certificate_table(device.certificate_table())))


def main() -> None:
    """The whole way, with evidence from a running simulated machine."""
    settings = json.load(sys.stdin)
    client = Client(settings["port"], Path(settings["ca"]))
    key = EphemeralKey()
    nonce = client.nonce()
    additional = write_additional_evidence(settings["pod_token"])
    digest = binding(nonce, key.public, additional)
    source = EvidenceSource(settings["source"], settings["machine"])
    primary = coco_document(collect_first([source], digest, timeout=60))
    answer = client.attest(write_attest(nonce, key.public, primary, additional))
    if answer.status != 200:
        print(json.dumps({"status": answer.status, "problem": answer.error.problem}))
        return
    answer = client.token(read_attest_answer(answer.body), settings["role"])
    token = open_token(answer.body, key, nonce, settings["role"])
    print(json.dumps({"status": answer.status, "token": token.token, "simulated": token.simulated}))


if __name__ == "__main__":
    main()
