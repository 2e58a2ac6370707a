"""How often one address may ask, before anything is verified."""

from __future__ import annotations

from pathlib import Path

from attestation.simulator.device import Device
from attestation.simulator.hierarchy import Hierarchy
from tests.attestation.verifier.process import make_site, policy, verifier
from tests.attestation.verifier.test_refusals import Guest
from tests.attestation.verifier.tokens import Issuer
from tests.support.until import until


def test_one_address_is_bounded_and_told_of_once(
    tmp_path: Path, hierarchy: Hierarchy, device: Device, issuer: Issuer
) -> None:
    site = make_site(tmp_path, hierarchy, issuer, "http://127.0.0.1:1")
    site.write_policy("payments", policy())
    site.settings["perSource"] = {"burst": 2, "perSecond": 0.0001}
    with verifier(site) as running:
        client = running.client()
        answers = [Guest(client, device, issuer.token(uid=str(number))).attest() for number in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 503, 503]
        assert answers[-1].headers["retry-after"] == "2"
        until(lambda: running.events("source_too_often"))
        (line,) = running.events("source_too_often")
        assert line["source"] == "127.0.0.1"
        assert len(running.events("attestation")) == 2
