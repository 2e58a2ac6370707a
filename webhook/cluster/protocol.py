"""The cluster as decisions see it: a view that is at hand, and look-ups of what no view holds."""

from __future__ import annotations

from typing import Protocol

from webhook.configuration.accepted_templates import AcceptedTemplates
from webhook.configuration.model import Configuration
from webhook.snapshot import Fetched, Lookup, Snapshot


class TemplatesInForce(Protocol):
    """The container templates of this process: read from the cluster, or received from its parent."""

    def current(self) -> AcceptedTemplates:
        """What is accepted and rendered now."""

    def configured(self) -> None:
        """Note that the configuration has changed."""


class Sharing(Protocol):
    """The way of accepted templates to this replica's workers."""

    def share(self, templates: AcceptedTemplates) -> None:
        """Let all workers take these into use."""

    def is_shared(self) -> bool:
        """Whether all workers that may have requests have done so with the newest."""


class Cluster(Protocol):
    """A cluster: live (`webhook.cluster.live`), or described by a file (`webhook.cluster.file`)."""

    def current(self) -> Snapshot:
        """The view now; cheap enough for every request."""

    async def look_up(self, lookup: Lookup) -> Fetched:
        """What one decision needs besides the view. Bounded in time, never raises: a failure leaves its field None."""

    def configured(self, configuration: Configuration) -> None:
        """Take a reloaded configuration into use."""

    def problem(self) -> str | None:
        """Why this replica should get no requests; None where it may. A gate of readiness."""

    async def run(self) -> None:
        """Keep the view current until cancelled."""
