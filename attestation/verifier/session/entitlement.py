"""What a login may say, taken from the appraisal policy in force when the login is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attestation.appraisal.result import Assurance
from attestation.verifier.policies.model import PolicySet, VaultLogin
from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.session.bearer import Grant


@dataclass(frozen=True, slots=True)
class Entitlement:
    """One login: its subject, its flat claims (`snp_*` attested, `k8s_*` asserted), and where in Vault it is made."""

    subject: str
    claims: Mapping[str, str]
    tee_pubkey: Mapping[str, str]
    vault: VaultLogin


def entitlement(grant: Grant, policies: PolicySet) -> Entitlement:
    """The login that the policy in force allows for this grant. Raises RefusedError: POLICY_CHANGED.

    An edit that would have granted the same evidence the same workload is no change.
    """
    try:
        policy = policies.find(grant.host_data, grant.pod)
    except RefusedError as error:
        raise RefusedError(Reason.POLICY_CHANGED, f"since the attestation: {error}") from None
    record = policy.record
    lists_host_data = record.assurance is Assurance.WORKLOAD or record.hostData
    if (
        record.workload != grant.workload
        or record.assurance is not grant.assurance
        or grant.reference not in policy.guests
        or (lists_host_data and grant.host_data not in record.host_data)
    ):
        raise RefusedError(Reason.POLICY_CHANGED, f"{policy.name} has been edited since the attestation")
    workload = record.workload
    claims = {
        **grant.claims,
        **grant.pod.claims(),
        "cluster": workload.cluster,
        "namespace": workload.namespace,
        "service": workload.service,
        "service_account": workload.serviceAccount,
        "assurance": record.assurance.value,
        "guest": grant.reference.name,
        "simulated": "true" if grant.simulated else "false",
        "correlation_id": grant.correlation_id,
    }
    return Entitlement(workload.subject, claims, grant.tee_pubkey, record.vault)
