"""What needs no certificate is checked first, so that forged reports cost AMD's key service and the cluster nothing."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from attestation.report.products import MILAN
from attestation.report.tcb import Tcb, encode_tcb
from attestation.simulator.hierarchy import Hierarchy
from tests.attestation.verifier import key_service
from tests.attestation.verifier.guest import Answer
from tests.attestation.verifier.key_service import HttpAnswer, Maker, milan_verifier, serving
from tests.attestation.verifier.process import Site, Verifier, make_site, policy
from tests.attestation.verifier.test_refusals import inside
from tests.attestation.verifier.tokens import Issuer
from tests.support.until import until

TENANTS = {"hostile": b"h" * 32, "victim": b"v" * 32}
PACE = 0.3


@pytest.fixture
def site(tmp_path: Path, hierarchy: Hierarchy, issuer: Issuer, maker: Maker) -> Site:
    """Two tenants, each with a policy of its own; no Vault."""
    site = make_site(tmp_path, hierarchy, issuer, "http://127.0.0.1:1")
    site.write_guests({"milan": maker.guest})
    for tenant, digest in TENANTS.items():
        record = policy(tenant, guests=["milan"], hostData=[digest.hex()], workload={"namespace": tenant})
        site.write_policy(tenant, record)
    return site


def attest(running: Verifier, maker: Maker, issuer: Issuer, tenant: str, uid: str, **bent: Any) -> Answer:
    """One attestation of a tenant's pod."""
    return key_service.attest(
        running, maker, issuer, namespace=tenant, uid=uid, **({"host_data": TENANTS[tenant]} | bent)
    )


def forgeries() -> list[tuple[str, dict[str, Any], str]]:
    """What is wrong with a report whose chip does not exist, and the check that finds it."""
    low_tcb = encode_tcb(Tcb(bootloader=2, tee=0, snp=8, microcode=115), MILAN.tcb_layout)
    return [
        ("the report of another request", {"bound": False}, "guest/report-data"),
        ("measurement", {"measurement": b"x" * 48}, "guest/measurement"),
        ("debug", {"policy": 0x30000 | 1 << 19}, "policy/debug"),
        ("migration", {"policy": 0x30000 | 1 << 18}, "policy/migrate-ma"),
        ("reserved policy bits", {"policy": 0x30000 | 1 << 40}, "policy/reserved"),
        ("VMPL", {"vmpl": 1}, "guest/vmpl"),
        ("requested by the host", {"vmpl": 0xFFFFFFFF}, "report/requester"),
        ("reported TCB", {"reported_tcb": low_tcb}, "tcb/reported-floor"),
        ("launch TCB", {"launch_tcb": low_tcb}, "tcb/launch-floor"),
        (
            "version",
            {"version": 2} | dict.fromkeys(("cpuid_fam_id", "cpuid_mod_id", "cpuid_step"), 0),
            "report/version",
        ),
        ("product", {"cpuid_mod_id": 0x11}, "product/line"),
    ]


def test_forged_reports_cost_the_key_service_nothing(site: Site, maker: Maker, issuer: Issuer) -> None:
    """Each names another chip, by a pod with a valid token and a policy."""
    with milan_verifier(site, maker, pace=PACE) as running:
        for number, (name, bent, check) in enumerate(forgeries()):
            answer = attest(running, maker, issuer, "hostile", f"pod-{number}", chip_id=os.urandom(64), **bent)
            assert maker.asked == [], name
            assert answer.status == 401, name
            reason, failed = inside(running, answer)
            assert reason == "verdict", name
            assert check in failed, name
            (record,) = [each for each in site.records() if each["id"] == answer.error.correlation_id]
            unreached = {each["id"] for each in record["verdict"]["checks"] if each["ok"] is None}
            assert {"certificates/leaf", "chain/leaf", "signature/report", "crl/present"} <= unreached, name
        assert [path for path in maker.lists_asked if path.endswith("cert_chain")] == []


def test_a_tenant_that_names_chips_without_end_does_not_keep_others_waiting(
    site: Site, maker: Maker, issuer: Issuer
) -> None:
    """Its reports are right but for the signature, which only the chip's certificate can tell.

    The key service takes its time for the first answer: until the victim, whose request follows, has its place.
    """
    answer, here = maker.key_service, threading.Event()

    def slow(path: str) -> HttpAnswer:
        answered = answer(path)
        here.wait(300) if path in maker.asked else None
        return answered

    maker.key_service = slow  # type: ignore[method-assign]
    with milan_verifier(site, maker, pace=PACE) as running, ThreadPoolExecutor(13) as many:
        hostile = [
            many.submit(attest, running, maker, issuer, "hostile", f"pod-{number}", chip_id=os.urandom(64))
            for number in range(12)
        ]
        until(lambda: maker.asked)
        victim = many.submit(attest, running, maker, issuer, "victim", "victim")
        until(lambda: any("victim" in line["client"] for line in running.events("queued")))
        here.set()
        assert victim.result().status == 200
        position = maker.asked.index(maker.vcek_path)
        assert position <= 2, "one request was under way, and of each tenant one is next"
        assert {each.result().status for each in hostile} <= {401, 503}
        assert len(maker.asked) <= 5, "failed look-ups count against the workload that named the chips"


def test_a_forged_report_costs_the_cluster_nothing(site: Site, maker: Maker, issuer: Issuer) -> None:
    asked: list[str] = []

    def api_server(path: str) -> HttpAnswer:
        asked.append(path)
        return 404, {}, b"{}"

    with serving(api_server) as url:
        site.settings["clusters"][0]["readBack"] = {"url": url, "timeoutSeconds": 10}
        with milan_verifier(site, maker) as running:
            answer = attest(running, maker, issuer, "hostile", "pod", measurement=b"x" * 48)
            assert inside(running, answer) == ("verdict", ["guest/measurement"])
            assert asked == []
            # A report that passes the cheap checks is worth a look at the pod, and that comes before certificates.
            answer = attest(running, maker, issuer, "hostile", "pod")
            assert inside(running, answer)[0] == "pod-mismatch"
            assert len(asked) == 1
            assert maker.asked == []
