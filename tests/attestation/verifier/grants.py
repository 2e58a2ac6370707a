"""An accepted attestation as a value, and the login that it leads to."""

from __future__ import annotations

from attestation.appraisal.reappraise import AttestedReport
from attestation.appraisal.result import Assurance
from attestation.report.abi import LAYOUT, SIGNED_SIZE
from attestation.verifier.cluster.pod_token import PodIdentity
from attestation.verifier.policies.model import Workload
from attestation.verifier.session.basis import Basis
from attestation.verifier.session.bearer import Grant
from kbs.ephemeral_key import EphemeralKey
from tests.attestation.verifier.process import HOST_DATA

_VERSION, _HOST_DATA = LAYOUT["version"][0], LAYOUT["host_data"][0]


def _signed() -> bytes:
    """The signed bytes of a report of version 3 that says HOST_DATA, and zeros for all else."""
    signed = bytearray(SIGNED_SIZE)
    signed[_VERSION] = 3
    signed[_HOST_DATA : _HOST_DATA + len(HOST_DATA)] = HOST_DATA
    return bytes(signed)


GRANT = Grant(
    correlation_id="0123456789abcdef",
    basis=Basis(
        workload=Workload(cluster="prod", namespace="shop", service="payments", serviceAccount="default"),
        assurance=Assurance.WORKLOAD,
        guest="simulated",
        attested=AttestedReport(_signed(), "Simulated", None, (1, 2), ()),
        pod=PodIdentity("prod", "shop", "default", "payments-1", "uid-1"),
    ),
    granted_by="",
    nonce="nonce",
    tee_pubkey=EphemeralKey().public,
    claims={"snp_vmpl": "0"},
    simulated=True,
)
