"""A view of the cluster that is too old proves nothing: in enforce mode it refuses."""

from __future__ import annotations

from webhook.configuration.model import Configuration
from webhook.decision import Decision, Denial
from webhook.modes import Mode
from webhook.snapshot import Snapshot


def refuse_when_stale(mode: Mode, configuration: Configuration, snapshot: Snapshot | None) -> Decision | None:
    """The refusal, None when the view is young enough or the mode does not rest on it."""
    if mode is not Mode.ENFORCE or snapshot is None or snapshot.age_seconds is None:
        return None
    if snapshot.age_seconds <= configuration.snapshotMaxAgeSeconds:
        return None
    message = (
        f"the webhook's view of the cluster is {snapshot.age_seconds:.0f} s old,"
        f" more than {configuration.snapshotMaxAgeSeconds} s; it retries, try again later"
    )
    return Decision("denied", mode, "stale-snapshot", denial=Denial(message, (), 503, "ServiceUnavailable"))
