"""What a login may say, taken from the appraisal policy in force when the login is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attestation.verifier.policies.model import Policy, VaultLogin
from attestation.verifier.session.bearer import Grant


@dataclass(frozen=True, slots=True)
class Entitlement:
    """One login: its subject, its flat claims (`snp_*` attested, `k8s_*` asserted), and where in Vault it is made."""

    subject: str
    claims: Mapping[str, str]
    tee_pubkey: Mapping[str, str]
    vault: VaultLogin


def entitlement(grant: Grant, policy: Policy) -> Entitlement:
    """The login that this policy allows for a grant which it still stands for, see `basis.InForce`."""
    record = policy.record
    workload = record.workload
    claims = {
        **grant.claims,
        **grant.basis.pod.claims(),
        "cluster": workload.cluster,
        "namespace": workload.namespace,
        "service": workload.service,
        "service_account": workload.serviceAccount,
        "assurance": record.assurance.value,
        "guest": grant.basis.guest,
        "simulated": "true" if grant.simulated else "false",
        "correlation_id": grant.correlation_id,
    }
    return Entitlement(workload.subject, claims, grant.tee_pubkey, record.vault)
