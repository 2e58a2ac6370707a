"""What an author should know about injection itself: what it cannot arrange, and what it changes beside the pod."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.pod.pod import Pod
from webhook.rewrite import mesh, volumes


def injection_notes(pod: Pod) -> Iterator[str]:
    """One line for each; none for a pod whose profile injects nothing."""
    if pod.profile is not None and pod.profile.injects and not pod.options.problems:
        yield from mesh.warnings_of(pod)
        yield from volumes.warnings_of(pod)
