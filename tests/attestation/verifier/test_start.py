"""What keeps a verifier from starting, told by file and key; and that it ends quietly."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.simulator.device import Device
from attestation.simulator.hierarchy import Hierarchy
from attestation.verifier.configuration import Certificates
from attestation.verifier.trust_anchors import load_trust_anchors
from server.yaml.strict import ConfigurationError
from tests.attestation.verifier.guest import Client
from tests.attestation.verifier.process import GUEST, Site, make_site, policy, start_command, terminate, verifier
from tests.attestation.verifier.test_pod_lookup import LIVE
from tests.attestation.verifier.test_refusals import Guest, inside
from tests.attestation.verifier.tokens import Issuer
from tests.support.certificates import builder, common_name
from tests.support.paths import ROOT
from tests.support.until import until


@pytest.fixture
def site(tmp_path: Path, hierarchy: Hierarchy, issuer: Issuer) -> Site:
    """Its Vault is not there: these tests never come to it."""
    return make_site(tmp_path, hierarchy, issuer, "http://127.0.0.1:1")


def _world_readable_key(site: Site) -> None:
    (site.folder / "signing.pem").chmod(0o644)


def _shared_session_key(site: Site) -> None:
    site.settings["session"] = {"key": "session.key"}


def _no_folder(site: Site) -> None:
    site.settings["policies"] = "none"


def _unknown_key(site: Site) -> None:
    site.settings["vualt"] = {}


def _two_clusters_of_one_name(site: Site) -> None:
    site.settings["clusters"] *= 2


def _two_sources_of_keys(site: Site) -> None:
    site.settings["clusters"][0]["jwks"]["url"] = "https://api.example"


def _no_root(site: Site) -> None:
    site.settings["certificates"]["simulatedRoot"] = "gone.pem"


def _no_crl(site: Site) -> None:
    site.settings["certificates"]["crls"] = ["prod.jwks"]


def _no_authority(site: Site) -> None:
    site.settings["vault"] |= {"url": "https://127.0.0.1:1", "ca": "prod.jwks"}


def _plain_vault_in_production(site: Site) -> None:
    site.settings["mode"] = "production"
    site.settings["vault"]["url"] = "http://vault.example:8200"
    del site.settings["certificates"]["simulatedRoot"]


def _plain_key_service_in_production(site: Site) -> None:
    _plain_vault_in_production(site)
    site.settings["certificates"]["keyService"] = "http://mirror.example"


def _simulated_evidence_of_its_own_in_production(site: Site) -> None:
    _plain_vault_in_production(site)
    site.settings["attest"] = {"sources": [{"source": "simulated", "address": "http://127.0.0.1:1"}]}


def _agent_of_another_machine(site: Site) -> None:
    site.settings["attest"] = {"sources": [{"source": "coco-aa", "address": "http://192.0.2.1:8006"}]}


def _references_that_are_none(site: Site) -> None:
    source = {"source": "sev-guest", "address": "/dev/sev-guest"}
    site.settings["attest"] = {"sources": [source], "references": "prod.jwks"}


def _transit_without_a_login(site: Site) -> None:
    site.settings["signing"] = {"transit": {"key": "verifier"}}


def _two_signers(site: Site) -> None:
    site.settings["signing"]["transit"] = {"key": "verifier"}


def _two_sources_of_policies(site: Site) -> None:
    site.settings["policyVault"] = {"path": "verifier/policies"}


def _policies_without_a_login(site: Site) -> None:
    _two_sources_of_policies(site)
    del site.settings["policies"], site.settings["guests"]


def _login_without_a_method(site: Site) -> None:
    site.settings["vault"]["login"] = {}


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (_transit_without_a_login, "signing.transit: needs vault.login"),
        (_two_signers, "exactly one of keys, transit, generated and provisioned is required"),
        (_two_sources_of_policies, "policyVault takes the place of policies and guests; keep one"),
        (_policies_without_a_login, "policyVault: needs vault.login"),
        (_login_without_a_method, "exactly one of tokenFile, appRole and provisioned is required"),
        (_world_readable_key, "has mode 0644, required 0400; chmod 400 it"),
        (_shared_session_key, "session is no longer a key: remove it and the file that it names"),
        (_no_folder, "none: is not a folder that can be read"),
        (_unknown_key, "unknown key vualt, did you mean vault?"),
        (_two_clusters_of_one_name, "clusters: prod is listed twice"),
        (_two_sources_of_keys, "exactly one of file and url is required"),
        (_no_root, "gone.pem: cannot be read"),
        (_no_crl, "prod.jwks: CRL cannot be read"),
        (_no_authority, "prod.jwks: not a readable PEM file"),
        (_plain_key_service_in_production, "certificates.keyService: not HTTPS; not with mode: production"),
        (_plain_vault_in_production, "vault.url: not HTTPS; not with mode: production"),
        (_simulated_evidence_of_its_own_in_production, "attest.sources: simulated evidence proves nothing"),
        (_agent_of_another_machine, "attest.sources: coco-aa: the agent's address is not on loopback"),
        (_references_that_are_none, "prod.jwks: is not a compact JWS by ES256"),
    ],
)
def test_it_does_not_start(site: Site, spoil: Callable[[Site], None], problem: str) -> None:
    site.settings["certificates"].setdefault("keyService", "http://127.0.0.1:1")
    spoil(site)
    done = subprocess.run(start_command(site), capture_output=True, cwd=ROOT, timeout=300)
    (line,) = [json.loads(each) for each in done.stderr.splitlines() if b"start_failed" in each]
    assert done.returncode == 2
    assert any(problem in each for each in line["problems"]), line
    assert b"Traceback" not in done.stderr
    assert b"event_loop" not in done.stderr


def test_it_says_when_it_can_believe_nobody(site: Site) -> None:
    del site.settings["certificates"]["simulatedRoot"]
    with verifier(site) as running:
        assert len(running.events("no_trusted_root")) == 1


def test_with_a_root_it_says_no_such_thing(site: Site) -> None:
    with verifier(site) as running:
        assert not running.events("no_trusted_root")


def test_a_root_that_only_has_amds_name_is_refused_at_the_start(tmp_path: Path) -> None:
    key, name = ec.generate_private_key(ec.SECP384R1()), common_name("ARK-Milan")
    certificate = builder(name, name, key.public_key()).sign(key, hashes.SHA384())
    (tmp_path / "ark.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    with pytest.raises(ConfigurationError, match=r"ARK-Milan has SHA-256 .*, pinned 69d063b4"):
        load_trust_anchors(Certificates(roots=(tmp_path,)))


def test_it_ends_with_its_connections_closed(site: Site, device: Device, issuer: Issuer) -> None:
    site.settings["certificates"]["keyService"] = "http://127.0.0.1:1"
    site.write_policy("payments", policy())
    with verifier(site) as running:
        client = running.client()
        guest = Guest(client, device, issuer.token())
        assert guest.attest().status == 200
        client.close()
        assert terminate(running) == 0
        events = [line["event"] for line in running.log()]
        assert events[-1] == "stopped"
        assert not {"event_loop", "unraisable", "library"} & set(events)


# Strict about media types, as an API server is: its key set has one of its own, and a 406 for whoever takes another.
_API_SERVER = """
import http.server, pathlib, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        file = pathlib.Path(sys.argv[1] + self.path)
        kind = "application/jwk-set+json" if self.path.startswith("/openid/") else "application/json"
        taken = {part.split(";")[0].strip() for part in self.headers.get("Accept", "").split(",")}
        status = 406 if not taken & {kind, "*/*"} else 200 if file.is_file() else 404
        content = file.read_bytes() if status == 200 else b"{}"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print("port", server.server_port, "here")
server.serve_forever()
"""


def test_vm_with_read_back_asks_the_api_server_whose_pod_it_is(
    site: Site, device: Device, issuer: Issuer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("api")
    pods = folder / "api/v1/namespaces/shop/pods"
    pods.mkdir(parents=True)
    (pods / "payments-1").write_text(json.dumps(LIVE))
    (folder / "openid/v1").mkdir(parents=True)
    issuer.write_jwks(folder / "openid/v1/jwks")
    command = [sys.executable, "-u", "-c", _API_SERVER, str(folder)]
    api = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert api.stdout is not None
        port = api.stdout.readline().split("port ")[1].split()[0]
        site.settings["clusters"][0] |= {
            "jwks": {"url": f"http://127.0.0.1:{port}/openid/v1/jwks"},
            "readBack": {"url": f"http://127.0.0.1:{port}", "timeoutSeconds": 10},
        }
        for service in ("payments", "orders"):
            site.write_policy(service, policy(service, assurance="vm", hostData=[]))
        with verifier(site) as running:
            client: Client = running.client()
            assert Guest(client, device, issuer.token(uid="uid-1")).attest().status == 200
            (line,) = running.events("attestation")
            assert (line["assurance"], line["pod"]["k8s_service"]) == ("vm", "payments")
            assert line["policy"] == "prod/shop/payments"
            other = Guest(client, device, issuer.token(uid="uid-of-a-dead-pod")).attest()
            assert inside(running, other) == ("pod-mismatch", [])
            api.kill()
            api.wait()
            absent = Guest(client, device, issuer.token(uid="uid-1")).attest()
            assert (absent.status, absent.error.problem) == (503, "ClusterUnavailable")
            assert inside(running, absent) == ("pod-unavailable", [])
    finally:
        api.kill()
        api.wait()


def test_certificates_that_are_not_there_yet_are_no_refusal(site: Site, device: Device, issuer: Issuer) -> None:
    """With a key service that does not answer the guest may come again; without one nothing would change."""
    site.write_policy("payments", policy())
    for number, (service, status, reason, word) in enumerate(
        (
            ("http://127.0.0.1:1", 503, "certificates-unavailable", "CertificatesUnavailable"),
            (None, 401, "verdict", "AttestationRefused"),
        )
    ):
        site.settings["certificates"]["keyService"] = service
        with verifier(site, f"verifier-{number}") as running:
            guest = Guest(running.client(), device, issuer.token())
            body = json.loads(guest.body())
            body["tee-evidence"]["primary_evidence"]["cert_chain"] = []
            answer = guest.client.attest(json.dumps(body).encode())
            assert (answer.status, answer.error.problem) == (status, word)
            assert inside(running, answer) == (reason, ["certificates/leaf"])


def test_a_guest_is_any_of_its_policys(site: Site, device: Device, issuer: Issuer) -> None:
    guests = {name: {**GUEST, "measurements": [digit * 96]} for name, digit in (("old", "1"), ("older", "2"))}
    site.write_guests(guests | {"new": GUEST, "stricter": {**GUEST, "minGuestSvn": 1}})
    site.write_policy("payments", policy(guests=["older", "stricter", "new", "old"]))
    with verifier(site) as running:
        client = running.client()
        assert Guest(client, device, issuer.token(uid="a")).attest().status == 200
        assert running.events("attestation")[0]["guest"] == "new"
        answer = Guest(client, replace(device, measurement=b"\3" * 48), issuer.token(uid="b")).attest()
        assert inside(running, answer) == ("verdict", ["guest/measurement"])
        assert running.events("attestation")[1]["guest"] == "older"


def test_a_revocation_list_is_followed(site: Site, device: Device, issuer: Issuer) -> None:
    """Emptied of its list, the verifier knows nothing of revocation any more, and believes nobody."""
    (site.folder / "crls").mkdir()
    listed = site.folder / "crls" / "crl.pem"
    listed.write_bytes(device.hierarchy.crl_path.read_bytes())
    site.settings["certificates"]["crls"] = ["crls"]
    site.write_policy("payments", policy())
    with verifier(site) as running:
        client = running.client()
        assert Guest(client, device, issuer.token(uid="a")).attest().status == 200
        listed.unlink()
        until(lambda: running.events("file_reloaded"))
        answer = Guest(client, device, issuer.token(uid="b")).attest()
        assert inside(running, answer) == ("verdict", ["crl/present"])
