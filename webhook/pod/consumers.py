"""Which containers get secrets, and the references that their environment holds."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plan.document import EnvVariable
from plan.layout import CONTAINER, EXEC_HELPER
from webhook.pod.references import (
    BadReferenceError,
    Home,
    expand_inline,
    holds_inline,
    is_meant_in,
    is_reference,
    mentions,
    parse_variable,
)
from webhook.wellknown import DEFAULT_CONTAINER

if TYPE_CHECKING:
    from webhook.pod.pod import Container, Pod

# Kubernetes' expansion of one variable in another's value; `$$(NAME)` is the escaped form.
_EXPANSION = re.compile(r"(?<!\$)(?:\$\$)*\$\(([-._a-zA-Z0-9]+)\)")


@dataclass(frozen=True, slots=True)
class MovedReferences:
    """What one container's environment asks of Vault.

    `indices` are those variables' places in `env`, ascending. With problems (field, message) nothing is moved.
    """

    container: Container
    variables: tuple[EnvVariable, ...]
    indices: tuple[int, ...]
    problems: tuple[tuple[str, str], ...]


def choose_consumers(pod: Pod) -> tuple[Container, ...]:
    """The containers that get secrets; none where no secret is named.

    An annotation that names them says it all. Without it: each container whose own environment holds a reference (or
    did, before it was moved into the plan), and where files or whole secrets are asked for, the one that serves.
    """
    wishes = pod.wishes
    takers = pod.plan_takers if pod.injected is not None else {each.container.name for each in pod.references}
    if not takers and not wishes.secrets and not wishes.env_from:
        return ()
    eligible = [each for each in pod.application if each.group != "ephemeralContainers"]
    for_all = asks_for_all(pod)
    if wishes.containers is not None:
        chosen = set(wishes.containers) if for_all else takers.intersection(wishes.containers)
    else:
        chosen = takers | ({serving(pod)} if for_all else set())
    return tuple(each for each in eligible if each.name in chosen)


def takes_env(pod: Pod, consumer: Container) -> bool:
    """Whether a consumer gets variables, and so has its command wrapped."""
    if pod.wishes.env_from:
        return True
    if pod.injected is not None:
        return consumer.name in pod.plan_takers
    return any(each.container is consumer for each in pod.references)


def asks_for_all(pod: Pod) -> bool:
    """Whether annotations name secrets that every consumer gets: files, or whole secrets as variables."""
    return bool(pod.wishes.secrets or pod.wishes.env_from)


def serving(pod: Pod) -> str:
    """The name of the one that serves: annotated, else with the port, else the only one; "" where none is known."""
    regular = [each for each in pod.application if each.group == "containers"]
    named = pod.annotations.get(DEFAULT_CONTAINER)
    for each in regular:
        if each.name == named:
            return each.name
    with_port = [each for each in regular if each.object.get("ports")]
    if with_port:
        return with_port[0].name
    return regular[0].name if len(regular) == 1 else ""


def is_wrapped(container: dict[str, Any], name: str) -> bool:
    """Whether the container's command already goes through the exec helper."""
    return (container.get("command") or [])[:3] == [EXEC_HELPER, name, "--"]


def read_references(container: Container, home: Home) -> MovedReferences:
    """The references in one container's `env`, or what forbids to move them."""
    variables: list[EnvVariable] = []
    indices: list[int] = []
    problems: list[tuple[str, str]] = []
    for index, variable in enumerate(container.object.get("env") or ()):
        value = variable.get("value")
        if not value or not mentions(value):
            continue
        name = variable["name"]
        try:
            variables.append(_variable(container.name, name, value, home))
            indices.append(index)
        except BadReferenceError as error:
            problems.append((f"{container.field}.env[{index}]", f"env {shown(name)} {error}"))
    names = {variable.name for variable in variables}
    problems += _repeated(container, names)
    problems += _words(container)
    problems += _expansions(container, names)
    if names and not container.object.get("command"):
        problems.append((f"{container.field}.command", missing_command(container.label)))
    return MovedReferences(container, tuple(variables), tuple(indices), tuple(problems))


def missing_command(container: str) -> str:
    """What to add, in the lines' own words; the tutorial for `render` is in the documentation."""
    return (
        f"container {container} gets secrets as env and has no command; Kubernetes does not tell an image's entrypoint."
        ' Add it, such as command: ["/path/to/program"], or use files: morphisms.dev/secret-NAME'
    )


def shown(name: str) -> str:
    """A hostile name, made fit for a message."""
    return "".join(character if character.isprintable() else "?" for character in name[:63])


def _variable(container: str, name: str, value: str, home: Home) -> EnvVariable:
    if is_reference(value) and not holds_inline(value):
        reference = parse_variable(value, home)
        return EnvVariable(container, name, None, reference.path, reference.key, reference.version)
    return EnvVariable(container, name, expand_inline(value, home))


def _repeated(container: Container, names: set[str]) -> list[tuple[str, str]]:
    """Variables that are given twice, one of them a reference: which one wins would change with the injection."""
    given = Counter(variable["name"] for variable in container.object.get("env") or ()) if names else Counter[str]()
    return [
        (f"{container.field}.env", f"env {shown(name)} of container {container.label} is given twice; keep one")
        for name in sorted(names)
        if given[name] > 1
    ]


def _words(container: Container) -> list[tuple[str, str]]:
    return [
        (f"{container.field}.{member}", f"container {container.label} has a Vault reference in {member}; use env")
        for member in ("command", "args")
        if container.name != CONTAINER and any(is_meant_in(word) for word in container.object.get(member) or ())
    ]


def _expansions(container: Container, names: set[str]) -> list[tuple[str, str]]:
    """Uses of `$(NAME)` where NAME's value will only be known in the guest."""
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
