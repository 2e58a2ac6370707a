"""What the pods of these tests want, and replicas of the verifier that lets them have it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from attestation.simulator.hierarchy import Hierarchy
from plan.document import SecretFile
from tests.attestation.verifier.process import Site, make_site
from tests.attestation.verifier.tokens import Issuer
from tests.sidecar.pod import CANARY, HOME, Pod
from tests.support.raft import RaftOpenBao

DB = f"{HOME}/db"
PASSWORD = (SecretFile("password", DB, "password", key="password"),)
NewPod = Callable[[], Pod]


def write_password(server: RaftOpenBao, name: str) -> None:
    """The one secret of most tests."""
    path = DB.replace("secret/", "secret/data/", 1)
    server.done("POST", path, {"data": {"user": "alice", "password": f"{CANARY}-{name}"}})


def replica(site: Site, folder: Path, hierarchy: Hierarchy, issuer: Issuer) -> Site:
    """A folder of its own with the same signing key, certificate and policies, as a second replica's pod has it."""
    folder.mkdir()
    other = make_site(folder, hierarchy, issuer, site.vault_url)
    for name in ("signing.pem", "ca.crt", "tls.crt", "tls.key", "policies/prod/shop/payments.yaml"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(site.folder / name, folder / name)
    other.settings["vault"] = dict(site.settings["vault"])
    return other
