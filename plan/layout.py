"""The pod's layout: names, paths, ports and volumes that the webhook writes into a pod and the sidecar finds there.

The exec helper is C and repeats the paths that it needs in `sidecar/exec/contract.h`.
"""

from __future__ import annotations

from typing import Final

# Of the release: images carry no metadata of a package that could say it. As in pyproject.toml.
VERSION: Final = "0.1.0"

CONTAINER: Final = "morphisms-init"
PLAN_VARIABLE: Final = "MORPHISMS_PLAN"
HEALTH_PORT: Final = 15790
STARTUP_PATH: Final = "/startupz"
LIVENESS_PATH: Final = "/livez"

SECRETS_VOLUME: Final = "morphisms-secrets"
SECRETS_PATH: Final = "/morphisms/secrets"
RUN_VOLUME: Final = "morphisms-run"
RUN_PATH: Final = "/morphisms/run"
TOKEN_VOLUME: Final = "morphisms-token"
TOKEN_PATH: Final = "/morphisms/token"
TOKEN_FILE: Final = "token"
TOKEN_SECONDS: Final = 600
EXEC_HELPER: Final = "/morphisms/run/exec"
# In the sidecar's image.
IMAGE_EXEC_HELPER: Final = "/usr/libexec/morphisms/exec"
