"""Attestations without a pod token: what a stranger's report costs, and what a login without a pod rests on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from attestation.evidence.coco_document import coco_document
from attestation.evidence.source import CollectedEvidence
from attestation.report.report_data import padded
from attestation.simulator.hierarchy import Hierarchy
from attestation.verifier.cluster.node_chips import check_chip
from attestation.verifier.cluster.pod_token import PodIdentity
from attestation.verifier.reasons import Reason, RefusedError
from cli.main import main
from kbs.ephemeral_key import EphemeralKey
from kbs.guest import write_attest
from kbs.messages import SESSION_COOKIE, binding
from tests.attestation.verifier.guest import Answer
from tests.attestation.verifier.key_service import Maker, milan_verifier
from tests.attestation.verifier.process import Verifier, make_site
from tests.attestation.verifier.tokens import Issuer
from tests.cli import rendering

GUEST = PodIdentity("prod", "shop", "default", "", "ab" * 32, without_token=True)


def render_record(folder: Path) -> dict[str, Any]:
    """What `morphisms render --evidence coco-cdh` writes for payments of cluster prod, in guest milan."""
    arguments = rendering.write_inputs(folder)
    for name in ("cluster.yaml", "trust.yaml"):
        document = yaml.safe_load((folder / name).read_text())
        document["template"]["cluster"] = "prod"
        document |= {"guests": ["milan"]} if name == "trust.yaml" else {}
        (folder / name).write_text(yaml.safe_dump(document))
    assert main([*arguments, "-o", str(folder / "out"), "--evidence", "coco-cdh"]) == 0
    return dict(yaml.safe_load((folder / "out" / "appraisal.yaml").read_text()))


def attest(running: Verifier, maker: Maker, *, bound: bytes | None = None, **bent: Any) -> Answer:
    """A report of the chip without a pod token; `bound`: what it binds in place of the right digest."""
    client, key = running.client(), EphemeralKey()
    nonce = client.nonce()
    report = maker.report(padded(bound or binding(nonce, key.public, "")), **bent)
    answer = client.attest(write_attest(nonce, key.public, coco_document(CollectedEvidence("x", report)), ""))
    client.close()
    return answer


@pytest.fixture
def record(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "rendered").mkdir()
    return render_record(tmp_path / "rendered")


@pytest.fixture
def milan(
    tmp_path: Path, hierarchy: Hierarchy, issuer: Issuer, maker: Maker, record: dict[str, Any]
) -> Iterator[Verifier]:
    """No Vault, and a key service that counts its questions."""
    (tmp_path / "site").mkdir()
    site = make_site(tmp_path / "site", hierarchy, issuer, "http://127.0.0.1:1")
    site.write_guests({"milan": maker.guest, "signed": signed_guest(maker)})
    site.write_policy("payments", record | {"guests": ["milan", "signed"]})
    with milan_verifier(site, maker) as process:
        yield process


def signed_guest(maker: Maker) -> dict[str, Any]:
    """A guest that any measurement would do for, if a trusted key signed its image."""
    return {**maker.guest, "measurements": [], "idKeys": ["00" * 48], "minGuestSvn": 0}


def test_amds_key_service_is_asked_only_for_a_guest_of_a_record(
    milan: Verifier, maker: Maker, record: dict[str, Any]
) -> None:
    host_data = bytes.fromhex(record["hostData"][0])
    strangers: list[tuple[dict[str, Any], str]] = [
        ({"host_data": b"\7" * 32}, "no-policy"),
        ({"host_data": host_data, "measurement": b"\7" * 48}, "no-policy"),
        ({"host_data": host_data, "bound": b"\7" * 48}, "verdict"),
        ({"host_data": host_data, "vmpl": 2}, "verdict"),
    ]
    for bent, reason in strangers:
        assert attest(milan, maker, **bent).status == 401
        (line,) = milan.events("attestation")[-1:]
        assert (line["reason"], line["pod"]) == (reason, None)
    assert maker.asked == []
    assert attest(milan, maker, host_data=host_data).status == 200
    assert maker.asked == [maker.vcek_path]


def test_the_first_call_gives_the_nonce_as_the_protocols_cookie_too(running: Verifier) -> None:
    client = running.client()
    answer = client.call("POST", "/kbs/v0/auth", b'{"version":"0.4.0","tee":"snp","extra-params":{}}')
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert cookie.partition("=")[0] == SESSION_COOKIE
    assert f'"nonce":"{cookie.partition("=")[2]}"'.encode() in answer.body
    assert set(attributes) == {"Path=/kbs/v0", "Secure", "HttpOnly"}


def test_a_large_second_call_needs_the_cookie_of_a_nonce_of_our_own(running: Verifier) -> None:
    """A stranger's bodies stay small."""
    client = running.client()
    nonce = client.nonce()
    large = b'{"init-data":{"format":"toml","body":"' + b"x" * 80_000 + b'"}}'
    for cookie, status in (
        ("", 413),
        (f"{SESSION_COOKIE}=AAAA", 413),
        (f"other={nonce}", 413),
        (f"other=1; {SESSION_COOKIE}={nonce}", 400),  # read to its end, and then not a message
    ):
        headers = {"Cookie": cookie} if cookie else {}
        assert client.call("POST", "/kbs/v0/attest", large, headers).status == status
    client.close()


def test_without_a_pod_the_chip_is_of_any_node_of_the_cluster() -> None:
    chips = {"a": frozenset({b"1" * 64}), "b": frozenset({b"2" * 64})}
    for chip in (b"1" * 64, b"2" * 64):
        check_chip(chips, GUEST, chip)
    with pytest.raises(RefusedError) as caught:
        check_chip(chips, GUEST, b"3" * 64)
    assert caught.value.reason is Reason.NODE_CHIP


def test_a_login_without_a_pod_asserts_nothing() -> None:
    assert GUEST.claims() == {}
