"""Which source is asked: the configured order, and what counts as being there."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from attestation.errors import FormatError
from attestation.evidence import SOURCES, Code, EvidenceError, Kind, collect_first, open_source, order
from attestation.evidence.coco_aa import CocoAttestationAgent
from attestation.evidence.errors import kind_of
from attestation.simulator.device import Device
from kbs import deadline
from plan.document import DATA_HUB, EVIDENCE_SOURCES, EvidenceSource
from tests.attestation.evidence.agent import Respond, attestation_agent, plain, serving
from tests.support.paths import ROOT

DIGEST = bytes(range(48))


def simulated(device: Device) -> Respond:
    return plain("200 OK", device.report(DIGEST + bytes(16)) + device.certificate_table())


def test_the_first_that_is_there_answers_and_no_other_is_asked(device: Device) -> None:
    with serving(attestation_agent(device)) as agent, serving(simulated(device)) as machine:
        sources = [EvidenceSource("coco-aa", agent.address), EvidenceSource("simulated", machine.address)]
        assert collect_first(sources, DIGEST, timeout=60).source == "coco-aa"
        assert (len(agent.heads), len(machine.heads)) == (1, 0)
        assert collect_first(sources[::-1], DIGEST, timeout=60).source == "simulated"
        assert (len(agent.heads), len(machine.heads)) == (1, 1)


def test_a_faster_answer_of_a_later_source_changes_nothing(device: Device) -> None:
    def slow(connection: socket.socket, target: str) -> None:
        time.sleep(0.2)  # the slowness under test
        attestation_agent(device)(connection, target)

    with serving(slow) as agent, serving(simulated(device)) as machine:
        sources = [EvidenceSource("coco-aa", agent.address), EvidenceSource("simulated", machine.address)]
        assert collect_first(sources, DIGEST, timeout=60).source == "coco-aa"
        assert machine.heads == []


def test_what_is_not_there_is_passed_over(device: Device, tmp_path: Path) -> None:
    with serving(plain("404 Not Found")) as switched_off, serving(simulated(device)) as machine:
        sources = [
            EvidenceSource("configfs-tsm", f"{tmp_path}/tsm/report"),
            EvidenceSource("sev-guest", f"{tmp_path}/sev-guest"),
            EvidenceSource("coco-aa", switched_off.address),
            EvidenceSource("simulated", machine.address),
        ]
        assert collect_first(sources, DIGEST, timeout=60).source == "simulated"


@pytest.mark.parametrize(
    "respond",
    [
        plain("403 Forbidden"),
        plain("302 Found"),
        plain("200 OK", b"{}"),
    ],
)
def test_a_source_that_is_there_and_fails_ends_it(device: Device, respond: Respond) -> None:
    with serving(respond) as agent, serving(simulated(device)) as machine:
        sources = [EvidenceSource("coco-aa", agent.address), EvidenceSource("simulated", machine.address)]
        with pytest.raises(EvidenceError) as caught:
            collect_first(sources, DIGEST, timeout=60)
        assert (caught.value.source, caught.value.kind) == ("coco-aa", Kind.FAILED)
        assert machine.heads == []


def test_a_busy_source_is_asked_again_until_the_deadline_and_not_replaced(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, left = 0.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    def busy(_agent: CocoAttestationAgent, _report_data: bytes, *, timeout: float) -> None:
        left.append(round(timeout, 3))
        raise EvidenceError("coco-aa", Code.THROTTLED, "busy")

    for module in (deadline, order):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    monkeypatch.setattr(CocoAttestationAgent, "collect", busy)
    with serving(simulated(device)) as machine:
        sources = [EvidenceSource("coco-aa", "http://127.0.0.1:1"), EvidenceSource("simulated", machine.address)]
        with pytest.raises(EvidenceError) as caught:
            collect_first(sources, DIGEST, timeout=1.4)
        assert (caught.value.source, caught.value.code) == ("coco-aa", Code.THROTTLED)
        assert left == [1.4, 1.3, 1.1, 0.7]  # the next would come at 1.5 s, too late
        assert machine.heads == []


def test_a_source_that_recovers_answers(device: Device) -> None:
    answers = [plain("500 Internal Server Error"), plain("503 Service Unavailable"), attestation_agent(device)]

    def respond(connection: socket.socket, target: str) -> None:
        answers.pop(0)(connection, target)

    with serving(respond) as agent:
        assert collect_first([EvidenceSource("coco-aa", agent.address)], DIGEST, timeout=60).source == "coco-aa"


def test_nothing_there_names_every_source_and_why(tmp_path: Path) -> None:
    sources = [EvidenceSource("coco-aa", f"unix:{tmp_path}/aa"), EvidenceSource("sev-guest", f"{tmp_path}/dev")]
    with pytest.raises(EvidenceError) as caught:
        collect_first(sources, DIGEST, timeout=60)
    assert (caught.value.code, caught.value.kind) == (Code.NO_SOURCE, Kind.UNAVAILABLE)
    assert f"coco-aa at unix:{tmp_path}/aa: nothing listens there" in str(caught.value)
    assert f"sev-guest at {tmp_path}/dev: {tmp_path}/dev is not there (ENOENT)" in str(caught.value)


def test_no_configured_source_is_unavailable_too() -> None:
    with pytest.raises(EvidenceError, match="none is configured"):
        collect_first([], DIGEST, timeout=60)


def test_a_typing_mistake_further_down_is_found_at_once(device: Device) -> None:
    with serving(attestation_agent(device)) as agent:
        sources = [EvidenceSource("coco-aa", agent.address), EvidenceSource("tpm", "/dev/tpm0")]
        with pytest.raises(EvidenceError) as caught:
            collect_first(sources, DIGEST, timeout=60)
        assert (caught.value.code, agent.heads) == (Code.BAD_ADDRESS, [])


def test_another_digest_length_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(FormatError, match="48"):
        collect_first([EvidenceSource("sev-guest", "/dev/sev-guest")], b"short", timeout=60)


def test_every_source_of_the_plan_exists() -> None:
    # The data hub gives no reports; it stands alone in a plan.
    assert (*SOURCES, DATA_HUB) == EVIDENCE_SOURCES
    with pytest.raises(EvidenceError, match="required one of"):
        open_source(DATA_HUB, "http://127.0.0.1:8006")
    addresses = {"coco-aa": "http://127.0.0.1:8006", "simulated": "http://127.0.0.1:8007"}
    for name in SOURCES:
        assert open_source(name, addresses.get(name, "/path")).name == name
    for name in ("configfs-tsm", "sev-guest"):
        with pytest.raises(EvidenceError, match="absolute path"):
            open_source(name, "relative")


def test_every_code_has_its_kind() -> None:
    kinds = {code: kind_of(code) for code in Code}
    assert {code for code, kind in kinds.items() if kind is Kind.UNAVAILABLE} == {
        Code.NOT_THERE,
        Code.NOT_ENABLED,
        Code.NO_SOURCE,
    }
    assert {code for code, kind in kinds.items() if kind is Kind.BUSY} == {
        Code.THROTTLED,
        Code.RACED,
        Code.AGENT_ERROR,
        Code.DEADLINE,
    }


def test_evidence_does_not_print_its_blobs(device: Device) -> None:
    with serving(attestation_agent(device)) as agent:
        evidence = collect_first([EvidenceSource("coco-aa", agent.address)], DIGEST, timeout=60)
    assert repr(evidence) == "CollectedEvidence(source='coco-aa')"


def test_import_graph_stays_small() -> None:
    # The sidecar imports this on every cold start.
    code = (
        "import sys, attestation.evidence as e\n"
        "assert 'http.client' not in sys.modules\n"
        "e.open_source('coco-aa', 'http://127.0.0.1:8006'); e.open_source('simulated', 'unix:/x')\n"
        "e.open_source('sev-guest', '/x'); e.open_source('configfs-tsm', '/x')\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
        "print(*sorted(name for name in sys.modules if name.startswith(('attestation', 'server', 'sidecar'))))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    packages, ours = (line.split() for line in result.stdout.splitlines())
    outside = set(packages) & {"aiohttp", "hvac", "pydantic", "cryptography", "joserfc", "yaml", "asyncio", "ctypes"}
    assert outside == set()
    assert not [name for name in ours if name.startswith(("server", "sidecar", "attestation.verifier"))]
    assert "attestation.pki.certificates" not in ours
