"""Answers 503 while the view of the cluster is too old for what rests on nodes and RuntimeClasses."""

from __future__ import annotations

from webhook.configuration.model import Configuration
from webhook.decision import Decision, Denial
from webhook.modes import Mode
from webhook.snapshot import Snapshot


def refuse_when_stale(
    mode: Mode, configuration: Configuration, snapshot: Snapshot | None, *, opted_in: bool
) -> Decision | None:
    """The refusal; None when the view is recent enough, or the pod may be admitted without one.

    A pod that opts in, and every pod of an enforced namespace, needs a RuntimeClass and a node that are there now. The
    mode itself does not rest on the view: the path says it.
    """
    if snapshot is None or snapshot.age_seconds is None or not (opted_in or mode is Mode.ENFORCE):
        return None
    if snapshot.age_seconds <= configuration.snapshotMaxAgeSeconds:
        return None
    message = (
        f"the webhook's view of the cluster is {snapshot.age_seconds:.0f} s old,"
        f" more than {configuration.snapshotMaxAgeSeconds} s; the webhook retries by itself, try again later"
    )
    return Decision("denied", mode, "stale-snapshot", denial=Denial(message, (), 503, "ServiceUnavailable"))
