"""Kubernetes objects as a diff may show them: the whole structure, the author's values hidden.

Any text can be a secret, so this module lists the texts that are shown, never those that are hidden: members that
Kubernetes restricts to names and choices, instructions to the scheduler, Vault references, and injected parts. A text
is hidden under the same number throughout a document, so that a reader sees where it moved.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from plan import layout
from plan.codec import read_plan
from plan.document import AGENTS, NO_REACTION, PlanError
from webhook.configuration.model import Configuration
from webhook.errors import BadReferenceError
from webhook.pod.references import SecretPrefix, is_reference, parse, parse_variable
from webhook.rewrite.mesh import EXCLUDED_PORTS
from webhook.rewrite.status import status_text
from webhook.wellknown import KNATIVE_PREFIX, PREFIX, STATUS

Path = tuple[str | int, ...]

# Members whose texts are names, enumerations or quantities by Kubernetes' own validation.
_NAMES: Final = frozenset(
    (
        "apiVersion",
        "kind",
        "name",
        "namespace",
        "generateName",
        "image",
        "imagePullPolicy",
        "mountPath",
        "runtimeClassName",
        "serviceAccountName",
        "serviceAccount",
        "schedulerName",
        "priorityClassName",
        "nodeName",
        "restartPolicy",
        "dnsPolicy",
        "preemptionPolicy",
        "protocol",
        "scheme",
        "medium",
        "sizeLimit",
        "type",
        "terminationMessagePath",
        "terminationMessagePolicy",
        "drop",
        "fsGroupChangePolicy",
        "secretName",
        "claimName",
        "fieldPath",
        "schedule",
    )
)
# Everything below these is for the scheduler or a quantity.
_TREES: Final = frozenset(
    ("affinity", "tolerations", "nodeSelector", "topologySpreadConstraints", "resources", "overhead", "strategy")
)
_WORDS: Final = frozenset(("true", "false", *AGENTS, NO_REACTION))
_PORTS: Final = re.compile(r"[0-9]{1,5}(,[0-9]{1,5})*")
_ANY_PREFIX: Final = SecretPrefix("~/")


@dataclass(slots=True)
class Redaction:
    """Hides the values of `before`, the author's object; the numbers are those of one document."""

    configuration: Configuration
    before: dict[str, Any]
    _numbers: dict[str, int] = field(default_factory=dict)
    _authored: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._authored = list(_init_containers(self.before))

    def redacted(self, item: Any, at: Path = ()) -> Any:
        """A copy of the object, or of the part of one that stands at the path, fit to be shown."""
        if self._is_ours(item, at):
            return self._own(item)
        if isinstance(item, dict):
            shown = {key: self.redacted(value, (*at, key)) for key, value in item.items()}
            if item.get("command"):
                shown["command"] = self._command(item["command"], item.get("name"))
            return shown
        if isinstance(item, list):
            return [self.redacted(value, (*at, index)) for index, value in enumerate(item)]
        if isinstance(item, str) and not self._is_harmless(item, at):
            return self._hidden(item)
        return item

    def _hidden(self, text: str) -> str:
        return f"<hidden {self._numbers.setdefault(text, len(self._numbers) + 1)}>"

    def _is_harmless(self, text: str, at: Path) -> bool:
        keys = [step for step in at if isinstance(step, str)]
        if not text or not keys:
            return not text
        parent = keys[-2] if len(keys) > 1 else ""
        if parent == "annotations":
            return self._is_known_annotation(keys[-1], text)
        if parent in ("labels", "matchLabels"):
            return keys[-1].startswith(KNATIVE_PREFIX)
        if keys[-1] == "value" and parent == "env":
            return _is_whole_reference(text)
        return keys[-1] in _NAMES or not _TREES.isdisjoint(keys)

    def _is_known_annotation(self, key: str, text: str) -> bool:
        if key in EXCLUDED_PORTS:
            return _PORTS.fullmatch(text) is not None
        if key == STATUS:
            template = self.configuration.container_template
            return any(
                text == status_text(template.injector, template.digest, self.configuration.digest, name)
                for name in self.configuration.profile_by_name
            )
        if not key.startswith(PREFIX):
            return False
        if key.startswith(f"{PREFIX}secret-"):
            return _is_path(text)
        if key == f"{PREFIX}env-from":
            return all(_is_path(part) for part in text.split(","))
        return text in _WORDS or (key == f"{PREFIX}profile" and text in self.configuration.profile_by_name)

    def _command(self, words: Any, container: Any) -> Any:
        """The words that injection put in front of a command stay readable: the helper and the container's name."""
        if not isinstance(words, list):
            return self.redacted(words, ("command",))
        shown = 3 if words[:3] == [layout.EXEC_HELPER, container, "--"] else 0
        return words[:shown] + [self.redacted(word, ("command",)) for word in words[shown:]]

    def _is_ours(self, item: Any, at: Path) -> bool:
        """Whether injection made this: a volume of exactly its kind, or a container that the author did not write."""
        if not isinstance(item, dict) or len(at) < 2:
            return False
        if at[-2] == "volumes":
            return item in self.configuration.container_template.volumes
        return (
            at[-2] == "initContainers"
            and item.get("name") == layout.CONTAINER
            and item.get("image") == self.configuration.sidecar.image
            and item not in self._authored
            and _carried_plan(item) is not None
        )

    def _own(self, item: dict[str, Any]) -> dict[str, Any]:
        """The container with its plan expanded and the plan's templates hidden, which are the author's texts."""
        plan = _carried_plan(item)
        if plan is None:
            return item
        for variable in plan.get("env") or ():
            if "value" in variable:
                variable["value"] = self._hidden(variable["value"])
        for secret in plan.get("secrets") or ():
            if secret.get("template"):
                secret["template"] = self._hidden(secret["template"])
        return {**item, "env": [{"name": layout.PLAN_VARIABLE, "value": plan}]}


def _carried_plan(container: dict[str, Any]) -> dict[str, Any] | None:
    """The plan in a container that has nothing else in its environment."""
    env = container.get("env")
    if not isinstance(env, list) or len(env) != 1 or env[0].get("name") != layout.PLAN_VARIABLE:
        return None
    try:
        read_plan(env[0].get("value") or "")
    except PlanError:
        return None
    plan: dict[str, Any] = json.loads(env[0]["value"])
    return plan


def _init_containers(item: Any) -> Iterator[Any]:
    if isinstance(item, dict):
        for key, value in item.items():
            if key == "initContainers" and isinstance(value, list):
                yield from value
            yield from _init_containers(value)
    elif isinstance(item, list):
        for value in item:
            yield from _init_containers(value)


def _is_whole_reference(text: str) -> bool:
    if not is_reference(text):
        return False
    try:
        parse_variable(text, _ANY_PREFIX)
    except BadReferenceError:
        return False
    return True


def _is_path(text: str) -> bool:
    try:
        parse(text, _ANY_PREFIX)
    except BadReferenceError:
        return False
    return True
