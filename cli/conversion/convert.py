"""The translation of one object: the changes, the annotations that stay, and a message about each.

The other injector's switch goes last: while anything of Vault Agent's is left, `agent-inject` stays beside our
`inject`, so that admission refuses the half-translated pod. Else it would run without some of its secrets.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cli.conversion import bank_vaults, vault_agent
from cli.conversion.leftovers import FOREIGN, leftovers, speaks_ours
from cli.conversion.step import Context, Note, Step, left, left_for
from cli.conversion.templates import PodTemplate, pod_template
from server.text import printable
from webhook.configuration.model import Configuration
from webhook.pod.annotations import own_annotations, parse_annotations
from webhook.pod.other_injectors import BANK_VAULTS_PREFIXES, VAULT_AGENT_PREFIXES
from webhook.pod.references import SecretPrefix
from webhook.wellknown import PREFIX

# Any will do: nothing that is translated starts with ~/.
_HOME = SecretPrefix("home/")
# Whether a ConfigMap's or Secret's key (None: any key) holds a reference, by kind and name; None: not in the input.
Holds = Callable[[str, str, str | None], bool | None]


@dataclass(frozen=True, slots=True)
class Message:
    """One line for a person. `left`: an annotation stays for that person. `key` is an annotation or a place."""

    object: str
    key: str
    text: str
    left: bool

    def __str__(self) -> str:
        return f"{self.object}: {self.key}: {self.text}"


@dataclass(frozen=True, slots=True)
class Converted:
    """A new object, and the messages about it."""

    object: dict[str, Any]
    messages: tuple[Message, ...]

    @property
    def complete(self) -> bool:
        """Whether everything was translated, so that no person has to act."""
        return not any(message.left for message in self.messages)


def _holds_unknown(kind: str, name: str, key: str | None) -> bool | None:
    return None


def convert(object_: Mapping[str, Any], configuration: Configuration, holds: Holds = _holds_unknown) -> Converted:
    """Translate one Kubernetes object (a List's items are the caller's); kinds without a pod come back unchanged.

    `holds` knows the ConfigMaps and Secrets beside the object.
    """
    result: dict[str, Any] = copy.deepcopy(dict(object_))
    metadata = result.get("metadata")
    name = metadata.get("name") or f"{metadata.get('generateName', '')}*" if isinstance(metadata, dict) else "*"
    who = printable(f"{result.get('kind')}/{name}")
    template = pod_template(result)
    notes: list[tuple[Note, bool]] = []
    if template is not None:
        notes = list(_Translation(template, configuration, holds).run())
    notes += [(note, True) for note in leftovers(result, template, native=speaks_ours(object_))]
    return Converted(result, tuple(Message(who, note.key, note.text, is_left) for note, is_left in notes))


class _Injector:
    """One injector's annotations in the maps of a pod; its newer prefix wins, as it does with the injector itself."""

    def __init__(self, maps: list[dict[str, Any]], prefixes: Iterable[str]) -> None:
        self._maps = maps
        self._prefixes = tuple(prefixes)
        self.values: dict[str, str] = {}
        for each in maps:
            for prefix in reversed(self._prefixes):
                for key, value in each.items():
                    if key.startswith(prefix) and isinstance(value, str):
                        self.values.setdefault(key[len(prefix) :], value)

    def places(self, key: str) -> list[tuple[dict[str, Any], str]]:
        """Each map and the full key in it; the one that has effect comes first."""
        whole = [prefix + key for prefix in reversed(self._prefixes)]
        return [(annotations, each) for annotations in self._maps for each in whole if each in annotations]

    def shown(self, key: str) -> str:
        places = self.places(key)
        return places[0][1] if places else self._prefixes[0] + key


class _Translation:
    """The translation of one pod; it changes the given maps."""

    def __init__(self, template: PodTemplate, configuration: Configuration, holds: Holds) -> None:
        self._template = template
        self._holds = holds
        self._maps = list(template.annotations)
        self._configuration = configuration
        self._native: dict[str, str] = {}
        for each in reversed(self._maps):
            self._native |= own_annotations(each)

    def run(self) -> Iterator[tuple[Note, bool]]:
        agent = _Injector(self._maps, VAULT_AGENT_PREFIXES)
        bank = _Injector(self._maps, BANK_VAULTS_PREFIXES)
        bank_context = self._context(bank)
        out = bank_vaults.opted_out(bank_context, self._labels())
        steps = [(agent, step) for step in vault_agent.translate(self._context(agent))]
        steps += [(bank, step) for step in bank_vaults.translate(bank_context)]
        steps = self._without_problems(self._without_contradictions(steps))
        agent_left = any(step.left and not step.harmless for injector, step in steps if injector is agent)
        for injector, step in steps:
            stays = bool(step.left) or (agent_left and injector is agent and vault_agent.SWITCH in step.keys)
            yield from self._apply(injector, step, stays)
        yield from self._not_text()
        if agent.values or bank.values:
            for place in bank_context.unnamed():
                yield Note(place, "has no name, so no annotation can say that it gets secrets; name it"), True
        if out and "mutate" not in bank.values and (bank.values or bank_vaults.names_references(bank_context)):
            self._say_inject("false")
        # Without annotations of Bank-Vaults, a pod that speaks our language has our references.
        native = bool(self._native) and not bank.values
        if not out and self._native.get("inject") != "false":
            yield from self._environment(bank_context, native, "env-from" in _all_own(steps))

    def _context(self, injector: _Injector) -> Context:
        return Context(injector.values, self._native, self._template.spec, self._configuration, self._template.knative)

    def _labels(self) -> Mapping[str, Any]:
        labels = self._template.metadata[0].get("labels") if self._template.metadata else None
        return labels if isinstance(labels, dict) else {}

    def _without_contradictions(self, steps: list[tuple[_Injector, Step]]) -> list[tuple[_Injector, Step]]:
        """Two annotations may give one of ours different values; then a person chooses."""
        values: dict[str, set[str]] = {}
        for _, step in steps:
            for key, value in step.own.items() if not step.left else ():
                values.setdefault(key, set()).add(value)
        clashes = {key for key, asked in values.items() if len(asked) > 1 and key not in self._native}
        result = []
        for injector, step in steps:
            clash = next((key for key in step.own if key in clashes), None)
            text = f"another annotation gives {PREFIX}{clash} a different value; write that one yourself"
            result.append((injector, step if clash is None else left(step.keys[0], text, step.keys)))
        return result

    def _without_problems(self, steps: list[tuple[_Injector, Step]]) -> list[tuple[_Injector, Step]]:
        """Replace steps whose annotations admission would refuse by steps that change nothing."""
        known = {(each.key, each.message) for each in parse_annotations(self._native, _HOME).problems}
        while True:
            options = parse_annotations({**_all_own(steps), **self._native}, _HOME)
            problems = [each for each in options.problems if (each.key, each.message) not in known]
            for index, (injector, step) in enumerate(steps):
                found = [each for each in problems if each.key in step.own and not step.left]
                if found:
                    notes = [
                        Note(step.keys[0], f"would become {PREFIX}{each.key}, which {each.message}") for each in found
                    ]
                    steps[index] = (injector, left_for(notes, step.keys))
                    break
            else:
                return steps

    def _apply(self, injector: _Injector, step: Step, stays: bool) -> Iterator[tuple[Note, bool]]:
        if step.left:
            for note in step.left:
                yield Note(injector.shown(note.key), note.text), not step.harmless
            return
        for note in step.notes:
            yield Note(injector.shown(note.key), note.text), False
        target = injector.places(step.keys[0])[0][0]
        for key, value in step.own.items():
            if self._native.get(key, value) != value:
                text = f"removed: {PREFIX}{key} is there already, and wins"
                yield Note(injector.shown(step.keys[0]), text), False
            elif key not in self._native:
                target[PREFIX + key] = value
        if stays:
            text = "stays until the rest is done, so that admission refuses the pod until then"
            yield Note(injector.shown(step.keys[0]), text), True
            return
        for key in step.keys:
            for place, whole in injector.places(key):
                del place[whole]

    def _environment(self, context: Context, native: bool, env_from: bool) -> Iterator[tuple[Note, bool]]:
        served = bool(context.foreign) or bank_vaults.names_references(context)
        changed = False
        for variable, place, value, problem in bank_vaults.translate_environment(context, native=native):
            if value is None:
                yield Note(place, f"{problem}"), True
            else:
                variable["value"] = value
                changed = True
        if served and not native:
            for place, text in (*bank_vaults.expanded_references(context), *bank_vaults.behind(context, self._holds)):
                yield Note(place, text), True
        if changed or env_from or (context.foreign and bank_vaults.names_references(context)):
            # Bank-Vaults works on every pod with a reference; ours, outside labelled namespaces, on pods that opt in.
            self._say_inject("true")
            for text in bank_vaults.missing_commands(context, env_from):
                yield Note("command", text), True

    def _not_text(self) -> Iterator[tuple[Note, bool]]:
        for each in self._maps:
            for key, value in each.items():
                if key.startswith(FOREIGN) and not isinstance(value, str):
                    yield Note(key, "is not text, and the API server refuses that; quote it"), True

    def _say_inject(self, value: str) -> None:
        if any(f"{PREFIX}inject" in annotations for annotations in self._maps):
            return
        template = self._template.template
        if template.get("metadata") is None:
            template["metadata"] = {}
        metadata = template["metadata"]
        if isinstance(metadata, dict):
            annotations = metadata.get("annotations")
            if not isinstance(annotations, dict):
                annotations = metadata["annotations"] = {}
            annotations[f"{PREFIX}inject"] = value


def _all_own(steps: list[tuple[_Injector, Step]]) -> dict[str, str]:
    own: dict[str, str] = {}
    for _, step in steps:
        own = own if step.left else {**step.own, **own}
    return own
