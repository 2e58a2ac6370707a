"""Paths in the pod. One object, so that tests can use other paths and a tenant's environment cannot."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from plan.layout import HEALTH_PORT, IMAGE_EXEC_HELPER, RUN_PATH, SECRETS_PATH, TOKEN_FILE, TOKEN_PATH


class PodPaths(NamedTuple):
    """Folders, files and an address; the defaults are the pod's.

    `reread_seconds`: after what time a KV secret, which has no lease, is read again. Five minutes are Vault Agent's
    default (static_secret_render_interval), so Vault sees the load that operators have planned for.
    `revocation_seconds`: how long the last attempts to revoke a token take at most. They may go beyond the deadline,
    because a token left behind is worse than a late exit.
    """

    secrets: Path = Path(SECRETS_PATH)
    run: Path = Path(RUN_PATH)
    token: Path = Path(TOKEN_PATH) / TOKEN_FILE
    helper: Path = Path(IMAGE_EXEC_HELPER)
    termination_log: Path = Path("/dev/termination-log")
    health: tuple[str, int] = ("::", HEALTH_PORT)
    reread_seconds: float = 300.0
    revocation_seconds: float = 3.0
