"""What an author should know about injection itself: what it cannot arrange or compare, and what else it changes."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.pod.pod import Pod
from webhook.rewrite import mesh, volumes
from webhook.wellknown import INITDATA


def injection_notes(pod: Pod) -> Iterator[str]:
    """One line for each; none for a pod whose profile injects nothing."""
    if pod.profile is not None and pod.profile.injects and not pod.options.problems:
        yield from mesh.warnings_of(pod)
        yield from volumes.warnings_of(pod)
    if INITDATA in pod.annotations and pod.measured is None:
        yield (
            "the policy in the initdata document is not made by morphisms render, so it was not compared with this pod;"
            " its guest alone decides whether the pod, as injected, may start"
        )
