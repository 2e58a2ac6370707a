"""The leader's next step with the container templates: a pure function of what it has read.

A template is added first. It is marked when every replica that API servers may call has said that it accepts it, so
that no replica refuses what another one injects by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from server.kubernetes.untyped import condition_of, mapping
from webhook.configuration.accepted_templates import AcceptedTemplates
from webhook.configuration.container_template import ContainerTemplate
from webhook.configuration.model import Configuration
from webhook.configuration.templates_map import MAX_BYTES, TemplatesMap

# A replica that has just become unready may still answer on the connections that API servers hold open, and one that
# has just said what it accepts is about to become ready.
_UNREADY: Final = timedelta(seconds=60)
# A pod of a lost node stays terminating until its node is removed; after so long it serves no more.
_OVERDUE: Final = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Add:
    """Write the template, for every replica to read."""

    template: ContainerTemplate


@dataclass(frozen=True, slots=True)
class Mark:
    """New pods get this template from now on."""

    digest: str


@dataclass(frozen=True, slots=True)
class Settle:
    """The mark is where it belongs: remove what an operator wrote to hurry it."""


@dataclass(frozen=True, slots=True)
class Ask:
    """The next step depends on the replicas: list their pods."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do until something changes. `replicas`: those that have not said that they accept the template."""

    replicas: tuple[str, ...] = ()
    problem: str = ""


Step = Add | Mark | Settle | Ask | Wait


def next_step(
    found: TemplatesMap, accepted: AcceptedTemplates, configuration: Configuration, serving: frozenset[str] | None
) -> Step:
    """The step after which to look again. `serving`: names of the replicas that API servers may call, if known.

    `accepted` is what the leader itself goes by: more than `found`, where the ConfigMap was damaged.
    """
    templates = found.templates
    wanted = accepted.wanted(configuration)
    if templates.is_revoked(wanted):
        return Wait(problem="the configuration's own template is revoked")
    if wanted.digest not in templates.by_digest:
        if found.size + len(wanted.text.encode()) > MAX_BYTES:
            return Wait(problem=f"the ConfigMap would be larger than {MAX_BYTES} bytes; remove templates")
        return Add(wanted)
    if templates.current == wanted.digest:
        return Settle() if found.is_immediate else Wait()
    if found.is_immediate or templates.current in templates.revoked:
        return Mark(wanted.digest)
    if serving is None:
        return Ask()
    unaware = tuple(sorted(each for each in serving if not found.is_known_to(each, wanted.digest)))
    return Wait(unaware) if unaware else Mark(wanted.digest)


def serving_replicas(pods: Iterable[Any], found: TemplatesMap, now: datetime) -> frozenset[str]:
    """The pods that API servers may call, by name: ready ones, stopping ones, and those that just changed."""
    return frozenset(_name(pod) for pod in pods if isinstance(pod, Mapping) and _may_serve(pod, found, now))


def _may_serve(pod: Mapping[str, Any], found: TemplatesMap, now: datetime) -> bool:
    status, deleted = mapping(pod.get("status")), mapping(pod.get("metadata")).get("deletionTimestamp")
    if status.get("phase") in ("Succeeded", "Failed"):
        return False
    if deleted is not None:  # the moment at which it is to be gone; until then a lame duck serves
        return now < _time(deleted, now) + _OVERDUE
    if condition_of(status, "Ready", "True"):
        return True
    # One that never said anything has never been ready.
    said, unready = found.known.get(_name(pod)), now - _UNREADY
    since = _time(condition_of(status, "Ready").get("lastTransitionTime"), unready)
    return said is not None and now < max(since, said.at) + _UNREADY


def _name(pod: Mapping[str, Any]) -> str:
    return str(mapping(pod.get("metadata")).get("name", ""))


def _time(value: Any, default: datetime) -> datetime:
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return default
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
