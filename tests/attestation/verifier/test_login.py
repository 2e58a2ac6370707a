"""From evidence to a Vault token that opens one workload's secrets and no other's: real TLS, OpenBao, processes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from attestation.simulator.device import Device
from attestation.simulator.server import SimulatedMachine
from tests.attestation.verifier.process import Verifier
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
            timeout=60,
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
