"""Whether a pod asks for injection, and whether it wants out of it."""

from __future__ import annotations

from webhook.modes import Mode
from webhook.pod.pod import Pod


def asks(pod: Pod, mode: Mode) -> bool:
    """Whether the pod asks. In a namespace without a mode only `inject: "true"` counts.

    A pod that carries `morphisms-init` was asked for before: its references have moved into the plan.
    """
    if pod.wishes.inject is True:
        return True
    if mode is Mode.ABSENT or pod.wishes.inject is False:
        return False
    return pod.names_secrets or pod.injected is not None


def opts_out(pod: Pod, mode: Mode) -> bool:
    """Whether `inject: "false"` keeps the pod out; it never does in enforce mode."""
    return pod.wishes.inject is False and mode is not Mode.ENFORCE
