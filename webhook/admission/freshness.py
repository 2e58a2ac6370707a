"""Refuses in enforce mode while the view of the cluster is too old to decide on."""

from __future__ import annotations

from webhook.configuration.model import Configuration
from webhook.decision import Decision, Denial
from webhook.modes import Mode
from webhook.snapshot import Snapshot


def refuse_when_stale(mode: Mode, configuration: Configuration, snapshot: Snapshot | None) -> Decision | None:
    """The refusal; None when the view is recent enough, or the mode does not depend on it."""
    if mode is not Mode.ENFORCE or snapshot is None or snapshot.age_seconds is None:
        return None
    if snapshot.age_seconds <= configuration.snapshotMaxAgeSeconds:
        return None
    message = (
        f"the webhook's view of the cluster is {snapshot.age_seconds:.0f} s old,"
        f" more than {configuration.snapshotMaxAgeSeconds} s; the webhook retries by itself, try again later"
    )
    return Decision("denied", mode, "stale-snapshot", denial=Denial(message, (), 503, "ServiceUnavailable"))
