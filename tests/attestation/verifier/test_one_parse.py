"""An attestation parses its report once, at the edge; every later step takes the parsed one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from attestation.report import abi
from attestation.simulator.device import Device
from attestation.simulator.hierarchy import Hierarchy
from attestation.verifier.assembly import Settings, make_application
from attestation.verifier.configuration import load_configuration
from kbs.ephemeral_key import EphemeralKey
from kbs.guest import read_auth_answer, write_additional_evidence, write_attest, write_auth
from kbs.messages import ATTEST_PATH, AUTH_PATH, binding
from server.messages import RequestInfo
from server.tls import CertificateFiles
from tests.attestation.verifier.guest import document
from tests.attestation.verifier.process import make_site, policy
from tests.attestation.verifier.tokens import Issuer


async def test_an_accepted_attestation_parses_its_report_once(
    tmp_path: Path, hierarchy: Hierarchy, device: Device, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(tmp_path, hierarchy, issuer, "http://127.0.0.1:1")
    site.write_policy("payments", policy())
    settings = Settings(("127.0.0.1", 0), CertificateFiles(tmp_path / "tls.crt", tmp_path / "tls.key"))
    routes = make_application(settings, load_configuration(site.write())).routes
    info = RequestInfo("POST", "", "", "", {}, 0.0, "127.0.0.1")
    nonce = read_auth_answer((await routes["POST", AUTH_PATH](write_auth(), info)).body)
    key, additional = EphemeralKey(), write_additional_evidence(issuer.token())
    primary = document(device, binding(nonce, key.public, additional))
    body = write_attest(nonce, key.public, primary, additional)

    parsed: list[bytes] = []
    parse_report = abi.parse_report

    def counting(raw: bytes) -> abi.Report:
        parsed.append(raw)
        return parse_report(raw)

    # Wherever it was imported to: a second call must not hide in another module.
    for module in list(sys.modules.values()):
        if vars(module).get("parse_report") is parse_report:
            monkeypatch.setattr(module, "parse_report", counting)
    answer = await routes["POST", ATTEST_PATH](body, info)
    assert answer.status == 200
    assert len(parsed) == 1
