"""The Vault references in a container's environment: read, or refused with the reason."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from plan.document import EnvVariable
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
    mentions,
    parse_variable,
)

# Kubernetes' expansion of one variable in another's value; `$$(NAME)` is the escaped form.
_EXPANSION = re.compile(r"(?<!\$)(?:\$\$)*\$\(([-._a-zA-Z0-9]+)\)")


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

    `refuses_incomplete`: whether `vault:` with a path and no key is a mistake. Without opting in, it is text.
    """

    secret_prefix: SecretPrefix
    literal: frozenset[str] = frozenset()
    refuses_incomplete: bool = False

    def is_relevant(self, variable: dict[str, Any]) -> bool:
        """Whether a variable holds a reference, or a text that is refused as an incomplete one."""
        value = variable.get("value")
        if not value or SCHEME not in value or variable["name"] in self.literal:
            return False
        return mentions(value) or (self.refuses_incomplete and is_incomplete(value))


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
        if spelling.is_relevant(variable):
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
        if not spelling.is_relevant(variable):
            continue
        name, value = variable["name"], variable["value"]
        if not mentions(value):
            problems.append((f"{container.field}.env[{index}]", _incomplete(name, value)))
            continue
        try:
            variables.append(_variable(container.name, name, value, spelling.secret_prefix))
            indices.append(index)
        except BadReferenceError as error:
            problems.append((f"{container.field}.env[{index}]", f"env {display_name(name)} {error}"))
    names = {variable.name for variable in variables}
    problems += _given_twice(container, names)
    problems += _references_in_command(container)
    problems += _expanded_references(container, names)
    if names and not container.object.get("command"):
        problems.append((f"{container.field}.command", missing_command(container.label)))
    return EnvReferences(container, tuple(variables), tuple(indices), tuple(problems))


def missing_command(container: str) -> str:
    """The message about a container that gets variables and has no command: what to add, as its author writes it."""
    return (
        f"container {container} gets secrets as env and has no command; Kubernetes does not know an image's entrypoint."
        ' Add it, such as command: ["/path/to/program"], or use files: morphisms.dev/secret-NAME'
    )


def _incomplete(name: str, value: str) -> str:
    shown = display_name(name)
    return f"env {shown} {incomplete_problem(value)}; where it is text, annotate morphisms.dev/literal-env: {shown}"


def _variable(container: str, name: str, value: str, secret_prefix: SecretPrefix) -> EnvVariable:
    if is_reference(value) and not holds_inline(value):
        reference = parse_variable(value, secret_prefix)
        return EnvVariable(container, name, None, reference.path, reference.key, reference.version)
    return EnvVariable(container, name, expand_inline(value, secret_prefix))


def _given_twice(container: Container, names: set[str]) -> list[tuple[str, str]]:
    """Variables given twice, one of them a reference: injection would change which of the two wins."""
    given = Counter(variable["name"] for variable in container.object.get("env") or ()) if names else Counter[str]()
    return [
        (f"{container.field}.env", f"env {display_name(name)} of container {container.label} is given twice; keep one")
        for name in sorted(names)
        if given[name] > 1
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
    places: list[tuple[str, str]] = [
        (f"{container.field}.{member}", word)
        for member in ("command", "args")
        for word in container.object.get(member) or ()
    ]
    places += [
        (f"{container.field}.env[{index}]", variable.get("value") or "")
        for index, variable in enumerate(container.object.get("env") or ())
    ]
    return [
        (where, f"$({name}) expands a Vault reference; write ${{vault:PATH#KEY}} in env in its place")
        for where, text in places
        if "$(" in text
        for name in _EXPANSION.findall(text)
        if name in names
    ]
