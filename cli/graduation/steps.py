"""One run: each step looks at the whole namespace anew, and writes nothing but the namespace's mode."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from cli.audit.words import mode_word
from cli.graduation.record import clean, mode_since, reported
from cli.live.cluster import NAMESPACES, read_cluster
from cli.preflight.gather import preflight
from cli.preflight.lines import Line, is_go
from server.files import UnusableInputError
from server.kubernetes.client import MERGE_PATCH, Client
from server.kubernetes.errors import AnswerError, StatusError, UnreachableError
from server.kubernetes.untyped import mapping
from server.text import printable
from webhook.modes import Mode, is_known_label, mode_of_label
from webhook.wellknown import MODE_LABEL

_NEXT: Final = {Mode.ABSENT: Mode.AUDIT, Mode.AUDIT: Mode.INJECT, Mode.INJECT: Mode.ENFORCE}
_MANAGER: Final = "morphisms-graduate"
_NOT_FOUND: Final = 404


class Outcome(enum.StrEnum):
    """What became of a step."""

    TAKEN = "taken"
    POSSIBLE = "possible"
    """A dry run that the API server accepted."""
    REFUSED = "refused"
    """A line failed, or was not evaluated."""
    OVERTAKEN = "overtaken"
    """The namespace changed while it was looked at, so nothing was written."""
    DENIED = "denied"
    """The API server does not let this user write it."""
    UNKNOWN = "unknown"
    """The API server gave no answer to the change."""


@dataclass(frozen=True, slots=True)
class Step:
    """From one mode to the next, and the lines that decided. `status`: the API server's, of a denied one."""

    before: Mode
    after: Mode
    outcome: Outcome
    lines: tuple[Line, ...]
    status: int = 0


@dataclass(frozen=True, slots=True)
class Goal:
    """Which namespace is to reach which mode, and what is asked of it on the way.

    `issuers` as in a preflight; `clean_for`: how long its report has to be clean before each step.
    """

    namespace: str
    mode: Mode
    clean_for: timedelta
    issuers: Mapping[str, str] | None = None
    config: str | None = None
    policy: str | None = None
    allow_unevaluated: bool = False
    dry_run: bool = False


async def graduate(
    client: Client, goal: Goal, progress: Callable[[str, int, int], None], done: Callable[[Step], None]
) -> Mode:
    """Take each step that may be taken now, and hand it to `done`; the mode in the end.

    Raises UnusableInputError and the client's errors. After a step the next one is not due before `clean_for`.
    """
    while True:
        now = client.clock.now()
        cluster = await read_cluster(client, goal.config, goal.namespace, now, policy=goal.policy)
        (namespace,) = cluster.objects[NAMESPACES.kind]
        present = _mode(namespace, goal)
        if present is goal.mode:
            return present
        lines = await preflight(client, cluster, goal.namespace, _NEXT[present], goal.issuers, progress)
        if present is not Mode.ABSENT:
            found = await reported(client, goal.namespace)
            lines.append(clean(found, present, mode_since(namespace), client.clock.now(), goal.clean_for))
        step = await _take(client, goal, namespace, present, tuple(lines))
        done(step)
        if step.outcome is not Outcome.TAKEN:
            return present
        if goal.clean_for:
            return step.after


def _mode(namespace: Mapping[str, Any], goal: Goal) -> Mode:
    label = _judged(namespace)[1].get(MODE_LABEL)
    if label is not None and not is_known_label(label):
        values = "audit, inject or enforce"
        raise UnusableInputError(f"label {MODE_LABEL} of namespace {goal.namespace} is none of {values}; correct it")
    present = mode_of_label(label)
    if present.strictness > goal.mode.strictness:
        word = f"namespace {goal.namespace} has mode {mode_word(present)}"
        raise UnusableInputError(f"{word}; this command never loosens one")
    return present


def _judged(namespace: Mapping[str, Any]) -> tuple[str, Mapping[str, str], bool]:
    """What of a namespace may not change between the look at it and the change."""
    metadata = mapping(namespace.get("metadata"))
    return str(metadata.get("uid")), mapping(metadata.get("labels")), "deletionTimestamp" in metadata


async def _take(client: Client, goal: Goal, seen: Mapping[str, Any], before: Mode, lines: tuple[Line, ...]) -> Step:
    after = _NEXT[before]
    if not is_go(lines, allow_unevaluated=goal.allow_unevaluated):
        return Step(before, after, Outcome.REFUSED, lines)
    path = f"/api/v1/namespaces/{goal.namespace}"
    fresh = await client.find(path)
    if fresh is None or _judged(fresh) != _judged(seen):
        return Step(before, after, Outcome.OVERTAKEN, lines)
    # With the version that was just compared, so that of two changes at once one is refused.
    version = mapping(fresh.get("metadata")).get("resourceVersion")
    body = {"metadata": {"resourceVersion": version, "labels": {MODE_LABEL: after.value}}}
    query = [("fieldManager", _MANAGER), *([("dryRun", "All")] if goal.dry_run else [])]
    try:
        await client.patch(path, MERGE_PATCH, body, query)
    except StatusError as error:
        gone = error.is_outdated or error.status == _NOT_FOUND
        return Step(before, after, Outcome.OVERTAKEN if gone else Outcome.DENIED, lines, error.status)
    except (UnreachableError, AnswerError):
        return Step(before, after, Outcome.UNKNOWN, lines)
    return Step(before, after, Outcome.POSSIBLE if goal.dry_run else Outcome.TAKEN, lines)


def said(step: Step, goal: Goal) -> str:
    """What became of a step, in a sentence."""
    name, after = printable(goal.namespace), step.after.value
    arrow = f"{mode_word(step.before)} -> {after}"
    words = {
        Outcome.TAKEN: f"done: namespace {name}: {arrow}",
        Outcome.POSSIBLE: f"nothing was written: namespace {name}: {arrow} is possible now",
        Outcome.REFUSED: f"refused: namespace {name}: {arrow}",
        Outcome.OVERTAKEN: f"nothing was written: namespace {name} changed meanwhile; run the command again",
        Outcome.DENIED: (
            f"nothing was written: the API server answers {step.status} to the change of namespace {name}; this user"
            " needs the verb patch on it"
        ),
        Outcome.UNKNOWN: (
            f"no answer to the change {arrow}: `kubectl get namespace {name} -L {MODE_LABEL}` shows whether it was made"
        ),
    }
    return words[step.outcome]


def due(goal: Goal, now: datetime) -> str:
    """When the next step may follow one that was just taken."""
    return f"the next step is not due before {now + goal.clean_for:%Y-%m-%d %H:%M} UTC; run the command again then"
