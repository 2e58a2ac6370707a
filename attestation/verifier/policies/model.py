"""Appraisal policies: which guests may have which workload's Vault login, and how a policy is found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from attestation.appraisal.result import Assurance
from attestation.verifier.cluster.pod_token import PodIdentity
from attestation.verifier.reasons import Reason, RefusedError
from kbs.reference_values import GuestReference

_LABEL = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"  # RFC 1123; no slash and no wildcard: these become Vault paths
_SUBDOMAIN = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
_PATH = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$"
_NO_INITDATA = "0" * 64


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Workload(_Section):
    """The workload that gets the login; the names as the cluster has them."""

    cluster: str = Field(pattern=_LABEL)
    namespace: str = Field(pattern=_LABEL)
    service: str = Field(pattern=_LABEL, description="the Knative Service")
    serviceAccount: str = Field("default", pattern=_SUBDOMAIN)

    @property
    def subject(self) -> str:
        """`cluster/namespace/service`."""
        return f"{self.cluster}/{self.namespace}/{self.service}"


class VaultLogin(_Section):
    """Where the workload logs in."""

    mount: str = Field(pattern=_PATH, description="of the jwt auth method, without auth/")
    role: str = Field(pattern=_NAME)
    namespace: str = Field("", pattern=rf"{_PATH}|^$")


class AppraisalPolicy(_Section):
    """Which guests may have one workload's login."""

    workload: Workload
    assurance: Assurance
    hostData: tuple[Annotated[str, Field(pattern="^[0-9a-f]{64}$")], ...] = Field(
        (), description="digests of the initdata document, old and new during a rollout; empty only with assurance vm"
    )
    guests: tuple[str, ...] = Field(min_length=1, max_length=16, description="names of guest reference values")
    vault: VaultLogin

    @model_validator(mode="after")
    def _measured(self) -> AppraisalPolicy:
        if self.assurance is Assurance.WORKLOAD and not self.hostData:
            raise PydanticCustomError("host_data", "hostData is empty: assurance workload needs at least one digest")
        if _NO_INITDATA in self.hostData:
            raise PydanticCustomError("host_data", "hostData has all zeros: that is a guest without initdata")
        return self

    @property
    def host_data(self) -> frozenset[bytes]:
        return frozenset(bytes.fromhex(digest) for digest in self.hostData)


@dataclass(frozen=True)
class Policy:
    """A policy with its guests resolved. `name` is for people; `digest` changes with the policy or a guest of it."""

    name: str
    record: AppraisalPolicy
    guests: tuple[GuestReference, ...]
    digest: str


@dataclass(frozen=True)
class PolicySet:
    """All policies in force. Made by `load.load_policies`, which refuses ambiguous ones."""

    policies: tuple[Policy, ...]
    by_host_data: Mapping[bytes, Policy]
    by_digest: Mapping[str, Policy]
    by_account: Mapping[tuple[str, str, str], tuple[Policy, ...]]

    def find(self, host_data: bytes, pod: PodIdentity) -> Policy:
        """The policy of assurance `workload` with this HOST_DATA, else the one of `vm` for the token's account.

        Raises RefusedError. A measured guest with another workload's token is refused, not appraised as `vm`.
        """
        found = self.possible(host_data, pod)
        if len(found) != 1:
            raise RefusedError(Reason.NO_POLICY, "more than one for this pod's service account")
        return found[0]

    def possible(self, host_data: bytes, pod: PodIdentity) -> tuple[Policy, ...]:
        """The policies that `find` may return once the pod's Service is known. Raises RefusedError."""
        measured = self.by_host_data.get(host_data)
        if measured is not None:
            return (_agreeing(measured, pod),)
        account = (pod.cluster, pod.namespace, pod.service_account)
        # Without a pod look-up the account has one policy at most; `load_policies` ensures that.
        found = tuple(
            policy
            for policy in self.by_account.get(account, ())
            if policy.record.assurance is Assurance.VM and pod.service in (None, policy.record.workload.service)
        )
        if not found:
            raise RefusedError(Reason.NO_POLICY, "for this HOST_DATA or this pod")
        return found


def _agreeing(policy: Policy, pod: PodIdentity) -> Policy:
    workload = policy.record.workload
    wanted = (workload.cluster, workload.namespace, workload.serviceAccount)
    if wanted != (pod.cluster, pod.namespace, pod.service_account) or pod.service not in (None, workload.service):
        raise RefusedError(Reason.TOKEN_DISAGREES, f"HOST_DATA is {policy.name}'s")
    return policy
