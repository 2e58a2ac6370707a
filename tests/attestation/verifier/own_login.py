"""What an operator sets up in Vault for the verifier itself: an AppRole, its policy, a transit key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.openbao import OpenBao

POLICY = """
path "transit/keys/*" { capabilities = ["read"] }
path "transit/sign/*" { capabilities = ["update"] }
path "auth/token/revoke-accessor" { capabilities = ["update"] }
path "secret/data/verifier/*" { capabilities = ["read"] }
path "secret/metadata/verifier/*" { capabilities = ["read", "list"] }
"""


def write_secret(path: Path, text: str) -> Path:
    """A file of mode 0400."""
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o400)
    return path


def write_app_role(bao: OpenBao, folder: Path, name: str, **settings: Any) -> dict[str, Path]:
    """A role and a policy of this name, for what the verifier does; its two files by their configuration's keys."""
    if "approle/" not in bao.done("GET", "sys/auth")["data"]:
        bao.done("POST", "sys/auth/approle", {"type": "approle"})
    bao.done("PUT", f"sys/policies/acl/{name}", {"policy": POLICY})
    bao.done("POST", f"auth/approle/role/{name}", {"token_policies": [name], **settings})
    role = bao.done("GET", f"auth/approle/role/{name}/role-id")["data"]["role_id"]
    secret = bao.done("POST", f"auth/approle/role/{name}/secret-id", {})["data"]["secret_id"]
    return {"roleId": write_secret(folder / "role-id", role), "secretId": write_secret(folder / "secret-id", secret)}


def make_transit_key(bao: OpenBao, name: str, kind: str = "ecdsa-p256") -> None:
    """A key in `transit`."""
    if "transit/" not in bao.done("GET", "sys/mounts")["data"]:
        bao.done("POST", "sys/mounts/transit", {"type": "transit"})
    bao.done("POST", f"transit/keys/{name}", {"type": kind})
