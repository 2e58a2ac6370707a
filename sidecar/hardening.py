"""Keeps what this process holds to itself: tokens and secrets, in a memory that others could ask the kernel for."""

from __future__ import annotations

import ctypes
import os
import resource
from typing import Final

from sidecar.errors import SidecarError
from sidecar.reasons import Reason

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h


def disable_dumps() -> None:
    """No core dump, and no look from another process of our user. Raises SidecarError.

    A signal as `on-change` needs a shared process namespace and one user; without this the application could read our
    tokens by ptrace or /proc/PID/mem, and the pod's token by /proc/PID/root. It also ends dumps to a program, which a
    limit of 0 does not (core(5)).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise SidecarError(Reason.SHIELD, f"cannot keep others out of our memory: {os.strerror(ctypes.get_errno())}")
