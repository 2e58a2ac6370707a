"""Whether a pod opts in to injection, and whether it opts out."""

from __future__ import annotations

from webhook.modes import Mode
from webhook.pod.pod import Pod


def requests_injection(pod: Pod, mode: Mode) -> bool:
    """Whether the pod opts in. In a namespace without a mode only `inject: "true"` counts.

    A pod that carries `morphisms-init` opted in before. An unusable `inject` counts as opting in, in every mode, so
    that the pod is refused: its author may have meant "true".
    """
    if pod.options.inject is True or pod.options.inject_is_unusable:
        return True
    if mode is Mode.ABSENT or pod.options.inject is False:
        return False
    return pod.opts_in or pod.injected is not None


def opts_out(pod: Pod, mode: Mode) -> bool:
    """Whether `inject: "false"` exempts the pod; in enforce mode it never does."""
    return pod.options.inject is False and mode is not Mode.ENFORCE
