"""The Vault references in a container's environment: read, or refused with the reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from plan.document import EnvVariable, is_variable_name
from plan.expansion import escapes_reference, expanded_names
from plan.layout import CONTAINER
from webhook.errors import BadReferenceError
from webhook.pod.container import Container, display_name
from webhook.pod.references import (
    SCHEME,
    SecretPrefix,
    expand_inline,
    holds_inline,
    incomplete_problem,
    is_incomplete,
    is_meant_in,
    is_own_spelling,
    is_reference,
    is_wrapped,
    mentions,
    parse_variable,
)

# The variables that the kubelet adds for Services (pkg/kubelet/envvars), and expands like those of the container.
_SERVICE_VARIABLE = re.compile(
    r"[A-Z][A-Z0-9_]*_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_[A-Z]+(_[A-Z]+)?)?)"
)
_EXPANDS: Final = "$("
PROBES: Final = ("startupProbe", "livenessProbe", "readinessProbe")


@dataclass(frozen=True, slots=True)
class EnvReferences:
    """One container's references: the plan's variables that they become.

    `indices` are those variables' places in `env`, ascending. With problems (field, message) none is moved.
    """

    container: Container
    variables: tuple[EnvVariable, ...]
    indices: tuple[int, ...]
    problems: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Spelling:
    """How a pod's variables are read. `literal` names those that are text, whatever they look like.

    `refuses_incomplete`: whether `vault:` with a path and no key is a mistake, and so is a reference in quotes. Without
    opting in, both are text, but for a quoted reference in our own spelling.
    """

    secret_prefix: SecretPrefix
    literal: frozenset[str] = frozenset()
    refuses_incomplete: bool = False

    def is_relevant(self, name: str, value: str) -> bool:
        """Whether a variable, whose value has the scheme, holds a reference or a text refused as an incomplete one."""
        if name in self.literal:
            return False
        if mentions(value):
            return True
        if self.refuses_incomplete:
            return is_incomplete(value) or is_wrapped(value)
        return f"{SCHEME}~/" in value and is_wrapped(value)


def names_scheme(container: dict[str, Any]) -> bool:
    """Whether `vault:` stands anywhere in the container's env, command or args: all that a closer look is needed at."""
    for variable in container.get("env") or ():
        value = variable.get("value")
        if value and SCHEME in value:
            return True
    for member in ("command", "args"):
        for word in container.get(member) or ():
            if SCHEME in word:
                return True
    return False


def holds_reference(container: dict[str, Any], literal: frozenset[str], *, own: bool) -> bool:
    """Whether a variable holds a reference that may make the pod opt in; with `own` only one in our own spelling."""
    for variable in container.get("env") or ():
        value = variable.get("value")
        if not value or SCHEME not in value or variable["name"] in literal:
            continue
        if is_own_spelling(value) or (not own and mentions(value)):
            return True
    return False


def mentions_reference(container: dict[str, Any], spelling: Spelling) -> bool:
    """Whether the container's env, command or args hold a reference, or a text meant as one: a quick look."""
    for variable in container.get("env") or ():
        value = variable.get("value")
        if value and SCHEME in value and spelling.is_relevant(variable["name"], value):
            return True
    for member in ("command", "args"):
        for word in container.get(member) or ():
            if SCHEME in word and is_meant_in(word):
                return True
    return False


def read_env_references(container: Container, spelling: Spelling) -> EnvReferences:
    """The references in one container's `env`, or the problems that keep them from being moved into the plan."""
    variables: list[EnvVariable] = []
    indices: list[int] = []
    problems: list[tuple[str, str]] = []
    for index, variable in enumerate(container.object.get("env") or ()):
        name, value = variable["name"], variable.get("value")
        if not value or SCHEME not in value or not spelling.is_relevant(name, value):
            continue
        if not mentions(value):
            problems.append((f"{container.field}.env[{index}]", _incomplete(name, value)))
            continue
        try:
            variables.append(_variable(container.name, name, value, spelling.secret_prefix))
            indices.append(index)
        except BadReferenceError as error:
            hint = "" if is_own_spelling(value) or not error.may_be_text else _literal_hint(name)
            problems.append((f"{container.field}.env[{index}]", f"env {display_name(name)} {error}{hint}"))
    names = {variable.name for variable in variables}
    problems += _given_twice(container, names)
    problems += _references_in_command(container)
    problems += _expanded_references(container, names)
    for place, index in enumerate(indices):
        if variables[place].value is not None:
            variables[place], unknown = _with_expansions(container, index, variables[place], names)
            problems += unknown
    if names and not container.object.get("command"):
        problems.append((f"{container.field}.command", missing_command(container.label)))
    return EnvReferences(container, tuple(variables), tuple(indices), tuple(problems))


def missing_command(container: str) -> str:
    """The message about a container that gets variables and has no command: what to add, as its author writes it."""
    return (
        f"container {container} gets secrets as env and has no command; Kubernetes does not know an image's entrypoint."
        ' Add it (morphisms entrypoint IMAGE prints it), such as command: ["/path/to/program"], or use files:'
        " morphisms.dev/secret-NAME"
    )


def _incomplete(name: str, value: str) -> str:
    return f"env {display_name(name)} {incomplete_problem(value)}{_literal_hint(name)}"


def _literal_hint(name: str) -> str:
    return f"; where it is text, annotate morphisms.dev/literal-env: {display_name(name)}"


def _variable(container: str, name: str, value: str, secret_prefix: SecretPrefix) -> EnvVariable:
    if is_reference(value) and not holds_inline(value):
        reference = parse_variable(value, secret_prefix)
        return EnvVariable(container, name, None, reference.path, reference.key, reference.version)
    if escapes_reference(value):
        raise BadReferenceError(
            "has $$ directly before {vault:; write $$${vault:PATH#KEY} for a dollar sign before the secret"
        )
    return EnvVariable(container, name, expand_inline(value, secret_prefix))


def _given_twice(container: Container, names: set[str]) -> list[tuple[str, str]]:
    """Variables given twice, one of them a reference: injection would change which of the two wins."""
    if not names:
        return []
    given = [each["name"] for each in container.object.get("env") or () if each["name"] in names]
    if len(given) == len(names):
        return []
    times = Counter(given)
    return [
        (f"{container.field}.env", f"env {display_name(name)} of container {container.label} is given twice; keep one")
        for name in sorted(names)
        if times[name] > 1
    ]


def _references_in_command(container: Container) -> list[tuple[str, str]]:
    return [
        (f"{container.field}.{member}", f"container {container.label} has a Vault reference in {member}; use env")
        for member in ("command", "args")
        if container.name != CONTAINER and any(is_meant_in(word) for word in container.object.get(member) or ())
    ]


def _expanded_references(container: Container, names: set[str]) -> list[tuple[str, str]]:
    """Uses of `$(NAME)` where NAME holds a reference, whose value is known in the guest only."""
    if not names:
        return []
    return [
        (where, f"$({display_name(name)}) expands a Vault reference; {advice}")
        for where, text, advice in _expanded_texts(container)
        for name in expanded_names(text)
        if name in names
    ]


def _expanded_texts(container: Container) -> Iterator[tuple[str, str, str]]:
    """Every text with a `$(` that the kubelet expands: its field, itself, what to write in place of a reference.

    Kubernetes' own list: pkg/kubelet/container/helpers.go (command, args, env, subPathExpr, and probes' commands).
    """
    inline = "write ${vault:PATH#KEY} in env in its place"
    field, spec = container.field, container.object
    for member in ("command", "args"):
        for word in spec.get(member) or ():
            if _EXPANDS in word:
                yield f"{field}.{member}", word, inline
    for index, variable in enumerate(spec.get("env") or ()):
        value = variable.get("value")
        if value and _EXPANDS in value:
            yield f"{field}.env[{index}]", value, inline
    for index, mount in enumerate(spec.get("volumeMounts") or ()):
        path = mount.get("subPathExpr")
        if path and _EXPANDS in path:
            yield f"{field}.volumeMounts[{index}].subPathExpr", path, "name a plain variable, a path is no secret"
    for probe in PROBES:
        for word in ((spec.get(probe) or {}).get("exec") or {}).get("command") or ():
            if _EXPANDS in word:
                yield f"{field}.{probe}.exec.command", word, "let the probe's program read the secret from a file"


def _with_expansions(
    container: Container, index: int, variable: EnvVariable, references: set[str]
) -> tuple[EnvVariable, list[tuple[str, str]]]:
    """The inline variable with the names that the exec helper expands in it, and the problems with others.

    The helper reads them from the environment that the kubelet made, so each has to have there the value that it has
    at this variable's place. A NAME that Kubernetes does not know at this place stays as it is written.
    """
    expand: list[str] = []
    problems: list[tuple[str, str]] = []
    env = container.object["env"]
    places: dict[str, list[int]] = {}
    names = expanded_names(variable.value or "")
    if names:
        for place, each in enumerate(env):
            places.setdefault(each["name"], []).append(place)
    for name in names:
        found = places.get(name, [])
        may_be_elsewhere = bool(container.object.get("envFrom")) or _SERVICE_VARIABLE.fullmatch(name) is not None
        if name in references or not is_variable_name(name) or mentions(name):
            continue  # refused as a reference's expansion; text, in which a reference may stand
        if len(found) > 1:
            problem = f"is given {len(found)} times in env; keep one"
        elif found and found[0] > index and may_be_elsewhere:
            problem = "is given after it in env and may come from elsewhere too; put it before"
        else:
            if (found and found[0] < index) or (not found and may_be_elsewhere):
                expand.append(name)
            continue
        label = f"env {display_name(variable.name)} names $({display_name(name)})"
        problems.append((f"{container.field}.env[{index}]", f"{label}, which {problem}"))
    return variable._replace(expand=tuple(expand)) if expand else variable, problems
