"""The namespace that this process runs in, as a pod."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from server.files import UnusableInputError

_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def own_namespace() -> str:
    """By POD_NAMESPACE, else by what is mounted into a pod. Raises UnusableInputError."""
    if name := os.environ.get("POD_NAMESPACE"):
        return name
    try:
        return _NAMESPACE_FILE.read_text().strip()
    except OSError:
        raise UnusableInputError(
            "in which namespace does this process run? give --namespace or POD_NAMESPACE"
        ) from None
