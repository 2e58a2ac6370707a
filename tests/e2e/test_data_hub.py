"""A guest whose agents serve no evidence over HTTP: its data hub fetches the Vault token, without a pod token.

With OpenBao, the real verifier and simulated hardware; the guest's own agents are imitated (`guest_components`). The
record is used as `morphisms render --evidence coco-cdh` wrote it, and morphisms-init runs with the plan that the
guest's policy pins, but for the port of the guest's server.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from attestation.simulator.device import Device
from attestation.simulator.hierarchy import Hierarchy
from plan.codec import read_plan
from plan.document import EvidenceSource
from sidecar.reasons import Exit
from tests.attestation.verifier.process import Site, Verifier, policy
from tests.attestation.verifier.tokens import Issuer
from tests.e2e.forwarder import forwarder
from tests.e2e.guest_components import HANDSHAKES, AgentError, Guest, api_server
from tests.e2e.site import replica
from tests.e2e.test_workload_identity import PATH, VALUE, Place, host_data_of, plan_of, record_of
from tests.sidecar.pod import Pod
from tests.sidecar.test_doctor import doctor
from tests.support.raft import RaftOpenBao

# Large enough that the agent's second call is beyond what a stranger may send.
COLOUR = "blue" * 5000
STRANGERS_LIMIT = 64 * 1024
TOKEN = "/vault/token/default"


NewPlace = Callable[[], AbstractContextManager[Place]]


@pytest.fixture(scope="module")
def new_place(
    tmp_path_factory: pytest.TempPathFactory, site: Site, hierarchy: Hierarchy, issuer: Issuer, bao: RaftOpenBao
) -> NewPlace:
    """Makes places with a verifier's folder and address of their own."""
    bao.done("POST", PATH, {"data": {"password": VALUE}})

    @contextlib.contextmanager
    def make() -> Iterator[Place]:
        own = replica(site, tmp_path_factory.mktemp("data-hub") / "verifier", hierarchy, issuer)
        with forwarder() as to_verifier, forwarder() as to_machine:
            yield Place(own, to_verifier, to_machine, bao, hierarchy)

    return make


@pytest.fixture(scope="module")
def hub_place(new_place: NewPlace) -> Iterator[Place]:
    with new_place() as place:
        yield place


@pytest.fixture(scope="module")
def rendered(hub_place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hub_place.render(tmp_path_factory.mktemp("rendered") / "hub", COLOUR, "--evidence", "coco-cdh")


@pytest.fixture(scope="module")
def hub_verifier(hub_place: Place, rendered: Path) -> Iterator[Verifier]:
    with hub_place.verifier((rendered / "appraisal.yaml").read_text()) as process:
        yield process


def guest_of(place: Place, out: Path, **changes: bytes) -> Guest:
    """A new guest that was launched with the rendered document."""
    device = Device(place.hierarchy, host_data=bytes.fromhex(host_data_of(out)))
    return Guest(replace(device, **changes), str(record_of(out)["document"]))


def pod_of(folder: Path, helper: Path, issuer: Issuer, out: Path, address: str) -> Pod:
    root = folder / str(uuid4())
    root.mkdir()
    plan = read_plan(plan_of(out))
    (source,) = plan.evidence
    assert source == EvidenceSource("coco-cdh", "http://127.0.0.1:8006")
    plan = plan._replace(evidence=(EvidenceSource("coco-cdh", address),), deadline_seconds=300)
    return Pod(root, helper, plan, lambda: issuer.token(uid=str(uuid4())))


def reasons(process: Verifier, event: str, since: int = 0) -> list[str]:
    return [line["reason"] for line in process.events(event)][since:]


def test_the_data_hub_of_a_rendered_guest_brings_its_secret(
    hub_place: Place, hub_verifier: Verifier, rendered: Path, tmp_path: Path, helper: Path, issuer: Issuer
) -> None:
    guest = guest_of(hub_place, rendered)
    with api_server(guest) as address:
        pod = pod_of(tmp_path, helper, issuer, rendered, address)
        ended = pod.run()
        assert ended.code == Exit.PUBLISHED, ended.stderr
        assert (pod.secrets / "password").read_text() == VALUE
        assert pod.variables("user-container")["PASSWORD"] == VALUE
    assert [status for _, status in guest.calls] == [200, 200, 200]
    assert guest.sizes[0] > STRANGERS_LIMIT
    believed = [line for line in hub_verifier.events("attestation") if line["reason"] == "believed"][-1]
    assert (believed["pod"], believed["assurance"], believed["simulated"]) == ({}, "workload", True)


def test_a_used_bearer_is_replaced_by_the_data_hub_itself(
    hub_place: Place, hub_verifier: Verifier, rendered: Path
) -> None:
    guest = guest_of(hub_place, rendered)
    guest.resource(TOKEN)
    guest.resource(TOKEN)
    assert [status for path, status in guest.calls if path.startswith("/kbs/v0/resource")] == [200, 401, 200]


def test_a_guest_gets_three_logins_in_ten_minutes_and_another_guest_its_own(
    hub_place: Place, hub_verifier: Verifier, rendered: Path
) -> None:
    guest = guest_of(hub_place, rendered)
    for _ in range(3):
        guest.resource(TOKEN)
    before = len(reasons(hub_verifier, "login"))
    with pytest.raises(AgentError, match="503"):
        guest.resource(TOKEN)
    # The data hub tries again on 401 alone: its used bearer is replaced, and then it gives up.
    assert reasons(hub_verifier, "login", before) == ["bearer-used", "guest-too-often"]
    guest_of(hub_place, rendered).resource(TOKEN)


def test_no_other_guest_gets_anything(hub_place: Place, hub_verifier: Verifier, rendered: Path) -> None:
    """Neither another image's, nor another document's, nor one that shows another than it was launched with."""
    ours = guest_of(hub_place, rendered)
    other = f"{ours.initdata}\n"
    digest = hashlib.sha256(other.encode()).digest()
    guests = {
        "no-policy": [
            guest_of(hub_place, rendered, measurement=b"\7" * 48),
            Guest(replace(ours.device, host_data=digest), other),
        ],
        "verdict": [Guest(ours.device, other), guest_of(hub_place, rendered, host_data=digest)],
    }
    for reason, refused in guests.items():
        for guest in refused:
            before = len(reasons(hub_verifier, "attestation"))
            with pytest.raises(AgentError, match="attest: 401"):
                guest.resource(TOKEN)
            assert reasons(hub_verifier, "attestation", before) == [reason] * HANDSHAKES


def test_a_pod_whose_data_hub_brings_nothing_publishes_nothing_and_says_where_to_look(
    hub_place: Place, hub_verifier: Verifier, rendered: Path, tmp_path: Path, helper: Path, issuer: Issuer
) -> None:
    with api_server(guest_of(hub_place, rendered, measurement=b"\7" * 48)) as address:
        pod = pod_of(tmp_path, helper, issuer, rendered, address)
        pod.move_clock(flows=False)
        pod.change(deadline_seconds=30)
        ended = pod.run()
    assert ended.code == Exit.VERIFIER_UNREACHABLE
    assert ended.events[1]["reason"] == "verifier-data-hub"
    assert "the verifier's log has a line for each attempt" in ended.events[1]["detail"]
    assert VALUE not in ended.stderr
    assert pod.published() == []


def test_a_pod_token_does_not_find_the_record_and_no_token_finds_no_other(
    new_place: NewPlace, tmp_path: Path, issuer: Issuer
) -> None:
    """Each record takes one of the two ways."""
    with new_place() as place:
        _takes_one_way(place, place.render(tmp_path / "hub", "blue", "--evidence", "coco-cdh"), issuer)


def _takes_one_way(place: Place, out: Path, issuer: Issuer) -> None:
    host_data = host_data_of(out)
    with place.verifier((out / "appraisal.yaml").read_text()) as process:
        assert place.attest(process, host_data, issuer.token(uid=str(uuid4()))).status == 401
        assert reasons(process, "attestation") == ["token-disagrees"]
    with place.verifier(yaml.safe_dump(policy(hostData=[host_data]))) as process:
        guest = guest_of(place, out)
        with pytest.raises(AgentError, match="attest: 401"):
            guest.resource(TOKEN)
        assert set(reasons(process, "attestation")) == {"no-policy"}


def test_the_doctor_says_which_features_the_guest_serves(
    hub_place: Place, hub_verifier: Verifier, rendered: Path, tmp_path: Path, helper: Path, issuer: Issuer
) -> None:
    with api_server(guest_of(hub_place, rendered)) as address:
        pod = pod_of(tmp_path, helper, issuer, rendered, address)
        said = doctor(pod).stdout
    assert f"ok    evidence      coco-cdh at {address} serves resource" in said
    assert "ok    attestation   accepted, assurance workload, SIMULATED" in said
