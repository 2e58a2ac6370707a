"""How often one address may ask, before anything is verified."""

from __future__ import annotations

from pathlib import Path
from urllib.request import urlopen

from attestation.simulator.device import Device
from attestation.simulator.hierarchy import Hierarchy
from kbs.guest import token_path, write_auth
from kbs.messages import AUTH_PATH
from tests.attestation.verifier.process import make_site, policy, verifier
from tests.attestation.verifier.test_refusals import Guest
from tests.attestation.verifier.tokens import Issuer
from tests.support.until import until

JWKS = "/.well-known/jwks.json"


def test_one_address_is_bounded_and_told_of_once(
    tmp_path: Path, hierarchy: Hierarchy, device: Device, issuer: Issuer
) -> None:
    site = make_site(tmp_path, hierarchy, issuer, "http://127.0.0.1:1")
    site.write_policy("payments", policy())
    site.settings["perSource"] = {"burst": 2, "perSecond": 0.0001}
    with verifier(site) as running:
        client = running.client()
        guests = [Guest(client, device, issuer.token(uid=str(number))) for number in range(2)]
        bodies = [guests[number % 2].body() for number in range(4)]
        answers = [client.attest(body) for body in bodies]
        assert [answer.status for answer in answers] == [200, 200, 503, 503]
        assert answers[-1].headers["retry-after"] == "2"
        # The other calls have a pace of their own, and the nonces' is used up by now.
        calls = {"auth": ("POST", AUTH_PATH, write_auth()), "jwks": ("GET", JWKS, None)}
        calls["token"] = ("GET", token_path("default"), None)
        statuses = {name: [client.call(*call).status for _ in range(3)] for name, call in calls.items()}
        assert statuses == {"auth": [503] * 3, "jwks": [200, 200, 503], "token": [401, 401, 503]}
        until(lambda: running.events("source_too_often"))
        (line,) = running.events("source_too_often")
        assert (line["source"], line["call"]) == ("127.0.0.1", "attest")
        assert len(running.events("attestation")) == 2
        with urlopen(f"http://127.0.0.1:{running.metrics_port}/metrics", timeout=300) as answer:
            metrics = answer.read().decode()
        for call, count in {"attest": 2, "auth": 3, "jwks": 1, "token": 1}.items():
            assert f'morphisms_source_refusals_total{{call="{call}"}} {count}.0\n' in metrics
