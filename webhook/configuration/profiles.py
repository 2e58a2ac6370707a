"""Isolation profiles: which guests and which nodes count as confidential, and their sources of evidence."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

from pydantic import Field

from webhook.configuration.section import Section
from webhook.node_records import NodeRecord, Taint
from webhook.wellknown import KMS_PROFILE


class NodeRequirement(Section):
    """One node selector requirement, as in `nodeSelectorTerms[].matchExpressions[]`."""

    key: str = Field(description="of the node's label")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field("In", description="as in a node affinity")
    values: tuple[str, ...] = Field((), description="for In and NotIn")

    @cached_property
    def expression(self) -> dict[str, Any]:
        """The Kubernetes object; callers never change it."""
        expression: dict[str, Any] = {"key": self.key, "operator": self.operator}
        if self.values:
            expression["values"] = list(self.values)
        return expression

    def implied_by(self, expression: Any) -> bool:
        """Whether every node that satisfies `expression` (an untrusted object) satisfies this requirement too."""
        if not isinstance(expression, dict) or expression.get("key") != self.key:
            return False
        operator, values = expression.get("operator"), expression.get("values") or []
        if not isinstance(values, list):
            return False
        if self.operator == "In":
            return operator == "In" and bool(values) and all(value in self.values for value in values)
        if self.operator == "Exists":
            return operator == "Exists" or (operator == "In" and bool(values))
        return operator == self.operator and sorted(map(str, values)) == sorted(self.values)

    def met_by(self, labels: dict[str, str]) -> bool:
        """Whether a node with these labels satisfies the requirement, as the scheduler evaluates it."""
        value = labels.get(self.key)
        if self.operator == "In":
            return value is not None and value in self.values
        if self.operator == "NotIn":
            return value is None or value not in self.values
        return (value is not None) == (self.operator == "Exists")


class Toleration(Section):
    """A toleration of the profile's pods, in Kubernetes' own fields."""

    key: str | None = Field(None, description="of the taint")
    operator: Literal["Exists", "Equal"] | None = Field(None, description="left out: Equal")
    value: str | None = Field(None, description="of the taint, for Equal")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(None, description="left out: every")

    @cached_property
    def object(self) -> dict[str, str]:
        """The Kubernetes object; callers never change it."""
        return self.model_dump(exclude_none=True)


class ProfileEvidence(Section):
    """One evidence source, tried in the order given. The address is a URL (coco-aa, simulated) or a path."""

    source: Literal["coco-aa", "configfs-tsm", "sev-guest", "simulated"] = Field(
        description="the interface that returns the report"
    )
    address: str = Field(description="in the guest: a URL for coco-aa and simulated, else a path")


class Profile(Section):
    """The guests and nodes that count. A profile without evidence only places pods: no `morphisms-init`, no secrets."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", description="as the profile annotation names it")
    isolation: Literal["pod-vm", "node-vm"] = Field(description="the pod is a confidential VM, or its node is one")
    runtimeClasses: tuple[str, ...] = Field((), description="exact names; the first is set where a pod names none")
    handlers: tuple[str, ...] = Field((), description="handlers that these RuntimeClasses may have")
    nodeSelector: tuple[NodeRequirement, ...] = Field((), description="requirements; a node must satisfy all of them")
    trustedLabel: str | None = Field(
        None, description="a label that kubelets cannot set on themselves; its value must be true"
    )
    tolerations: tuple[Toleration, ...] = Field((), description="added to its pods")
    vmpl: int = Field(0, ge=0, le=3, description="privilege level that the guest's evidence is taken at")
    evidence: tuple[ProfileEvidence, ...] = Field((), description="tried in this order; empty for placement only")

    @cached_property
    def requirements(self) -> tuple[NodeRequirement, ...]:
        """All requirements for a node: the selector and the trusted label."""
        if self.trustedLabel is None:
            return self.nodeSelector
        return (*self.nodeSelector, NodeRequirement(key=self.trustedLabel, values=("true",)))

    @property
    def injects(self) -> bool:
        """Whether pods of this profile get `morphisms-init`."""
        return bool(self.evidence)

    def suits(self, node: NodeRecord) -> bool:
        """Whether the node satisfies every requirement."""
        labels = dict(node.labels)
        return all(requirement.met_by(labels) for requirement in self.requirements)


# The guest's own agent, at its address in Confidential Containers' guest image.
_GUEST_AGENT = ProfileEvidence(source="coco-aa", address="http://127.0.0.1:8006")

PRESETS: tuple[Profile, ...] = (
    Profile(
        name="kata-snp",
        isolation="pod-vm",
        runtimeClasses=("kata-qemu-snp",),
        handlers=("kata-qemu-snp",),
        nodeSelector=(NodeRequirement(key="amd.feature.node.kubernetes.io/snp", values=("true",)),),
        evidence=(_GUEST_AGENT,),
    ),
    Profile(
        name="peer-pod",
        isolation="pod-vm",
        runtimeClasses=("kata-remote",),
        handlers=("kata-remote",),
        evidence=(_GUEST_AGENT,),
    ),
    # The key server: it attests itself (attestation/verifier), so nothing attests it for an application.
    Profile(
        name=KMS_PROFILE,
        isolation="pod-vm",
        runtimeClasses=("kata-qemu-snp",),
        handlers=("kata-qemu-snp",),
        nodeSelector=(NodeRequirement(key="amd.feature.node.kubernetes.io/snp", values=("true",)),),
    ),
    Profile(
        name="system",
        isolation="node-vm",
        trustedLabel="morphisms.node-restriction.kubernetes.io/snp",
    ),
)


def tolerates(toleration: Any, taint: Taint) -> bool:
    """Whether a pod's toleration (an untrusted object) tolerates the taint, as in Kubernetes' ToleratesTaint."""
    if not isinstance(toleration, dict):
        return False
    if toleration.get("effect") not in (None, "", taint.effect):
        return False
    key, operator = toleration.get("key") or "", toleration.get("operator") or "Equal"
    if key not in ("", taint.key):
        return False
    if operator == "Exists":
        return True
    return operator == "Equal" and key == taint.key and (toleration.get("value") or "") == taint.value
