"""Where things are in the pod. One object, so that tests say other paths and a tenant's environment cannot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from plan.layout import HEALTH_PORT, RUN_PATH, SECRETS_PATH, TOKEN_FILE, TOKEN_PATH


@dataclass(frozen=True, slots=True)
class PodPaths:
    """Folders, files and an address; the defaults are the pod's.

    `reread_seconds`: how old a KV secret may be. It has no lease that would say so; five minutes are what Vault Agent
    takes (static_secret_render_interval), so Vault sees the load that people have planned for.
    """

    secrets: Path = Path(SECRETS_PATH)
    run: Path = Path(RUN_PATH)
    token: Path = Path(TOKEN_PATH) / TOKEN_FILE
    helper: Path = Path("/usr/libexec/morphisms/exec")
    termination_log: Path = Path("/dev/termination-log")
    health: tuple[str, int] = ("::", HEALTH_PORT)
    reread_seconds: float = 300.0
