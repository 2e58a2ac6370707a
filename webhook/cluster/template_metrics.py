"""Metrics of the container templates. Only the webhook's own account writes what the label `digest` can be."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from webhook.configuration.templates_map import TemplatesMap


class TemplateMetrics:
    """What the ConfigMap holds, and, on the leader, what its next step waits for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._size = Gauge(
            "morphisms_templates_bytes", "Size of the ConfigMap with the container templates.", registry=registry
        )
        self._count = Gauge("morphisms_templates", "Container templates, by state.", ["state"], registry=registry)
        self._current = Gauge(
            "morphisms_template_current_info", "1; digest of the template of new pods.", ["digest"], registry=registry
        )
        self.waiting = Gauge(
            "morphisms_template_waiting_replicas",
            "On the leader: replicas that have not read the template to be marked.",
            registry=registry,
        )
        self.blocked = Gauge(
            "morphisms_template_blocked", "On the leader: 1 when its template cannot be marked.", registry=registry
        )
        self.steps = Counter("morphisms_template_steps", "Steps of the leader.", ["step", "outcome"], registry=registry)

    def read(self, found: TemplatesMap, current: str | None) -> None:
        """Report a newly read ConfigMap, and the digest of the template of new pods."""
        self._size.set(found.size)
        self._count.labels("accepted").set(len(found.templates.by_digest))
        self._count.labels("revoked").set(len(found.templates.revoked))
        self._count.labels("refused").set(len(found.problems))
        self._current.clear()
        if current is not None:
            self._current.labels(current).set(1)
