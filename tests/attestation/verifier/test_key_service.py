"""The verifier's dealings with AMD's key service besides VCEKs: revocation lists that stay current, egress proxies."""

from __future__ import annotations

import os
import ssl
import urllib.request
from pathlib import Path

import pytest

from attestation.pki.certificates import parse_certificates
from attestation.simulator.hierarchy import Hierarchy
from kbs.attested_guest import write_attested
from tests.attestation.conftest import Platform
from tests.attestation.verifier.attesting import Caller
from tests.attestation.verifier.key_service import HOST_DATA, Maker, attest, connect_proxy, milan_verifier, serving
from tests.attestation.verifier.process import Site, Verifier, make_site, policy
from tests.attestation.verifier.test_refusals import inside
from tests.attestation.verifier.tokens import Issuer
from tests.support.until import until

CRL, VLEK_CRL = "/vcek/v1/Milan/crl", "/vlek/v1/Milan/crl"


@pytest.fixture
def site(tmp_path: Path, hierarchy: Hierarchy, issuer: Issuer, maker: Maker) -> Site:
    """One workload on the maker's chip; no Vault."""
    site = make_site(tmp_path, hierarchy, issuer, "http://127.0.0.1:1")
    site.write_guests({"milan": maker.guest})
    site.write_policy("payments", policy(guests=["milan"], hostData=[HOST_DATA.hex()]))
    return site


def metric(running: Verifier, name: str, kind: str) -> float:
    """The value for Milan."""
    return plain_metric(running, f'{name}{{kind="{kind}",product="Milan"}}')


def plain_metric(running: Verifier, sample: str) -> float:
    """The value of one sample, by name and labels."""
    url = f"http://127.0.0.1:{running.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=300) as answer:
        lines = answer.read().decode().splitlines()
    (value,) = [line.split()[-1] for line in lines if line.startswith(f"{sample} ")]
    return float(value)


def test_lists_are_fetched_before_any_guest_comes_and_their_age_is_a_metric(site: Site, maker: Maker) -> None:
    with milan_verifier(site, maker) as running:
        until(lambda: metric(running, "morphisms_crl_next_update_seconds", "vcek") > 0)
        assert maker.lists_asked == [CRL]
        assert 299 * 86400 < metric(running, "morphisms_crl_next_update_seconds", "vcek") < 301 * 86400
        assert 0 <= metric(running, "morphisms_crl_checked_age_seconds", "vcek") < 3600
        assert str(metric(running, "morphisms_crl_next_update_seconds", "vlek")) == "nan"


def test_a_missing_list_shows_in_the_metric(site: Site, maker: Maker) -> None:
    del maker.files[CRL]
    with milan_verifier(site, maker) as running:
        until(lambda: maker.lists_asked)
        until(lambda: metric(running, "morphisms_crl_next_update_seconds", "vcek") == 0)


def test_a_fresh_list_for_vleks_does_not_hide_a_revoked_ask(
    site: Site, maker: Maker, platform: Platform, issuer: Issuer
) -> None:
    """A mirror that answers with the other list, whose signature is the root's as well, and an operator's old file."""
    (site.folder / "vlek.crl").write_bytes(platform.crl(vlek=True).der)
    maker.files[CRL] = platform.crl([65537]).der
    with milan_verifier(site, maker, vlekCrls=["vlek.crl"]) as running:
        answer = attest(running, maker, issuer)
        assert inside(running, answer) == ("verdict", ["crl/intermediate"])
    del maker.files[CRL]
    with milan_verifier(site, maker, vlekCrls=["vlek.crl"], cache="another-cache") as running:
        answer = attest(running, maker, issuer)
        assert answer.status == 503
        assert inside(running, answer) == ("certificates-unavailable", ["crl/present"])


def test_a_guest_that_tolerates_a_missing_list_is_labelled(site: Site, maker: Maker, issuer: Issuer) -> None:
    del maker.files[CRL]
    site.write_guests({"milan": maker.guest | {"crl": "soft"}})
    with milan_verifier(site, maker) as running:
        assert attest(running, maker, issuer).status == 200
        (record,) = running.site.records()
        assert record["verdict"]["revocation"] == record["verdict"]["claims"]["snp_revocation"] == "unchecked"
        (warning,) = running.events("permissive_guest")
        assert (warning["guest"], warning["detail"].partition(":")[0]) == ("milan", "crl")
        assert plain_metric(running, "morphisms_guests_without_revocation") == 1
        site.write_guests({"milan": maker.guest})
        until(lambda: plain_metric(running, "morphisms_guests_without_revocation") == 0)


def test_a_folder_that_every_account_may_write_to_is_named(site: Site, maker: Maker) -> None:
    (site.folder / "guests").chmod(0o777)
    with milan_verifier(site, maker) as running:
        assert [line["path"] for line in running.events("open_folder")] == [str(site.folder / "guests")]


@pytest.mark.parametrize("excepted", [False, True])
def test_an_egress_proxy_is_used_for_the_key_service(site: Site, maker: Maker, issuer: Issuer, excepted: bool) -> None:
    """The name of the service resolves nowhere: only the proxy knows it. NO_PROXY excepts hosts."""
    asked: list[str] = []

    def proxy(target: str) -> tuple[int, dict[str, str], bytes]:
        asked.append(target)
        return maker.key_service(target.removeprefix("http://kds.invalid"))

    with serving(proxy) as url:
        environment = os.environ | {"HTTP_PROXY": url, "http_proxy": url, "NO_PROXY": "", "no_proxy": ""}
        if excepted:
            environment |= dict.fromkeys(("NO_PROXY", "no_proxy"), "kds.invalid")
        service = "http://kds.invalid"
        with milan_verifier(site, maker, environment=environment, keyService=service) as running:
            answer = attest(running, maker, issuer)
            assert answer.status == (503 if excepted else 200)
            assert bool(asked) != excepted
            assert all(target.startswith(service) for target in asked)


@pytest.mark.parametrize("case", ["used", "excepted", "refuses", "gone"])
def test_https_to_the_key_service_goes_through_the_proxys_tunnel(
    site: Site, maker: Maker, issuer: Issuer, case: str
) -> None:
    """Nothing listens at the service's own address here, so only the tunnel leads to it."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(site.folder / "tls.crt", site.folder / "tls.key")
    with (
        serving(maker.key_service, tls) as url,
        connect_proxy(int(url.rpartition(":")[2]), refuses=case == "refuses") as (proxy, asked),
    ):
        address = "http://127.0.0.1:1" if case == "gone" else proxy
        excepted = "localhost" if case == "excepted" else ""
        environment = os.environ | {"HTTPS_PROXY": address, "https_proxy": address}
        environment |= {"NO_PROXY": excepted, "no_proxy": excepted, "SSL_CERT_FILE": str(site.folder / "ca.crt")}
        with milan_verifier(site, maker, environment=environment, keyService="https://localhost") as running:
            answer = attest(running, maker, issuer)
            assert answer.status == (200 if case == "used" else 503)
            assert bool(asked) == (case in ("used", "refuses"))
            assert set(asked) <= {"CONNECT localhost:443 HTTP/1.1"}
            problems = {line["problem"] for line in running.events("key_service")}
            assert (
                problems
                == {
                    "used": set(),
                    "excepted": {"AMD's key service cannot be reached: ClientConnectorError"},
                    "refuses": {"the proxy on the way to AMD's key service answered 403"},
                    "gone": {"the proxy on the way to AMD's key service cannot be reached"},
                }[case]
            )


def test_the_verifiers_own_evidence_comes_with_its_whole_chain(site: Site, maker: Maker) -> None:
    """Its host hands out no certificates. A pod may have no way to AMD's key service, so the root comes along."""
    with serving(maker.machine) as machine:
        site.settings["attest"] = {"sources": [{"source": "simulated", "address": machine}]}
        with milan_verifier(site, maker) as running:
            until(lambda: running.events("self_attestation"))
            caller = Caller(running)
            answers = [caller.prove(os.urandom(32)) for _ in range(3)]
            ask, ark = parse_certificates(maker.files["/vcek/v1/Milan/cert_chain"])
            expected = {"VCEK": maker.leaf.der, "ASK": ask.der, "ARK": ark.der}
            for answer in answers:
                chain = answer.evidence["cert_chain"]
                assert {each["cert_type"]: bytes(each["data"]) for each in chain} == expected
            assert len(maker.asked) == 1, "the key service is asked once"
            assert not running.events("simulated_self_attestation")


def test_without_the_certificates_of_its_chip_the_verifier_attests_nothing(site: Site, maker: Maker) -> None:
    with serving(maker.machine) as machine:
        site.settings["attest"] = {"sources": [{"source": "simulated", "address": machine}]}
        maker.files.clear()
        with milan_verifier(site, maker) as running:
            until(lambda: running.events("cannot_attest_itself"))
            assert "issuer" in running.events("cannot_attest_itself")[0]["detail"]
            answer = Caller(running).call(body=write_attested(bytes(32)))
            assert (answer.status, answer.error.problem) == (503, "EvidenceUnavailable")
