"""One replica's container templates: what it accepts, kept current from the ConfigMap, and what it has said of them.

While it leads, it also adds the template of its configuration, and marks it (`template_leader`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from prometheus_client import CollectorRegistry

from server import logs
from server.kubernetes.client import MERGE_PATCH, Client
from server.kubernetes.errors import reason_of, status_of
from server.kubernetes.lease import TIMING, LeaderElection, LeaseTiming, lease_ref
from server.kubernetes.objects import ObjectRef, WatchedObject
from server.kubernetes.reflector import ReflectorTiming
from webhook.cluster.protocol import Sharing
from webhook.cluster.replica import Replica
from webhook.cluster.template_leader import TemplateLeader
from webhook.cluster.template_metrics import TemplateMetrics
from webhook.configuration.accepted_templates import UNREAD, AcceptedTemplates
from webhook.configuration.model import Configuration
from webhook.configuration.templates_map import WARN_BYTES, TemplatesMap, known_key, known_text, read_map
from webhook.wellknown import TEMPLATES_CONFIG_MAP

LEASE: Final = "morphisms-webhook-templates"

_WATCHING: Final = ReflectorTiming(backoff=(0.5, 15.0))
_RETRY: Final = (0.2, 15.0)
_IDLE: Final = 300.0


class Templates:
    """Runs beside the server. `configuration` is the file's, as last loaded.

    `sharing`: the workers that use them in this process's place. A template is reported once all of them have it.
    """

    def __init__(
        self,
        replica: Replica,
        *,
        connect: Callable[[], Awaitable[Client]],
        configuration: Callable[[], Configuration],
        registry: CollectorRegistry,
        timing: LeaseTiming = TIMING,
        sharing: Sharing | None = None,
    ) -> None:
        self._sharing = sharing
        self._replica = replica
        self._connect = connect
        self._configuration = configuration
        self._metrics = TemplateMetrics(registry)
        self._found = TemplatesMap()
        self._accepted = UNREAD
        self._has_said = False
        self._is_large = False
        # Each loop has its own: what one of them has taken note of, the other one may not have seen.
        self._to_say, self._to_lead = asyncio.Event(), asyncio.Event()
        ref = ObjectRef(f"/api/v1/namespaces/{replica.namespace}/configmaps", TEMPLATES_CONFIG_MAP)
        self._watched = WatchedObject(ref, self._changed, _WATCHING)
        self._election = LeaderElection(lease_ref(replica.namespace, LEASE), replica.name, self._to_lead.set, timing)

    def current(self) -> AcceptedTemplates:
        """What this replica accepts, and renders."""
        return self._accepted

    def shared(self) -> None:
        """Look again: a worker has taken what was accepted into use."""
        self._to_say.set()

    def configured(self) -> None:
        """Look again: the configuration has changed."""
        self._to_lead.set()

    def problem(self) -> str | None:
        """Why this replica cannot judge pods yet; None from the moment at which it said what it accepts.

        A gate of readiness. The leader asks for what replicas have said, so a ready one has said it.
        """
        if self._accepted is UNREAD:
            return "not read yet"
        return None if self._has_said else "read, and not reported yet"

    async def run(self) -> None:
        """Watch, report and lead until cancelled. Raises what `connect` raises, and nothing else."""
        async with await self._connect() as client, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watched.run(client))
            tasks.create_task(self._election.run(client))
            tasks.create_task(self._report(client))
            await self._lead(client)

    def _changed(self) -> None:
        """Take what the watch brought. Without the object, all that was accepted stays."""
        value = self._watched.value
        if value is not None:
            self._take(read_map(value.get("data")))
        self._to_say.set()
        self._to_lead.set()

    def _take(self, found: TemplatesMap) -> None:
        before = self._found.problems
        for key, problem in found.problems.items():
            if before.get(key) != problem:
                logs.error("template_refused", key=key, problem=f"{key} {problem}")
        if found.size > WARN_BYTES and not self._is_large:
            logs.warning("templates_large", bytes=found.size, advice="remove templates that no Revision names")
        self._is_large = found.size > WARN_BYTES
        accepted = _kept(self._accepted, found.templates)
        if accepted.current != self._accepted.current:
            logs.info("template_current", digest=accepted.current or "", accepted=len(accepted.by_digest))
        self._found, self._accepted = found, accepted
        if self._sharing is not None:
            self._sharing.share(accepted)
        self._metrics.read(found, accepted.current)

    async def _report(self, client: Client) -> None:
        """Say what this replica accepts, whenever that changes."""
        failures = 0
        while True:
            self._to_say.clear()
            delay = _IDLE
            try:
                await self._say(client)
                failures = 0
            except Exception as error:  # the next try may succeed
                failures += 1
                delay = min(_RETRY[1], _RETRY[0] * 2 ** min(failures - 1, 10))
                logs.warning("template_report_failed", reason=reason_of(error), status=status_of(error))
            await _wait(self._to_say, delay)

    async def _say(self, client: Client) -> None:
        if self._watched.value is None or self._accepted is UNREAD:
            return
        if self._sharing is not None and not self._sharing.is_shared():
            return
        accepted = self._accepted
        if not self._found.is_said_by(self._replica.name, accepted):
            text = known_text(accepted, client.clock.now())
            body: Mapping[str, Any] = {"data": {known_key(self._replica.name): text}}
            await client.patch(self._watched.ref.path, MERGE_PATCH, body)
        self._has_said = True

    async def _lead(self, client: Client) -> None:
        while True:
            leader = TemplateLeader(client, self._replica.namespace, self._watched, self._configuration, self._metrics)
            while self._election.is_leader and self._watched.is_known:
                self._to_lead.clear()
                await _wait(self._to_lead, await leader.step(self._found, self._accepted))
            self._metrics.waiting.set(0)
            self._metrics.blocked.set(0)
            self._to_lead.clear()
            if not (self._election.is_leader and self._watched.is_known):
                await _wait(self._to_lead, _IDLE)


def _kept(before: AcceptedTemplates, after: AcceptedTemplates) -> AcceptedTemplates:
    """What is accepted after a change: the template in force is withdrawn by revoking it, not by damage to the map."""
    current = before.by_digest.get(before.current or "")
    if current is None or current.digest in after.revoked or after.current is not None:
        return after
    return AcceptedTemplates(
        {**after.by_digest, current.digest: current}, current.digest, after.revoked, after.withdrawn
    )


async def _wait(event: asyncio.Event, seconds: float) -> None:
    if seconds > 0:
        with suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), seconds)
