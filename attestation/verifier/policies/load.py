"""Reading appraisal policies and guest reference values, which people or CI write and which lie beside Vault.

A folder of policies, one per file, and a folder of guests, each file `NAME: {…}` (see `server.guest_entries`). They are
read together, because a policy is useless without its guests: either all files are valid, or none is used.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from attestation.appraisal.result import Assurance
from attestation.verifier.policies.model import AppraisalPolicy, Policy, PolicySet
from kbs.reference_values import GuestReference
from server.guest_entries import GuestEntry, GuestFile
from server.text import did_you_mean
from server.yaml.strict import ConfigurationError, Loaded, load, validate

_MAX_PROBLEMS = 50
_Model = TypeVar("_Model", bound=BaseModel)
ADVICE_ACCOUNT = "give each Service its own service account, or set readBack for the cluster"


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
    entries = [
        (f"{name} {key}", str(key), _validator(f"{name} {key}", value, AppraisalPolicy))
        for key, value in policies.items()
    ]
    guest_entries = [(f"{name} guests", name, _validator(f"{name} guests", guests, GuestFile))]
    return _assembled(entries, guest_entries, clusters, problems)


_Records = Sequence[tuple[str, str, Callable[[], "AppraisalPolicy"]]]
_Guests = Sequence[tuple[str, str, Callable[[], "GuestFile"]]]


def _loader(path: Path, model: type[_Model]) -> Callable[[], _Model]:
    return lambda: load(path, model).value


def _validator(name: str, value: object, model: type[_Model]) -> Callable[[], _Model]:
    return lambda: validate(value, model, name=name)


def _assembled(
    policies: _Records, guests: _Guests, clusters: Mapping[str, bool], problems: list[str]
) -> Loaded[PolicySet]:
    """Each entry: its place, its name for people, and a function that reads it (raises ConfigurationError)."""
    entries = _read_guests(guests, problems)
    records: list[tuple[str, AppraisalPolicy]] = []
    for place, name, read in policies:
        try:
            record = read()
        except ConfigurationError as error:
            problems += error.problems
            continue
        records.append((f"{record.workload.subject} ({name})", record))
        problems += _unknown(place, "cluster", [record.workload.cluster], clusters)
        problems += _unknown(place, "guest", record.guests, entries)
    problems += _collisions(records, clusters)
    if problems:
        raise ConfigurationError(problems)
    found = tuple(_resolve(name, record, entries) for name, record in records)
    digest = hashlib.sha256("".join(sorted(policy.digest for policy in found)).encode()).hexdigest()
    return Loaded(_index(found), digest)


def _read_guests(guests: _Guests, problems: list[str]) -> dict[str, GuestEntry]:
    found: dict[str, GuestEntry] = {}
    where: dict[str, str] = {}
    for place, label, read in guests:
        try:
            entries = read().root
        except ConfigurationError as error:
            problems += error.problems
            continue
        for name, entry in entries.items():
            if name in where:
                problems.append(f"{place}: guest {name} is also in {where[name]}; remove one")
                continue
            found[name], where[name] = entry, label
    return found


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
    """Pairs that match the same guest, or of which one hides the other."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, (_, record) in enumerate(records):
        workload = record.workload
        account = ("account", workload.cluster, workload.namespace, workload.serviceAccount)
        # Two policies can match the same guest only within one group.
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
            return "shadowed: a guest refused by one is accepted by the other with assurance vm; keep one"
        return "overlapping: both are for this workload; merge their hostData and guests into one"
    shared = set(record.hostData) & set(other.hostData)
    # Two services may run in the same kind of guest when the token distinguishes them.
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


def _resolve(name: str, record: AppraisalPolicy, entries: Mapping[str, GuestEntry]) -> Policy:
    written = {guest: entries[guest].written for guest in record.guests}
    canonical = json.dumps([record.model_dump(mode="json"), written], sort_keys=True, default=str)
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    references: tuple[GuestReference, ...] = tuple(entries[guest].reference(guest) for guest in record.guests)
    return Policy(name, record, references, digest)


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
