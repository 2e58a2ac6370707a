"""Appraisal policies and guest reference values: what may have which Vault login. Written beside Vault, by hand or CI.

A folder of policies, one a file, and a folder of guests, each file `NAME: {…}` (see
`attestation.appraisal.reference_values`). They are read together, because a policy without its
guests means nothing, and either all of them are good or none counts.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from attestation.appraisal.reference_values import GuestReference, parse_guest
from attestation.appraisal.result import Assurance
from attestation.errors import PolicyError
from attestation.verifier.cluster.pod_token import PodIdentity
from attestation.verifier.reasons import Reason, RefusedError
from server.text import did_you_mean
from server.yaml.strict import ConfigurationError, Loaded, load, parse

_LABEL = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"  # RFC 1123; no slash and no wildcard: these become Vault paths
_SUBDOMAIN = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
_PATH = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$"
_NO_INITDATA = "0" * 64
_MAX_PROBLEMS = 50
_Model = TypeVar("_Model", bound=BaseModel)
ADVICE_ACCOUNT = "give each Service its own service account, or set readBack for the cluster"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Workload(_Section):
    """Whose login it is; the names as the cluster has them."""

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


class GuestFile(RootModel[dict[str, dict[str, Any]]]):
    """Named guests; `attestation.appraisal.reference_values` knows what an entry may hold."""


@dataclass(frozen=True)
class Policy:
    """A policy with its guests resolved. `name` is for people; `digest` changes with the policy or a guest of it."""

    name: str
    record: AppraisalPolicy
    guests: tuple[GuestReference, ...]
    digest: str


@dataclass(frozen=True)
class PolicySet:
    """All policies in force. Made by `load_policies`, which has refused whatever is ambiguous."""

    policies: tuple[Policy, ...]
    by_host_data: Mapping[bytes, Policy]
    by_digest: Mapping[str, Policy]
    by_account: Mapping[tuple[str, str, str], tuple[Policy, ...]]

    def find(self, host_data: bytes, pod: PodIdentity) -> Policy:
        """HOST_DATA finds a policy of assurance `workload`, else the token one of `vm`.

        Raises RefusedError. A measured guest with another workload's token is refused, not judged as `vm`.
        """
        measured = self.by_host_data.get(host_data)
        if measured is not None:
            return _agreeing(measured, pod)
        account = (pod.cluster, pod.namespace, pod.service_account)
        # Without read-back the account has one policy at most; `load_policies` has seen to that.
        found = [
            policy
            for policy in self.by_account.get(account, ())
            if policy.record.assurance is Assurance.VM and pod.service in (None, policy.record.workload.service)
        ]
        if len(found) != 1:
            raise RefusedError(Reason.NO_POLICY, "for this HOST_DATA or this pod")
        return found[0]


def _agreeing(policy: Policy, pod: PodIdentity) -> Policy:
    workload = policy.record.workload
    wanted = (workload.cluster, workload.namespace, workload.serviceAccount)
    if wanted != (pod.cluster, pod.namespace, pod.service_account) or pod.service not in (None, workload.service):
        raise RefusedError(Reason.TOKEN_DISAGREES, f"HOST_DATA is {policy.name}'s")
    return policy


def policy_files(folders: Sequence[Path]) -> list[Path]:
    """The folders and the YAML files in them: what a watch has to look at."""
    return [path for folder in folders for path in (folder, *_yaml_files(folder))]


def load_policies(policies: Path, guests: Path, clusters: Mapping[str, bool]) -> Loaded[PolicySet]:
    """Read both folders. `clusters`: name to whether its pods are read back. Raises ConfigurationError, with all
    problems."""
    problems: list[str] = []
    guest_files = [(str(path), path.name, _loader(path, GuestFile)) for path in _yaml_files(guests, problems)]
    files = [(str(path), path.name, _loader(path, AppraisalPolicy)) for path in _yaml_files(policies, problems)]
    return _assembled(files, guest_files, clusters, problems)


def read_policies(document: Mapping[str, Any], name: str, clusters: Mapping[str, bool]) -> Loaded[PolicySet]:
    """As `load_policies`, of one document: `policies`, each by a name as a file has it, and `guests`."""
    problems = [f"{name}: unknown key {key}" for key in sorted(set(document) - {"policies", "guests"})]
    policies, guests = document.get("policies"), document.get("guests")
    if not isinstance(policies, dict) or not isinstance(guests, dict):
        raise ConfigurationError([*problems, f"{name}: policies and guests, both mappings, are required"])
    entries = [(f"{name} {key}", str(key), _parser(f"{name} {key}", value)) for key, value in policies.items()]
    return _assembled(entries, [(name, name, lambda: GuestFile(guests))], clusters, problems)


_Records = Sequence[tuple[str, str, Callable[[], "AppraisalPolicy"]]]
_Guests = Sequence[tuple[str, str, Callable[[], "GuestFile"]]]


def _loader(path: Path, model: type[_Model]) -> Callable[[], _Model]:
    return lambda: load(path, model).value


def _parser(name: str, value: object) -> Callable[[], AppraisalPolicy]:
    return lambda: parse(json.dumps(value).encode(), AppraisalPolicy, name=name).value


def _assembled(
    policies: _Records, guests: _Guests, clusters: Mapping[str, bool], problems: list[str]
) -> Loaded[PolicySet]:
    """Each entry: where it is, what people call it, and how to have it (raises ConfigurationError)."""
    references, raw = _read_guests(guests, problems)
    records: list[tuple[str, AppraisalPolicy]] = []
    for place, name, have in policies:
        try:
            record = have()
        except ConfigurationError as error:
            problems += error.problems
            continue
        records.append((f"{record.workload.subject} ({name})", record))
        problems += _unknown(place, "cluster", [record.workload.cluster], clusters)
        problems += _unknown(place, "guest", record.guests, references)
    problems += _collisions(records, clusters)
    if problems:
        raise ConfigurationError(problems)
    found = tuple(_resolve(name, record, references, raw) for name, record in records)
    digest = hashlib.sha256("".join(sorted(policy.digest for policy in found)).encode()).hexdigest()
    return Loaded(_index(found), digest)


def _read_guests(guests: _Guests, problems: list[str]) -> tuple[dict[str, GuestReference], dict[str, Any]]:
    references: dict[str, GuestReference] = {}
    raw: dict[str, Any] = {}
    where: dict[str, str] = {}
    for place, label, have in guests:
        try:
            entries = have().root
        except ConfigurationError as error:
            problems += error.problems
            continue
        except ValidationError:
            problems.append(f"{place}: guests are no mapping of names to reference values")
            continue
        for name, entry in entries.items():
            if name in where:
                problems.append(f"{place}: guest {name} is also in {where[name]}; remove one")
                continue
            where[name] = label
            try:
                references[name], raw[name] = parse_guest(name, entry), entry
            except PolicyError as error:
                problems.append(f"{place}: {error}")
    return references, raw


def _yaml_files(folder: Path, problems: list[str] | None = None) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml") and path.name[0] != ".")
    except OSError as error:
        if problems is not None:
            problems.append(f"{folder}: cannot be read: {error.strerror}")
        return []


def _unknown(path: str, what: str, names: Sequence[str], known: Mapping[str, object]) -> list[str]:
    problems = []
    for name in names:
        if name not in known:
            problems.append(f"{path}: unknown {what} {name}{did_you_mean(name, known)}")
    return problems


def _collisions(records: Sequence[tuple[str, AppraisalPolicy]], clusters: Mapping[str, bool]) -> list[str]:
    """Pairs that could both be meant, or of which one hides the other."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, (_, record) in enumerate(records):
        workload = record.workload
        account = ("account", workload.cluster, workload.namespace, workload.serviceAccount)
        # Within one group only can two policies be meant at once.
        for key in (("subject", workload.subject), account, *(("hostData", digest) for digest in record.hostData)):
            groups.setdefault(key, []).append(index)
    problems: dict[tuple[int, int], str] = {}
    for group in groups.values():
        for pair in itertools.combinations(group, 2):
            (name, record), (other_name, other) = (records[index] for index in pair)
            if pair not in problems and (problem := _collision(record, other, clusters)):
                problems[pair] = f"{name} and {other_name}: {problem}"
    return list(problems.values())[:_MAX_PROBLEMS]


def _collision(record: AppraisalPolicy, other: AppraisalPolicy, clusters: Mapping[str, bool]) -> str:
    ours, theirs = record.workload, other.workload
    if ours.subject == theirs.subject:
        if record.assurance is not other.assurance:
            return "shadowed: whom one refuses, the other takes with assurance vm; keep one"
        return "overlapping: both are for this workload; merge their hostData and guests into one"
    shared = set(record.hostData) & set(other.hostData)
    # Two services may run in the same kind of guest when the token tells them apart.
    if shared and not record.assurance is other.assurance is Assurance.VM:
        digest = min(shared)
        return f"ambiguous: both list hostData {digest[:16]}…; measure each workload's initdata on its own"
    same_account = (ours.cluster, ours.namespace, ours.serviceAccount) == (
        theirs.cluster,
        theirs.namespace,
        theirs.serviceAccount,
    )
    if same_account and Assurance.VM in (record.assurance, other.assurance) and not clusters.get(ours.cluster):
        return f"ambiguous: a token of {ours.namespace}/{ours.serviceAccount} cannot tell them apart; {ADVICE_ACCOUNT}"
    return ""


def _resolve(
    name: str, record: AppraisalPolicy, references: Mapping[str, GuestReference], raw: Mapping[str, Any]
) -> Policy:
    canonical = json.dumps(
        [record.model_dump(mode="json"), {guest: raw[guest] for guest in record.guests}], sort_keys=True, default=str
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    return Policy(name, record, tuple(references[guest] for guest in record.guests), digest)


def _index(found: tuple[Policy, ...]) -> PolicySet:
    accounts: dict[tuple[str, str, str], tuple[Policy, ...]] = {}
    for policy in found:
        workload = policy.record.workload
        account = (workload.cluster, workload.namespace, workload.serviceAccount)
        accounts[account] = (*accounts.get(account, ()), policy)
    return PolicySet(
        policies=found,
        by_host_data={
            digest: policy
            for policy in found
            if policy.record.assurance is Assurance.WORKLOAD
            for digest in policy.record.host_data
        },
        by_digest={policy.digest: policy for policy in found},
        by_account=accounts,
    )
