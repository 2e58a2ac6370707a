"""The leader's part with the container templates: take one step after another, each one write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from server import logs
from server.kubernetes.client import MERGE_PATCH, Client
from server.kubernetes.errors import StatusError, reason_of, status_of
from server.kubernetes.objects import WatchedObject, version_of
from webhook.cluster.template_metrics import TemplateMetrics
from webhook.cluster.template_steps import Add, Ask, Mark, Settle, Step, Wait, next_step, serving_replicas
from webhook.configuration.accepted_templates import AcceptedTemplates
from webhook.configuration.model import Configuration
from webhook.configuration.templates_map import CURRENT, IMMEDIATE, TemplatesMap, known_key, template_key

# Owns no field: an object that it makes has nothing in it.
_FIELD_MANAGER: Final = "morphisms-webhook-maker"
_SELECTOR: Final = "app.kubernetes.io/name=morphisms,app.kubernetes.io/component=webhook"

_IDLE: Final = 300.0
_ASK_AGAIN: Final = 2.0
# The watch brings what was written, and wakes the leader. An answer to a write may be older than what it has brought.
_SETTLES: Final = 5.0
_RETRY: Final = (0.2, 30.0)
_FORGET: Final = timedelta(hours=1)


class TemplateLeader:
    """One term of leading. `step` takes one step; the answer is the seconds until the next, if nothing changes."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        watched: WatchedObject,
        configuration: Callable[[], Configuration],
        metrics: TemplateMetrics,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._watched = watched
        self._configuration = configuration
        self._metrics = metrics
        self._failures = 0
        self._said = ""

    async def step(self, found: TemplatesMap, accepted: AcceptedTemplates) -> float:
        """Take the next step, from what the ConfigMap says now, and from what this replica accepts."""
        try:
            return await self._step(found, accepted)
        except Exception as error:  # logged, counted, and tried again
            return self._failed(error)

    async def _step(self, found: TemplatesMap, accepted: AcceptedTemplates) -> float:
        value = self._watched.value
        if value is None:
            name = self._watched.ref.name
            empty = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
            await self._client.apply(self._watched.ref.path, empty, _FIELD_MANAGER)
            return self._done("create", "")
        step = next_step(found, accepted, self._configuration(), None)
        if isinstance(step, Ask):
            step = await self._with_replicas(found, accepted)
        if isinstance(step, Wait):
            self._waits(step)
            return _ASK_AGAIN if step.replicas else _IDLE
        data, digest = _data(step)
        # Guarded by the version that the step was made from: meanwhile a template may be revoked, or a replica come.
        body: dict[str, Any] = {"metadata": {"resourceVersion": version_of(value)}, "data": data}
        await self._client.patch(self._watched.ref.path, MERGE_PATCH, body)
        return self._done(type(step).__name__.lower(), digest)

    async def _with_replicas(self, found: TemplatesMap, accepted: AcceptedTemplates) -> Step:
        """The step, by what the replicas have said that may be called now."""
        path = f"/api/v1/namespaces/{self._namespace}/pods"
        answer = await self._client.get(path, (("labelSelector", _SELECTOR),))
        items = answer.get("items")
        pods = items if isinstance(items, list) else []
        now = self._client.clock.now()
        await self._forget(pods, found, now)
        return next_step(found, accepted, self._configuration(), serving_replicas(pods, found, now))

    async def _forget(self, pods: list[Any], found: TemplatesMap, now: datetime) -> None:
        """Remove what replicas said that are long gone."""
        names = {pod["metadata"]["name"] for pod in pods if isinstance(pod, Mapping)}
        gone = [each for each, said in found.known.items() if each not in names and now - said.at > _FORGET]
        if gone:
            await self._client.patch(
                self._watched.ref.path, MERGE_PATCH, {"data": {known_key(replica): None for replica in gone}}
            )

    def _done(self, step: str, digest: str) -> float:
        self._metrics.steps.labels(step, "done").inc()
        logs.info("template_step", step=step, digest=digest)
        self._failures = 0
        return _SETTLES

    def _waits(self, step: Wait) -> None:
        self._failures = 0
        self._metrics.waiting.set(len(step.replicas))
        self._metrics.blocked.set(1 if step.problem else 0)
        said = step.problem or ",".join(step.replicas)
        if said and said != self._said:  # one line per reason, not per look
            if step.problem:
                logs.error("template_blocked", problem=step.problem)
            else:
                logs.info("template_waits", replicas=list(step.replicas))
        self._said = said

    def _failed(self, error: Exception) -> float:
        self._metrics.steps.labels("any", "failed").inc()
        # An outdated version: another writer was faster, and its change is on its way to us.
        if not (isinstance(error, StatusError) and error.is_outdated):
            logs.warning("template_step_failed", reason=reason_of(error), status=status_of(error))
        self._failures += 1
        return float(min(_RETRY[1], _RETRY[0] * 2 ** min(self._failures - 1, 10)))


def _data(step: Add | Mark | Settle | Ask) -> tuple[dict[str, str | None], str]:
    """What the step writes, and the digest that it is about."""
    if isinstance(step, Add):
        return {template_key(step.template.digest): step.template.text}, step.template.digest
    if isinstance(step, Mark):
        return {CURRENT: step.digest, IMMEDIATE: None}, step.digest
    return {IMMEDIATE: None}, ""
