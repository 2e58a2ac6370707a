"""What a login says comes from the policy in force at that moment, never from the bearer."""

from __future__ import annotations

from dataclasses import replace

from attestation.verifier.policies.load import PolicyReader
from attestation.verifier.policies.model import Policy
from attestation.verifier.session.entitlement import entitlement
from tests.attestation.verifier.grants import GRANT
from tests.attestation.verifier.process import GUEST, policy


def in_force(vault: dict[str, str]) -> Policy:
    document = {"policies": {"prod/shop/payments": policy(vault=vault)}, "guests": {"simulated": GUEST}}
    (found,) = PolicyReader({"prod": True}).document(document, "test").value.policies
    return found


def test_subject_mount_role_and_claims_are_the_records() -> None:
    vault = {"mount": "jwt-other", "role": "narrow", "namespace": "team"}
    lying = {"service": "other", "assurance": "vm", "snp_vmpl": "0", "k8s_pod_uid": "other"}
    login = entitlement(replace(GRANT, claims=lying), in_force(vault))
    assert login.subject == "prod/shop/payments"
    assert login.vault.model_dump() == vault
    names = ("cluster", "namespace", "service", "service_account", "assurance", "guest", "simulated", "correlation_id")
    assert {name: login.claims[name] for name in (*names, "k8s_pod_uid", "snp_vmpl")} == {
        "cluster": "prod",
        "namespace": "shop",
        "service": "payments",
        "service_account": "default",
        "assurance": "workload",
        "guest": "simulated",
        "simulated": "true",
        "correlation_id": GRANT.correlation_id,
        "k8s_pod_uid": "uid-1",
        "snp_vmpl": "0",
    }
