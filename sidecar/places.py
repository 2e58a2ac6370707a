"""Where things are in the pod. One object, so that tests say other places and a tenant's environment cannot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sidecar.plan import RUN_PATH, SECRETS_PATH, TOKEN_FILE, TOKEN_PATH


@dataclass(frozen=True, slots=True)
class Places:
    """Folders and files; the defaults are the pod's."""

    secrets: Path = Path(SECRETS_PATH)
    run: Path = Path(RUN_PATH)
    token: Path = Path(TOKEN_PATH) / TOKEN_FILE
    helper: Path = Path("/usr/libexec/morphisms/exec")
    termination_log: Path = Path("/dev/termination-log")
