"""Which variables of a manifest move into Vault, and the manifest that refers to them: pure, without a call to Vault.

A variable moves only where injection accepts what comes of it: each container's change is judged by the rules, and
left to a person with the rules' own message where a pod with it would be refused.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cli.conversion.step import mappings
from cli.conversion.templates import PodTemplate, pod_template
from cli.support.findings import Checker, Finding, holds_pod
from cli.support.manifests import Manifest, manifests_of
from plan.document import is_variable_name
from plan.expansion import split_expansions
from server.text import printable
from server.yaml.kubernetes import Document
from webhook.configuration.model import Configuration
from webhook.detection import Detector
from webhook.errors import BadReferenceError, MalformedError
from webhook.modes import Mode
from webhook.pod.annotations import own_annotations
from webhook.pod.container import display_name
from webhook.pod.opt_in import opts_out
from webhook.pod.pod import Pod
from webhook.pod.references import SCHEME, mentions, parse
from webhook.pod.workloads import knative_kind, workload_of
from webhook.rules.secrets.plaintext_env import detector_of
from webhook.wellknown import INITDATA, KNATIVE_SERVICE, PREFIX, USER_CONTAINER

_GROUPS: Final = ("initContainers", "containers")
_PLAINTEXT: Final = ("secrets/plaintext-env", "secrets/plaintext-fields", "secrets/last-applied")


@dataclass(frozen=True, slots=True)
class Move:
    """One variable whose value moves to `key` of the secret at the logical `path`. `document` counts from 0."""

    document: int
    object: str
    container: str
    variable: str
    path: str
    key: str
    value: str = field(repr=False)
    written: str = field(repr=False)
    """As the manifest has it: Kubernetes reads `$$` as one dollar sign, so the application gets `value`."""

    def __str__(self) -> str:
        name = display_name(self.variable)
        return f"{self.object}: container {self.container}: {name} -> {self.path}#{self.key}"


@dataclass(frozen=True, slots=True)
class Left:
    """Something that a person has to move. Never holds a value."""

    object: str
    text: str

    def __str__(self) -> str:
        return f"{self.object}: {self.text}"


@dataclass(frozen=True, slots=True)
class Migration:
    """The objects, one per document, as they become; what moves; what is left to a person."""

    objects: tuple[dict[str, Any], ...]
    moves: tuple[Move, ...]
    left: tuple[Left, ...]


class PathError(ValueError):
    """The path cannot be used; the text is one line for people."""


def plan_migration(
    documents: Sequence[Document],
    configuration: Configuration,
    vault_path: str,
    namespace: str | None = None,
    names: Collection[str] = (),
) -> Migration:
    """What moves. `names` are variables that move whatever they look like. Raises PathError, UnusableInputError.

    In `vault_path`, `{namespace}` and `{name}` stand for the object's own, and `~/` for its own prefix.
    """
    planner = _Planner(configuration, vault_path, frozenset(names))
    objects = []
    for index, document in enumerate(documents):
        new = copy.deepcopy(document.object)
        for before, after in zip(
            manifests_of(document, namespace), manifests_of(_with(document, new), namespace), strict=True
        ):
            planner.take(index, before, after)
        objects.append(new)
    return Migration(tuple(objects), tuple(planner.moves), tuple(dict.fromkeys(planner.left)))


def without_documents(migration: Migration, documents: Sequence[Document], kept: Collection[int]) -> Migration:
    """The migration with these documents, by number, as they were."""
    objects = (documents[index].object if index in kept else object_ for index, object_ in enumerate(migration.objects))
    text = "the reference cannot be written without losing comments or anchors; write it by hand: "
    left = [
        Left(move.object, f"{text}{display_name(move.variable)} of container {move.container}")
        for move in migration.moves
        if move.document in kept
    ]
    moves = tuple(move for move in migration.moves if move.document not in kept)
    return Migration(tuple(objects), moves, (*migration.left, *left))


def _with(document: Document, object_: dict[str, Any]) -> Document:
    return Document(object_, document.source, document.line, document.node, document.span)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One variable of a container that holds a secret."""

    variable: dict[str, Any]
    value: str


class _Planner:
    def __init__(self, configuration: Configuration, vault_path: str, names: frozenset[str]) -> None:
        self._configuration = configuration
        self._vault_path = vault_path
        self._names = names
        self._detector: Detector = detector_of(configuration.plaintext)
        self._checker = Checker(configuration, None, Mode.ENFORCE)
        # (path, key) -> (value, the object that it is of)
        self._values: dict[tuple[str, str], tuple[str, str]] = {}
        self.moves: list[Move] = []
        self.left: list[Left] = []

    def take(self, index: int, before: Manifest, after: Manifest) -> None:
        """Plan one object; `after` is a copy that this changes."""
        template = pod_template(after.object)
        if template is None:
            self.left += [Left(before.title, text) for text in self._elsewhere(before.object)]
            return
        self._findings(before)  # Whose shape is that of its kind, or the command ends here.
        pod = _pod(template, before, self._configuration)
        reason = _stays_whole(pod)
        moved = [
            move
            for group in _GROUPS
            for container in mappings(template.spec.get(group))
            for move in self._container(index, before, after, template, container, pod, reason)
        ]
        self.moves += moved
        # Outside env no reference can replace a secret; each one in env has moved or is named already.
        for finding in self._findings(after):
            if finding.rule.id in _PLAINTEXT and ".env[" not in finding.field:
                self.left.append(Left(after.title, finding.message))

    def _container(
        self,
        index: int,
        before: Manifest,
        after: Manifest,
        template: PodTemplate,
        container: dict[str, Any],
        pod: Pod,
        reason: str,
    ) -> Iterator[Move]:
        label = printable(str(container.get("name") or USER_CONTAINER))
        found: list[_Candidate] = []
        for variable in mappings(container.get("env")):
            if not self._is_secret(variable):
                continue
            problem = reason or _stays(variable, pod)
            if problem:
                self._leave(before, label, variable, problem)
            else:
                text = "".join(part for part, _ in split_expansions(variable["value"]))
                found.append(_Candidate(variable, text))
        if not found:
            return
        moves = [self._move(index, before, label, pod, each) for each in found]
        written = [each.variable["value"] for each in found]
        metadata = copy.deepcopy(template.template.get("metadata"))
        for candidate, move in zip(found, moves, strict=True):
            candidate.variable["value"] = f"{SCHEME}{self._spelled(before)}#{move.key}"
        _opt_in(template)
        refusals = self._refusals(after)
        if not refusals:
            yield from moves
            return
        for candidate, value in zip(found, written, strict=True):
            candidate.variable["value"] = value
            self._leave(before, label, candidate.variable, refusals[0])
        _put_back(template.template, metadata)

    def _is_secret(self, variable: dict[str, Any]) -> bool:
        name, value = variable.get("name"), variable.get("value")
        if not isinstance(name, str) or not isinstance(value, str) or not value or mentions(value):
            return False
        return name in self._names or self._detector.find(name, value) is not None

    def _move(self, index: int, manifest: Manifest, container: str, pod: Pod, candidate: _Candidate) -> Move:
        name = candidate.variable["name"]
        try:
            reference = parse(self._spelled(manifest), pod.secret_prefix, key=False)
        except BadReferenceError as error:
            raise PathError(f"--vault-path {error}") from None
        path = reference.path
        if reference.version is not None:
            raise PathError("--vault-path names a version; write the path alone, such as secret/shop/payments")
        if not any(path.startswith(f"{mount}/") for mount in self._configuration.vault.kv2_mounts):
            mounts = ", ".join(self._configuration.vault.kv2_mounts) or "none"
            raise PathError(
                f"--vault-path {printable(path)} does not lie in a KV mount of version 2 (the configuration's"
                f" vault.mounts has: {mounts}); write one such as secret/shop/payments"
            )
        for key in (name, f"{container}.{name}"):
            value, owner = self._values.setdefault((path, key), (candidate.value, manifest.title))
            if value == candidate.value:
                written = candidate.variable["value"]
                return Move(index, manifest.title, container, name, path, key, candidate.value, written)
            if owner != manifest.title:
                break
        raise PathError(
            f"{manifest.title}: container {container}: two values would be key {display_name(name)} of"
            f" {printable(path)}; keep the objects apart: --vault-path secret/{{namespace}}/{{name}}"
        )

    def _spelled(self, manifest: Manifest) -> str:
        path = self._vault_path.replace("{namespace}", manifest.namespace).replace("{name}", manifest.name)
        return path.strip("/")

    def _leave(self, manifest: Manifest, container: str, variable: dict[str, Any], problem: str) -> None:
        name = display_name(variable["name"])
        self.left.append(Left(manifest.title, f"container {container}: {name} was not moved: {problem}"))

    def _refusals(self, after: Manifest) -> list[str]:
        """Why injection would refuse the object."""
        return [str(each.message) for each in self._findings(after) if each.rule.needed_for_injection]

    def _findings(self, manifest: Manifest) -> tuple[Finding, ...]:
        try:
            result = self._checker.check(manifest)
        except MalformedError as error:
            raise manifest.unusable(error) from None
        return () if result is None else result.findings

    def _elsewhere(self, object_: dict[str, Any]) -> Iterator[str]:
        """What an object without a pod of ours holds: variables for pods, or pods of a kind that is not known."""
        kind = str(object_.get("kind"))
        if object_.get("apiVersion") == "v1" and kind == "ConfigMap":
            data = object_.get("data")
            for key, value in data.items() if isinstance(data, dict) else ():
                if isinstance(value, str) and self._detector.find(str(key), value) is not None:
                    yield f"key {display_name(str(key))} looks like a secret in plain text; store it in Vault by hand"
        elif object_.get("apiVersion") == "v1" and kind == "Secret":
            yield "a Secret is in etcd and in this file; store its values in Vault and delete it"
        elif workload_of(object_) is None and knative_kind(object_) is None and holds_pod(object_):
            yield "not looked at, but it has a pod template in it; move its variables by hand"
        elif knative_kind(object_) == "Revision":
            yield "a Revision cannot be changed; migrate its Service"


def _pod(template: PodTemplate, manifest: Manifest, configuration: Configuration) -> Pod:
    item = template.template
    metadata = dict(item.get("metadata") or {})
    annotations: dict[str, Any] = {}
    for each in reversed(list(template.annotations)):
        annotations |= each
    metadata["annotations"] = {key: value for key, value in annotations.items() if isinstance(value, str)}
    if template.knative:
        metadata["labels"] = {**(metadata.get("labels") or {}), KNATIVE_SERVICE: manifest.name}
    return Pod({**item, "metadata": metadata}, manifest.namespace, configuration)


def _stays_whole(pod: Pod) -> str:
    """Why nothing of the pod moves; empty where it can."""
    if opts_out(pod, Mode.INJECT):
        return f"the pod opts out of injection; remove the annotation {PREFIX}inject"
    if INITDATA in pod.annotations:
        return "the pod is measured as it is; migrate the manifest that `morphisms render` read"
    return ""


def _stays(variable: dict[str, Any], pod: Pod) -> str:
    """Why the variable does not move; empty where it can."""
    name, value = variable["name"], variable["value"]
    if not is_variable_name(name):
        return "its name is not one that the exec helper can set; rename it"
    if name in pod.options.literal_env:
        return f"the annotation {PREFIX}literal-env says that it is text; remove the name there"
    if any(expanded is not None for _, expanded in split_expansions(value)):
        return "it expands $(…), which a fetched value does not; write the parts with inline references"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "it is not text in UTF-8, and Vault stores no other"
    return ""


def _opt_in(template: PodTemplate) -> None:
    """Let the pod opt in, unless its annotations say so already."""
    if any("inject" in own_annotations(each) for each in template.annotations):
        return
    metadata = template.template.get("metadata")
    if not isinstance(metadata, dict):
        metadata = template.template["metadata"] = {}
    annotations = metadata.get("annotations")
    if not isinstance(annotations, dict):
        annotations = metadata["annotations"] = {}
    annotations[f"{PREFIX}inject"] = "true"


def _put_back(template: dict[str, Any], metadata: Any) -> None:
    if metadata is None:
        template.pop("metadata", None)
    else:
        template["metadata"] = metadata
