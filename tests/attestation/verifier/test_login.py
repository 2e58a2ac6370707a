"""From evidence to a Vault token that opens one workload's secrets and no other's: real TLS, OpenBao, processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from attestation.simulator.device import Device
from attestation.simulator.hierarchy import Hierarchy
from attestation.simulator.server import SimulatedMachine
from kbs.guest import open_token, read_attest_answer
from tests.attestation.verifier.process import Verifier, make_site, policy, verifier
from tests.attestation.verifier.test_refusals import Guest
from tests.attestation.verifier.tokens import Issuer
from tests.support.openbao import OpenBao
from tests.support.paths import ROOT


@pytest.mark.parametrize("source", ["simulated", "coco-aa"])
def test_a_guest_process_gets_a_token_for_its_own_secrets_alone(
    running: Verifier, device: Device, issuer: Issuer, bao: OpenBao, source: str
) -> None:
    machine = SimulatedMachine(device, ("127.0.0.1", 0))
    machine.start()
    try:
        settings = {
            "port": running.port,
            "ca": str(running.site.folder / "ca.crt"),
            "pod_token": issuer.token(),
            "source": source,
            "machine": machine.address,
            "role": "knative",
        }
        done = subprocess.run(
            [sys.executable, "-m", "tests.attestation.verifier.guest"],
            input=json.dumps(settings).encode(),
            capture_output=True,
            cwd=ROOT,
            timeout=300,
        )
    finally:
        machine.stop()
    assert done.returncode == 0, done.stderr.decode()
    got = json.loads(done.stdout)
    assert (got["status"], got["simulated"]) == (200, True)
    status, answer = bao.call("GET", "secret/data/knative/prod/shop/payments/db", token=got["token"])
    assert (status, answer["data"]["data"]) == (200, {"password": "of payments"})
    for path in ("secret/data/knative/prod/shop/neighbour/db", "secret/data/knative/prod/shop/payments", "sys/auth"):
        assert bao.call("GET", path, token=got["token"])[0] == 403, path


def test_a_guest_that_reads_it_gets_the_authority_of_vault_and_an_older_one_the_former_answer(
    tmp_path: Path, hierarchy: Hierarchy, device: Device, issuer: Issuer, bao: OpenBao, running: Verifier
) -> None:
    site = make_site(tmp_path, hierarchy, issuer, f"https://127.0.0.1:{bao.tls_port}")
    (tmp_path / "vault-ca.pem").write_text(f"# of the test\n{bao.ca}")
    site.settings["vault"]["ca"] = "vault-ca.pem"
    site.write_policy("payments", policy())
    # The other verifier's tests go on.
    bao.trust([*running.site.public_keys, *site.public_keys])
    with verifier(site) as reading:
        for version, expected in (("2", bao.ca.strip()), ("1", ""), ("", "")):
            guest = Guest(reading.client(), device, issuer.token(uid=f"wire-{version}"))
            bearer = read_attest_answer(guest.attest().body)
            headers = {"Morphisms-Wire": version} if version else {}
            answer = guest.client.token(bearer, headers=headers)
            assert answer.status == 200
            assert open_token(answer.body, guest.key, guest.nonce).vault_ca == expected
