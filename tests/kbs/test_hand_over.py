"""What a sealed verifier sends to another one, and gets: bound to its configuration, its key and its nonce."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kbs.ephemeral_key import EphemeralKey
from kbs.guest import open_sealed, open_token, write_additional_evidence, write_attest
from kbs.hand_over import PROVISIONED_ROLE, read_secrets, write_replica_evidence
from kbs.messages import WireError, binding
from kbs.verifier import read_attest, seal_provisioned

CONFIGURATION = bytes(range(32))
NONCE = "A" * 43 + "="
SECRETS = {"vault-role-id": "a", "tls-ca-key": "b\nc"}


def request(additional: str, key: EphemeralKey) -> bytes:
    return write_attest(NONCE, key.public, {"attestation_report": {}}, additional)


def test_a_replicas_evidence_is_read_back_and_is_no_pods() -> None:
    key = EphemeralKey()
    read = read_attest(request(write_replica_evidence(CONFIGURATION), key))
    assert (read.replica, read.pod_token) == (CONFIGURATION, "")
    pods = read_attest(request(write_additional_evidence("a.b.c"), key))
    assert (pods.replica, pods.pod_token) == (None, "a.b.c")
    assert read.digest == binding(NONCE, key.public, write_replica_evidence(CONFIGURATION)) != pods.digest


@pytest.mark.parametrize(
    "additional",
    [
        {"morphisms-replica": "AAAA"},
        {"morphisms-replica": None},
        {"morphisms-replica": json.loads(write_replica_evidence(CONFIGURATION))["morphisms-replica"], "k8s-token": "x"},
    ],
    ids=["short", "null", "both"],
)
def test_another_form_of_it_is_refused(additional: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        read_attest(request(json.dumps(additional), EphemeralKey()))


def test_only_the_requester_opens_the_secrets() -> None:
    key = EphemeralKey()
    body = seal_provisioned(SECRETS, key.public, NONCE)
    assert read_secrets(open_sealed(body, key, NONCE, PROVISIONED_ROLE)) == SECRETS
    assert b"vault-role-id" not in body
    for other, nonce, role in (
        (EphemeralKey(), NONCE, PROVISIONED_ROLE),
        (key, "B" * 44, PROVISIONED_ROLE),
        (key, NONCE, "default"),
    ):
        with pytest.raises(WireError):
            open_sealed(body, other, nonce, role)
    with pytest.raises(WireError):
        open_token(body, key, NONCE)
    with pytest.raises(WireError):
        read_secrets({"vault-role-id": 1})
