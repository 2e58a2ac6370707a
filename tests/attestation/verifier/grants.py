"""An accepted attestation as a value, and the login that it leads to."""

from __future__ import annotations

from attestation.appraisal.result import Assurance
from attestation.verifier.cluster.pod_token import PodIdentity
from attestation.verifier.policies.model import Workload
from attestation.verifier.session.bearer import Grant
from kbs.guest import EphemeralKey
from kbs.reference_values import GuestReference, TcbFloor

_FLOOR = TcbFloor(0, 0, 0, 0)
GRANT = Grant(
    correlation_id="0123456789abcdef",
    workload=Workload(cluster="prod", namespace="shop", service="payments", serviceAccount="default"),
    assurance=Assurance.WORKLOAD,
    reference=GuestReference("simulated", "Simulated", frozenset({b"\1" * 48}), _FLOOR, _FLOOR, _FLOOR),
    host_data=b"\2" * 32,
    pod=PodIdentity("prod", "shop", "default", "payments-1", "uid-1"),
    nonce="nonce",
    tee_pubkey=EphemeralKey().public,
    claims={"snp_vmpl": "0"},
    simulated=True,
)
