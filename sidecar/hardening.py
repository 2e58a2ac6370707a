"""Keeps other processes from reading this one's memory, which holds tokens and secrets."""

from __future__ import annotations

import ctypes
import os
import resource
from typing import Final

from sidecar.errors import SidecarError
from sidecar.reasons import Reason

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h


def disable_dumps() -> None:
    """Forbid core dumps, and reads of this memory by other processes of the same user. Raises SidecarError.

    A signal as `on-change` needs a shared process namespace and one user; without this the application could read the
    tokens by ptrace or /proc/PID/mem, and the pod's token by /proc/PID/root. It also stops dumps to a program, which a
    limit of 0 does not (core(5)).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise SidecarError(
            Reason.SHIELD,
            f"cannot make this process undumpable (prctl PR_SET_DUMPABLE): {os.strerror(ctypes.get_errno())}",
        )
