"""Reading appraisal policies and guest reference values, which people or CI write and which lie beside Vault.

A record lies at CLUSTER/NAMESPACE/SERVICE.yaml and may name that workload alone, so the folder's own access control
says who may write whose record. A mounted ConfigMap has no folders: there the file is CLUSTER.NAMESPACE.SERVICE.yaml,
which is unambiguous because none of the three names has a dot. Guests lie in a folder of files, each `NAME: {…}` (see
`server.guest_entries`).

Each record stands for itself. A broken one keeps its last good text and neither blocks nor freezes another; one that is
gone is withdrawn at once. A folder that cannot be read keeps the records in it; a readable empty one withdraws them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from attestation.appraisal.result import Assurance
from attestation.verifier.policies.model import AppraisalPolicy, Policy, PolicySet
from kbs.reference_values import GuestReference
from server.guest_entries import GuestEntry, GuestFile
from server.text import did_you_mean
from server.yaml.strict import ConfigurationError, Loaded, load, validate

_MAX_PROBLEMS = 50
_T = TypeVar("_T")
_SUFFIXES = (".yaml", ".yml")
_LAYOUT = "CLUSTER/NAMESPACE/SERVICE.yaml"


@dataclass
class _Found(Generic[_T]):
    """One reading. `entries`: key → (its place, a function that reads it and raises ConfigurationError).

    `unreadable`: keys that begin with one of these may exist; they keep what they had.
    """

    entries: dict[str, tuple[str, Callable[[], _T]]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def values(self, kept: Mapping[str, _T]) -> dict[str, _T]:
        """Key → value: the new one, or the kept one of a key that cannot be read now."""
        values = {key: value for key, value in kept.items() if any(map(key.startswith, self.unreadable))}
        for key, (_, read) in self.entries.items():
            try:
                values[key] = read()
            except ConfigurationError as error:
                self.problems += error.problems
                if key in kept:
                    values[key] = kept[key]
        return values


class PolicyReader:
    """Reads again and again, and remembers the last good text of each record and each guest file.

    `clusters`: name to whether its pods are looked up.
    """

    def __init__(self, clusters: Mapping[str, bool]) -> None:
        self._clusters = clusters
        self._records: Mapping[str, AppraisalPolicy] = {}
        self._guest_files: Mapping[str, GuestFile] = {}
        self._guests: Mapping[str, tuple[str, GuestEntry]] = {}

    def folders(self, policies: Path, guests: Path) -> Loaded[PolicySet]:
        """The records in force; what is broken stands in `problems`."""
        return self._loaded(_records_in(policies, self._clusters), _guest_files_in(guests))

    def document(self, document: Mapping[str, Any], name: str) -> Loaded[PolicySet]:
        """As `folders`, of one document: `policies`, each under CLUSTER/NAMESPACE/SERVICE, and `guests`.

        Raises ConfigurationError for a document that has not these two mappings.
        """
        policies, guests = document.get("policies"), document.get("guests")
        if not isinstance(policies, dict) or not isinstance(guests, dict):
            raise ConfigurationError([f"{name}: policies and guests, both mappings, are required"])
        found: _Found[AppraisalPolicy] = _Found()
        found.problems += [f"{name}: unknown key {key}" for key in sorted(set(document) - {"policies", "guests"})]
        for key, value in policies.items():
            place = f"{name} {key}"
            found.entries[str(key)] = (place, _checked(_validator(place, value), str(key), place, self._clusters))
        files: _Found[GuestFile] = _Found()
        for guest, value in guests.items():
            place = f"{name} guests"
            files.entries[str(guest)] = (place, _guest_validator(place, {guest: value}))
        return self._loaded(found, files)

    def _loaded(self, found: _Found[AppraisalPolicy], files: _Found[GuestFile]) -> Loaded[PolicySet]:
        self._guest_files = files.values(self._guest_files)
        guests, problems = _without_duplicates(self._guest_files, self._guests)
        self._guests = guests
        problems = files.problems + problems
        records = found.values(self._records)
        records, collisions = _without_collisions(records, self._records, self._clusters)
        self._records = records
        entries = {name: entry for name, (_, entry) in guests.items()}
        policies: list[Policy] = []
        for key, record in sorted(records.items()):
            place = found.entries[key][0] if key in found.entries else key
            problems += [
                f"{place}: unknown guest {guest}{did_you_mean(guest, entries)}"
                for guest in record.guests
                if guest not in entries
            ]
            problems += [
                f"{place}: guest {guest} does not state initdata: enforced, which assurance workload needs: a guest"
                " that runs without its document proves no workload"
                for guest in record.guests
                if guest in entries and not _suits(record, entries[guest])
            ]
            usable = {guest: entry for guest, entry in entries.items() if _suits(record, entry)}
            if any(guest in usable for guest in record.guests):
                policies.append(_resolve(key, record, usable))
        digest = hashlib.sha256("".join(policy.digest for policy in policies).encode()).hexdigest()
        problems = [*found.problems, *problems, *collisions]
        return Loaded(PolicySet.of(policies), digest, tuple(problems[:_MAX_PROBLEMS]))


def policy_files(folders: Sequence[Path]) -> list[Path]:
    """The folders, the folders in them and the YAML files: what a watch has to look at."""
    return [path for folder in folders for path in (folder, *_below(folder, 0))]


def load_policies(policies: Path, guests: Path, clusters: Mapping[str, bool]) -> Loaded[PolicySet]:
    """Both folders, of which every file must be valid. Raises ConfigurationError, with all problems."""
    loaded = PolicyReader(clusters).folders(policies, guests)
    if loaded.problems:
        raise ConfigurationError(loaded.problems)
    return loaded


def _below(folder: Path, depth: int) -> Iterator[Path]:
    try:
        paths = _visible(folder)
    except OSError:
        return
    for path in paths:
        if path.suffix in _SUFFIXES:
            yield path
        elif depth < 2 and path.is_dir():
            yield path
            yield from _below(path, depth + 1)


def _visible(folder: Path) -> list[Path]:
    """Without the names that a mounted ConfigMap keeps for itself. Raises OSError."""
    return sorted(path for path in folder.iterdir() if path.name[0] != ".")


def _records_in(folder: Path, clusters: Mapping[str, bool]) -> _Found[AppraisalPolicy]:
    found: _Found[AppraisalPolicy] = _Found()
    _search(folder, folder, "", found, clusters)
    return found


def _search(
    root: Path, folder: Path, prefix: str, found: _Found[AppraisalPolicy], clusters: Mapping[str, bool]
) -> None:
    """Collect the records below `folder`, whose path in `root` is `prefix`: empty, or `CLUSTER/`, or both names."""
    try:
        paths = _visible(folder)
    except OSError as error:
        found.problems.append(f"{folder}: cannot be read: {error.strerror}")
        found.unreadable.append(prefix)
        return
    depth = prefix.count("/")
    for path in paths:
        if path.suffix not in _SUFFIXES:
            if depth < 2 and path.is_dir():
                _search(root, path, f"{prefix}{path.name}/", found, clusters)
        elif depth != 2 and not (depth == 0 and path.stem.count(".") == 2):
            found.problems.append(_misplaced(root, path))
        else:
            key = f"{prefix}{path.stem}" if depth else path.stem.replace(".", "/")
            if key in found.entries:
                found.problems.append(f"{path}: {found.entries[key][0]} is the same record; remove one")
                continue
            found.entries[key] = (str(path), _checked(_loader(path), key, str(path), clusters, root))


def _misplaced(root: Path, path: Path) -> str:
    try:
        subject = load(path, AppraisalPolicy).value.workload.subject
    except ConfigurationError:
        return f"{path}: a record lies at {root}/{_LAYOUT}; move it there"
    return f"{path}: a record lies at {_LAYOUT}; move it to {root}/{subject}.yaml"


def _guest_files_in(folder: Path) -> _Found[GuestFile]:
    found: _Found[GuestFile] = _Found()
    try:
        paths = [path for path in _visible(folder) if path.suffix in _SUFFIXES]
    except OSError as error:
        found.problems.append(f"{folder}: cannot be read: {error.strerror}")
        found.unreadable.append("")
        return found
    for path in paths:
        found.entries[path.name] = (str(path), _guest_loader(path))
    return found


def _loader(path: Path) -> Callable[[], AppraisalPolicy]:
    return lambda: load(path, AppraisalPolicy).value


def _guest_loader(path: Path) -> Callable[[], GuestFile]:
    return lambda: load(path, GuestFile).value


def _guest_validator(name: str, value: object) -> Callable[[], GuestFile]:
    return lambda: validate(value, GuestFile, name=name)


def _validator(name: str, value: object) -> Callable[[], AppraisalPolicy]:
    return lambda: validate(value, AppraisalPolicy, name=name)


def _checked(
    read: Callable[[], AppraisalPolicy], key: str, place: str, clusters: Mapping[str, bool], root: Path | None = None
) -> Callable[[], AppraisalPolicy]:
    """`read`, and the requirements that a record meets on its own."""

    def checked() -> AppraisalPolicy:
        record = read()
        workload = record.workload
        problems = []
        if workload.subject != key:
            right = workload.subject if root is None else f"{root}/{workload.subject}.yaml"
            problems.append(f"{place}: names workload {workload.subject}; such a record lies at {right}")
        if workload.cluster not in clusters:
            problems.append(f"{place}: unknown cluster {workload.cluster}{did_you_mean(workload.cluster, clusters)}")
        elif record.assurance is Assurance.VM and not clusters[workload.cluster]:
            problems += [f"{place}: {problem}" for problem in _without_read_back(record)]
        if problems:
            raise ConfigurationError(problems)
        return record

    return checked


def _without_read_back(record: AppraisalPolicy) -> list[str]:
    """With assurance vm a token alone says whose pod it is, and a token names an account, never a Service."""
    workload = record.workload
    advice = f"set readBack for cluster {workload.cluster} in the verifier's configuration"
    if workload.serviceAccount == "default":
        return [
            f"workload.serviceAccount is default, under which any pod of {workload.namespace} may run, and assurance "
            f"vm takes the account's word for the Service; {advice}, or give the Service an account of its own: "
            f"serviceAccount: {workload.service}, and exclusiveServiceAccount: true"
        ]
    if not record.exclusiveServiceAccount:
        return [
            f"assurance vm takes the word of account {workload.serviceAccount} for the Service; {advice}, or state "
            "that nothing else runs under the account: exclusiveServiceAccount: true"
        ]
    return []


def _without_duplicates(
    files: Mapping[str, GuestFile], before: Mapping[str, tuple[str, GuestEntry]]
) -> tuple[dict[str, tuple[str, GuestEntry]], list[str]]:
    """Guest → (its file, its entry). Of a guest in two files the one that was in force stays, else neither counts."""
    places: dict[str, list[str]] = {}
    for file, content in sorted(files.items()):
        for name in content.root:
            places.setdefault(name, []).append(file)
    found: dict[str, tuple[str, GuestEntry]] = {}
    problems: list[str] = []
    for name, where in places.items():
        if len(where) > 1:
            problems.append(f"{where[1]}: guest {name} is also in {where[0]}; remove one")
        holders = where if len(where) == 1 else [file for file in where if name in before and before[name][0] == file]
        if holders:
            found[name] = (holders[0], files[holders[0]].root[name])
    return found, problems


def _without_collisions(
    records: dict[str, AppraisalPolicy], before: Mapping[str, AppraisalPolicy], clusters: Mapping[str, bool]
) -> tuple[dict[str, AppraisalPolicy], list[str]]:
    """The records of which no two can be meant by one pod: a new or edited record never displaces another one."""
    records, problems = dict(records), list[str]()
    while found := _collisions(records, clusters):
        losers: set[str] = set()
        for (key, other), problem in found.items():
            changed = {each for each in (key, other) if records[each] != before.get(each)}
            losers |= changed or {key, other}
            problems.append(f"{key} and {other}: {problem}")
        for key in losers:
            if key in before and records[key] != before[key]:
                records[key] = before[key]
            else:
                del records[key]
    return records, problems


def _collisions(records: Mapping[str, AppraisalPolicy], clusters: Mapping[str, bool]) -> dict[tuple[str, str], str]:
    accounts: dict[tuple[str, str, str], list[str]] = {}
    for key, record in records.items():
        workload = record.workload
        # With the pod looked up, its label tells the Services of one account apart.
        if not clusters.get(workload.cluster):
            accounts.setdefault((workload.cluster, workload.namespace, workload.serviceAccount), []).append(key)
    problems: dict[tuple[str, str], str] = {}
    for keys in accounts.values():
        for pair in itertools.combinations(sorted(keys), 2):
            if problem := _collision(records[pair[0]], records[pair[1]]):
                problems[pair] = problem
    return problems


def _collision(record: AppraisalPolicy, other: AppraisalPolicy) -> str:
    workload = record.workload
    if Assurance.VM in (record.assurance, other.assurance):
        return (
            f"ambiguous: a token of {workload.namespace}/{workload.serviceAccount} cannot tell them apart; give each "
            "Service its own service account, or set readBack for the cluster"
        )
    if shared := set(record.hostData) & set(other.hostData):
        return f"ambiguous: both list hostData {min(shared)[:16]}…; measure each workload's initdata on its own"
    return ""


def _suits(record: AppraisalPolicy, entry: GuestEntry) -> bool:
    return record.assurance is not Assurance.WORKLOAD or entry.initdata == "enforced"


def _resolve(name: str, record: AppraisalPolicy, entries: Mapping[str, GuestEntry]) -> Policy:
    guests = [guest for guest in record.guests if guest in entries]
    written = {guest: entries[guest].written for guest in guests}
    canonical = json.dumps([record.model_dump(mode="json"), written], sort_keys=True, default=str)
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    references: tuple[GuestReference, ...] = tuple(entries[guest].reference(guest) for guest in guests)
    return Policy(name, record, references, digest)
