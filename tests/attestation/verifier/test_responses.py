"""Each reason's answer to a guest: one class per party that cannot answer, one for all that a guest is refused for."""

from __future__ import annotations

import json

import pytest

from attestation.verifier.reasons import Reason
from attestation.verifier.responses import refused

IDENTIFIER = "0123456789abcdef"
PARTIES = {
    "VaultSealed": {"vault-sealed"},
    "VaultUnavailable": {
        "vault-slow",
        "vault-unreachable",
        "vault-behind",
        "vault-limited",
        "vault-error",
        "vault-credentials",
        "vault-strange",
    },
    "VerifierSealed": {"sealed"},
    "EvidenceUnavailable": {"no-evidence"},
    "ClockOff": {"clock"},
    "ClusterUnavailable": {"keys-unavailable", "pod-unavailable"},
    "CertificatesUnavailable": {"certificates-unavailable"},
}
SESSION = {"nonce-foreign", "bearer-invalid", "bearer-expired", "bearer-used", "policy-changed"}


def word(reason: Reason) -> str:
    for name, reasons in PARTIES.items():
        if reason.value in reasons:
            return name
    if reason.value in SESSION:
        return "SessionUnknown"
    return "TemporarilyUnavailable" if reason.is_retryable else "AttestationRefused"


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.ACCEPTED])
def test_an_answer_names_its_class_alone(reason: Reason) -> None:
    answer = refused(reason, IDENTIFIER)
    assert answer.status == (503 if reason.is_retryable else 401)
    expected = word(reason)
    document = json.loads(answer.body)
    assert document["type"].rpartition("/")[2] == expected
    assert document["detail"] == f"{expected}, correlation id {IDENTIFIER}"
    assert document["correlation-id"] == IDENTIFIER
    assert len(document) == 3
