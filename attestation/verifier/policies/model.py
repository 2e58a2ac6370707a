"""Appraisal policies: which guests may have which workload's Vault login, and how a policy is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from attestation.appraisal.result import Assurance
from attestation.verifier.cluster.pod_token import PodIdentity
from attestation.verifier.reasons import Reason, RefusedError
from kbs.reference_values import GuestReference
from measured.initdata import InitdataError, parse_initdata
from measured.measured_document import document_of_text
from measured.measured_plan import data_hub_of

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
    assurance: Assurance = Field(
        description="workload: HOST_DATA measures the workload. vm: any workload of an approved guest; which one it is "
        "rests on the cluster's control plane, by the pod's token and label"
    )
    exclusiveServiceAccount: bool = Field(
        False,
        description="the operator states that nothing but this Service runs under the service account; required with "
        "assurance vm where the cluster has no readBack, and then the account may not be default",
    )
    hostData: tuple[Annotated[str, Field(pattern="^[0-9a-f]{64}$")], ...] = Field(
        (), description="digests of the initdata document, old and new during a rollout; empty only with assurance vm"
    )
    podToken: Literal["required", "absent"] = Field(
        "required",
        description="required: the pod's own token has to agree with HOST_DATA. absent: HOST_DATA alone finds the"
        " record, for guests whose data hub fetches the Vault token (morphisms render --evidence coco-cdh); every"
        " container of the pod is the identity then",
    )
    document: str | None = Field(
        None,
        max_length=512 * 1024,
        description="the initdata document itself, as morphisms render writes it: its digest stands in hostData, and it"
        " was measured for this workload; only with assurance workload",
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

    @model_validator(mode="after")
    def _documented(self) -> AppraisalPolicy:
        if self.document is None:
            return self
        if self.assurance is not Assurance.WORKLOAD:
            raise PydanticCustomError("document", "document needs assurance: workload")
        try:
            measured = document_of_text(self.document.encode())
        except InitdataError as error:
            raise PydanticCustomError("document", f"document {error}") from None
        if measured is None:
            raise PydanticCustomError("document", "document holds a policy of others; take what morphisms render wrote")
        if measured.initdata.host_data.hex() not in self.hostData:
            raise PydanticCustomError("document", "document has a digest that hostData does not list")
        if measured.data.get("workload") != self.workload.model_dump():
            raise PydanticCustomError("document", "document was measured for another workload")
        if (data_hub_of(measured) is not None) != (self.podToken == "absent"):
            raise PydanticCustomError(
                "pod_token",
                "podToken does not agree with document: absent is for what morphisms render --evidence coco-cdh wrote,"
                " and only for that",
            )
        return self

    @model_validator(mode="after")
    def _has_a_token_or_a_document(self) -> AppraisalPolicy:
        if self.podToken == "absent" and self.document is None:
            raise PydanticCustomError(
                "pod_token",
                "podToken: absent needs document, as morphisms render --evidence coco-cdh writes it, and assurance:"
                " workload",
            )
        return self

    @property
    def host_data(self) -> frozenset[bytes]:
        return frozenset(bytes.fromhex(digest) for digest in self.hostData)

    @property
    def document_digest(self) -> bytes | None:
        """The HOST_DATA of the document itself; None without one."""
        return None if self.document is None else parse_initdata(self.document.encode()).host_data

    @property
    def accepted_host_data(self) -> frozenset[bytes] | None:
        """None where any will do: without a list, which is possible with assurance vm alone."""
        return self.host_data if self.hostData or self.assurance is Assurance.WORKLOAD else None

    @property
    def measured_host_data(self) -> frozenset[bytes]:
        """The HOST_DATA that stand for this workload: with assurance vm none does."""
        return self.host_data if self.assurance is Assurance.WORKLOAD else frozenset()


@dataclass(frozen=True)
class Policy:
    """A policy with its guests resolved. `name` is CLUSTER/NAMESPACE/SERVICE.

    `digest` changes with the policy and with each guest of it.
    """

    name: str
    record: AppraisalPolicy
    guests: tuple[GuestReference, ...]
    digest: str


@dataclass(frozen=True)
class PolicySet:
    """All policies in force, by (cluster, namespace, service account). `without_token`: by HOST_DATA alone."""

    policies: tuple[Policy, ...]
    by_account: Mapping[tuple[str, str, str], tuple[Policy, ...]]
    listed: Mapping[bytes, str]
    without_token: Mapping[bytes, tuple[Policy, ...]]

    @classmethod
    def of(cls, policies: Sequence[Policy]) -> PolicySet:
        """The set of these, no two of which can be meant by one pod."""
        accounts: dict[tuple[str, str, str], tuple[Policy, ...]] = {}
        without_token: dict[bytes, tuple[Policy, ...]] = {}
        for policy in policies:
            workload = policy.record.workload
            if policy.record.podToken == "absent":
                for digest in policy.record.measured_host_data:
                    without_token[digest] = (*without_token.get(digest, ()), policy)
                continue
            account = (workload.cluster, workload.namespace, workload.serviceAccount)
            accounts[account] = (*accounts.get(account, ()), policy)
        return cls(
            policies=tuple(policies),
            by_account=accounts,
            listed={digest: policy.name for policy in policies for digest in policy.record.measured_host_data},
            without_token={digest: _owners(digest, found) for digest, found in without_token.items()},
        )

    def find(self, host_data: bytes, pod: PodIdentity) -> Policy:
        """The policy for this HOST_DATA and this pod's account, of assurance `workload` before `vm`.

        Another account's record that lists the same HOST_DATA changes nothing: such a digest is public. A guest that is
        measured for another workload of the same account is refused, not appraised as `vm`. Without a token the digest
        alone decides, among the records that say so. Raises RefusedError.
        """
        if pod.without_token:
            return self.find_without_token(host_data)
        found = self.possible(host_data, pod)
        if len(found) != 1:
            raise RefusedError(Reason.NO_POLICY, "more than one for this pod's service account")
        return found[0]

    def find_without_token(self, host_data: bytes) -> Policy:
        """The policy whose record says `podToken: absent` for this HOST_DATA. Raises RefusedError."""
        found = self.without_token.get(host_data, ())
        if len(found) != 1:
            why = "more than one lists this HOST_DATA" if found else "for this HOST_DATA without a pod token"
            raise RefusedError(Reason.NO_POLICY, why)
        return found[0]

    def possible(self, host_data: bytes, pod: PodIdentity) -> tuple[Policy, ...]:
        """The policies that `find` may return once the pod's Service is known. Raises RefusedError."""
        account = self.by_account.get((pod.cluster, pod.namespace, pod.service_account), ())
        own = tuple(policy for policy in account if pod.service in (None, policy.record.workload.service))
        measured = tuple(policy for policy in own if host_data in policy.record.measured_host_data)
        found = measured or tuple(policy for policy in own if policy.record.assurance is Assurance.VM)
        others = [policy.name for policy in account if host_data in policy.record.measured_host_data]
        if not measured and others and not any(host_data in policy.record.host_data for policy in found):
            raise RefusedError(Reason.TOKEN_DISAGREES, f"HOST_DATA is {others[0]}'s")
        if found:
            return found
        if host_data in self.listed:
            raise RefusedError(Reason.TOKEN_DISAGREES, f"HOST_DATA is {self.listed[host_data]}'s")
        raise RefusedError(Reason.NO_POLICY, "for this HOST_DATA or this pod")


def _owners(digest: bytes, policies: tuple[Policy, ...]) -> tuple[Policy, ...]:
    """The policies whose own document has this digest, else all: anybody can list a public digest as a former one."""
    own = tuple(policy for policy in policies if policy.record.document_digest == digest)
    return own or policies
