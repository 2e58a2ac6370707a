"""What a login rests on, compared with the records in force: at the login, and again while its token lives.

A record in force may say more than it said at the attestation; the login stands as long as the record would still
grant the same workload to the same evidence. It falls when the record, its HOST_DATA, its guest, a value of that guest
or the chip's node is gone or has become stricter than what was attested.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError

from attestation.appraisal.reappraise import AttestedReport, reappraise
from attestation.appraisal.result import Assurance
from attestation.errors import FormatError
from attestation.pki.roots import TrustAnchors
from attestation.verifier.cluster.node_chips import NodeChips, check_chip
from attestation.verifier.cluster.pod_token import PodIdentity
from attestation.verifier.policies.model import Policy, PolicySet, Workload
from attestation.verifier.reasons import Reason, RefusedError


@dataclass(frozen=True, slots=True)
class Basis:
    """An accepted attestation without its session. `guest`: the name of the reference values that the report met."""

    workload: Workload
    assurance: Assurance
    guest: str
    attested: AttestedReport
    pod: PodIdentity

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it."""
        return {
            "workload": self.workload.model_dump(),
            "assurance": self.assurance.value,
            "guest": self.guest,
            "attested": self.attested.as_dict(),
            "pod": asdict(self.pod),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Basis:
        """Raises ValueError for anything that `as_dict` has not written."""
        try:
            pod = dict(document["pod"])
            return cls(
                workload=Workload(**document["workload"]),
                assurance=Assurance(document["assurance"]),
                guest=document["guest"],
                attested=AttestedReport.from_dict(document["attested"]),
                pod=PodIdentity(**pod | {"images": tuple(pod["images"])}),
            )
        except (KeyError, TypeError, AttributeError, FormatError, ValidationError) as error:
            raise ValueError(str(error)) from None


class InForce:
    """The records in force, and the chips of the nodes. `nodes`: of the clusters that list them.

    `policies` gives one and the same object until the records change.
    """

    def __init__(
        self, policies: Callable[[], PolicySet], nodes: Mapping[str, Callable[[], NodeChips]], anchors: TrustAnchors
    ) -> None:
        self.policies = policies
        self._nodes = nodes
        self._anchors = anchors

    def policy_for(self, basis: Basis, known: str = "") -> Policy:
        """The policy in force that grants what this rests on.

        `known`: the digest of a policy that has been found to grant it. Raises RefusedError: POLICY_CHANGED with the
        difference, or POLICIES_UNAVAILABLE.
        """
        policies = self.policies()
        report = basis.attested.report
        try:
            if (chips := self._nodes.get(basis.pod.cluster)) is not None:
                check_chip(chips(), basis.pod, report.chip_id)
            policy = policies.find(report.host_data, basis.pod)
        except RefusedError as error:
            raise RefusedError(Reason.POLICY_CHANGED, f"since the attestation: {error}") from None
        if policy.digest != known and (why := self._difference(basis, policy)):
            raise RefusedError(Reason.POLICY_CHANGED, f"since the attestation: {why}")
        return policy

    def _difference(self, basis: Basis, policy: Policy) -> str:
        record = policy.record
        if record.workload != basis.workload or record.assurance is not basis.assurance:
            return f"the record in force is {policy.name}, assurance {record.assurance.value}"
        guest = next((guest for guest in policy.guests if guest.name == basis.guest), None)
        if guest is None:
            return f"guest {basis.guest} is gone from {policy.name}"
        if failed := reappraise(basis.attested, self._anchors, guest, record.accepted_host_data):
            return f"{policy.name}, guest {basis.guest}, would not pass {', '.join(failed)}"
        return ""
