"""What must not get a token, over TLS from a real process: each its own reason inside, one answer outside."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from attestation.simulator.device import Device, Tamper
from attestation.simulator.hierarchy import Hierarchy, open_hierarchy
from kbs.ephemeral_key import EphemeralKey
from kbs.guest import open_token, read_attest_answer, token_path, write_additional_evidence, write_attest
from kbs.messages import ERROR_BASE, WireError, binding
from tests.attestation.verifier.guest import Answer, Client, document
from tests.attestation.verifier.process import HOST_DATA, Verifier, exemption, make_site, policy, verifier
from tests.attestation.verifier.tokens import Issuer
from tests.support.openbao import OpenBao
from tests.support.until import until

REFUSED = {"type": ERROR_BASE + "AttestationRefused", "detail": "AttestationRefused, correlation id ID"}
BEGIN_ANEW = {"type": ERROR_BASE + "SessionUnknown", "detail": "SessionUnknown, correlation id ID"}
Send = Callable[["Guest"], Answer]


class Guest:
    """One that does everything right, unless told otherwise."""

    def __init__(self, client: Client, device: Device, pod_token: str) -> None:
        self.client = client
        self.device = device
        self.key = EphemeralKey()
        self.additional = write_additional_evidence(pod_token)
        self.nonce = client.nonce()

    def body(self, key: EphemeralKey | None = None, *, as_ascii: bool = False) -> bytes:
        """The second call's body; `key` is sent in place of the one that the evidence binds."""
        digest = binding(self.nonce, self.key.public, self.additional)
        primary = document(self.device, digest, as_ascii=as_ascii)
        return write_attest(self.nonce, (key or self.key).public, primary, self.additional)

    def attest(self) -> Answer:
        return self.client.attest(self.body())


@pytest.fixture
def client(running: Verifier) -> Iterator[Client]:
    client = running.client()
    yield client
    client.close()


def outside(answer: Answer) -> dict[str, str]:
    """What the guest sees, without the correlation id, which must be all that differs."""
    assert re.fullmatch("[0-9a-f]{16}", answer.error.correlation_id)
    text = answer.body.decode().replace(answer.error.correlation_id, "ID")
    found: dict[str, str] = json.loads(text)
    assert found.pop("correlation-id") == "ID"
    return found


def inside(running: Verifier, answer: Answer, event: str = "attestation") -> tuple[str, list[str]]:
    """Reason and failed checks, as the operator has them under the guest's correlation id."""
    (line,) = running.events(event, answer.error.correlation_id)
    return line["reason"], [text.partition(":")[0] for text in line.get("failed", [])]


def test_both_encodings_of_report_data_are_believed(client: Client, device: Device, issuer: Issuer) -> None:
    for as_ascii in (False, True):
        guest = Guest(client, device, issuer.token(uid=f"encoding-{as_ascii}"))
        assert client.attest(guest.body(as_ascii=as_ascii)).status == 200


def wrong_host_data(running: Verifier, device: Device, issuer: Issuer) -> Answer:
    return Guest(running.client(), replace(device, host_data=b"\1" * 32), issuer.token()).attest()


def wrong_measurement(running: Verifier, device: Device, issuer: Issuer) -> Answer:
    return Guest(running.client(), replace(device, measurement=b"\1" * 48), issuer.token()).attest()


def debug_guest(running: Verifier, device: Device, issuer: Issuer) -> Answer:
    return Guest(running.client(), replace(device, tamper=Tamper.DEBUG), issuer.token()).attest()


def forged_report(running: Verifier, device: Device, issuer: Issuer) -> Answer:
    return Guest(running.client(), replace(device, tamper=Tamper.SIGNATURE), issuer.token()).attest()


def other_machines_root(running: Verifier, device: Device, issuer: Issuer) -> Answer:
    folder = running.site.folder / "other-simulated"
    return Guest(running.client(), replace(device, hierarchy=open_hierarchy(folder)), issuer.token()).attest()


def replayed_nonce(running: Verifier, device: Device, issuer: Issuer) -> Answer:
    guest = Guest(running.client(), device, issuer.token(uid="replay"))
    assert guest.attest().status == 200
    return guest.attest()


def foreign_key(running: Verifier, device: Device, issuer: Issuer) -> Answer:
    guest = Guest(running.client(), device, issuer.token(uid="foreign-key"))
    return guest.client.attest(guest.body(EphemeralKey()))


def exchanged_pod_token(running: Verifier, device: Device, issuer: Issuer) -> Answer:
    guest = Guest(running.client(), device, issuer.token(uid="exchanged"))
    bound = json.loads(guest.body())
    bound["tee-evidence"]["additional_evidence"] = write_additional_evidence(issuer.token(uid="exchanged-2"))
    return guest.client.attest(json.dumps(bound).encode())


def expired_token(running: Verifier, device: Device, issuer: Issuer) -> Answer:
    return Guest(running.client(), device, issuer.token(expires_in=-10)).attest()


def token_of_the_future(running: Verifier, device: Device, issuer: Issuer) -> Answer:
    return Guest(running.client(), device, issuer.token(nbf=4102444800, exp=4102448400)).attest()


def other_audience(running: Verifier, device: Device, issuer: Issuer) -> Answer:
    return Guest(running.client(), device, issuer.token(audience="vault")).attest()


def other_issuer(running: Verifier, device: Device, issuer: Issuer) -> Answer:
    return Guest(running.client(), device, issuer.token(iss="https://elsewhere.example")).attest()


def other_cluster_same_names(running: Verifier, device: Device, issuer: Issuer) -> Answer:
    return Guest(running.client(), device, Issuer(kid=issuer.kid).token()).attest()


def other_namespace(running: Verifier, device: Device, issuer: Issuer) -> Answer:
    return Guest(running.client(), device, issuer.token(namespace="other")).attest()


def unbound_token(running: Verifier, device: Device, issuer: Issuer) -> Answer:
    claims = {"namespace": "shop", "serviceaccount": {"name": "default", "uid": "u"}}
    return Guest(running.client(), device, issuer.token(**{"kubernetes.io": claims})).attest()


@pytest.mark.parametrize(
    ("attack", "reason", "failed"),
    [
        (wrong_host_data, "no-policy", set()),
        (wrong_measurement, "verdict", {"guest/measurement"}),
        (debug_guest, "verdict", {"policy/debug"}),
        (forged_report, "verdict", {"signature/report"}),
        (other_machines_root, "verdict", {"chain/intermediate"}),
        (replayed_nonce, "nonce-replayed", set()),
        (foreign_key, "verdict", {"guest/report-data"}),
        (exchanged_pod_token, "verdict", {"guest/report-data"}),
        (expired_token, "token-expired", set()),
        (token_of_the_future, "token-not-yet-valid", set()),
        (other_audience, "token-audience", set()),
        (other_issuer, "token-issuer", set()),
        (other_cluster_same_names, "token-signature", set()),
        (other_namespace, "token-disagrees", set()),
        (unbound_token, "token-unbound", set()),
    ],
)
def test_refused_with_its_own_reason_and_the_same_answer(
    running: Verifier,
    device: Device,
    issuer: Issuer,
    attack: Callable[[Verifier, Device, Issuer], Answer],
    reason: str,
    failed: set[str],
) -> None:
    answer = attack(running, device, issuer)
    assert (answer.status, outside(answer)) == (401, REFUSED)
    assert "retry-after" not in answer.headers
    assert inside(running, answer) == (reason, sorted(failed))
    (line,) = running.events("attestation", answer.error.correlation_id)
    # The evidence was judged whatever the token said; only a nonce that is not ours costs nothing more.
    assert line["product"] == (None if reason.startswith("nonce-") else "Simulated")


def test_refusals_take_the_same_kind_of_time(running: Verifier, device: Device, issuer: Issuer) -> None:
    """In turn, so that a busy machine is busy for all; what nobody vouches for is judged as the rest is."""
    stranger, client = Issuer(kid=issuer.kid), running.client()
    guests: dict[str, Callable[[str], tuple[Device, str]]] = {
        "host data": lambda uid: (replace(device, host_data=b"\1" * 32), issuer.token(uid=uid)),
        "measurement": lambda uid: (replace(device, measurement=b"\1" * 48), issuer.token(uid=uid)),
        "expired": lambda uid: (device, issuer.token(uid=uid, expires_in=-10)),
        "audience": lambda uid: (device, issuer.token(uid=uid, audience="vault")),
        "signature": lambda uid: (device, stranger.token(uid=uid)),
    }
    fastest = dict.fromkeys(guests, math.inf)
    for number in range(500):
        for name, guest in guests.items():
            body = Guest(client, *guest(f"{name} {number}")).body()
            began = time.perf_counter()
            assert client.attest(body).status == 401
            fastest[name] = min(fastest[name], time.perf_counter() - began)
        # The fastest of each: a busy machine adds to an answer's time, and takes nothing away, so it is asked until it
        # was idle once for each. All of these are cheap checks, about a millisecond each: a difference of a few is
        # below what a network adds.
        slowest, quickest = max(fastest.values()), min(fastest.values())
        if number >= 14 and (slowest < 3 * quickest or slowest - quickest < 0.005):
            return
    pytest.fail(f"one is always slower: {fastest}")


def test_a_policy_removed_a_moment_ago_gives_nothing_more(
    tmp_path_factory: pytest.TempPathFactory, hierarchy: Hierarchy, device: Device, issuer: Issuer, bao: OpenBao
) -> None:
    site = make_site(tmp_path_factory.mktemp("removed"), hierarchy, issuer, bao.url)
    site.write_policy("payments", policy())
    with verifier(site) as running:
        client = running.client()
        before = Guest(client, device, issuer.token(uid="before")).attest()
        assert before.status == 200
        site.policy_path("payments").unlink()
        until(lambda: running.events("file_reloaded"))
        after = Guest(client, device, issuer.token(uid="after")).attest()
        assert (after.status, outside(after)) == (401, REFUSED)
        assert inside(running, after) == ("no-policy", [])
        # What was earned before is worth nothing either; the guest may begin anew, and is refused there.
        login = client.token(read_attest_answer(before.body))
        assert (login.status, outside(login)) == (401, BEGIN_ANEW)
        assert inside(running, login, "login")[0] == "policy-changed"
        # A broken record blocks no other one, and keeps its own last good text.
        site.write_policy("broken", policy("broken", assurance="none"))
        until(lambda: running.events("file_partly_loaded"))
        site.write_policy("payments", policy())
        until(lambda: len(running.events("file_reloaded")) == 2)
        assert Guest(client, device, issuer.token(uid="again")).attest().status == 200
        site.write_policy("payments", policy(assurance="none"))
        until(lambda: len(running.events("file_partly_loaded")) == 2)
        assert Guest(client, device, issuer.token(uid="kept")).attest().status == 200


def test_production_refuses_simulated_evidence_and_even_to_start_with_its_root(
    tmp_path_factory: pytest.TempPathFactory, hierarchy: Hierarchy, device: Device, issuer: Issuer, bao: OpenBao
) -> None:
    site = make_site(tmp_path_factory.mktemp("production"), hierarchy, issuer, bao.url.replace("http:", "https:"))
    site.write_policy("payments", policy())
    site.settings["mode"] = "production"
    with pytest.raises(RuntimeError, match="simulatedRoot: simulated evidence proves nothing"), verifier(site):
        pass
    del site.settings["certificates"]["simulatedRoot"]
    site.settings["exceptions"] = [exemption()]
    with verifier(site) as running:
        answer = Guest(running.client(), device, issuer.token()).attest()
        assert (answer.status, outside(answer)) == (401, REFUSED)
        reason, failed = inside(running, answer)
        assert reason == "verdict"
        assert "product/line" in failed


def test_a_bearer_is_good_for_its_policys_role_alone(
    client: Client, running: Verifier, device: Device, issuer: Issuer
) -> None:
    for role, status in (("admin", 401), ("default", 200), ("knative", 200)):
        bearer = read_attest_answer(Guest(client, device, issuer.token(uid="roles")).attest().body)
        answer = client.token(bearer, role)
        assert answer.status == status
        if status == 401:
            assert outside(answer) == REFUSED
            assert inside(running, answer, "login")[0] == "role-not-allowed"
            # A wish that was refused has used the bearer up.
            assert (client.token(bearer, "default").status, outside(client.token(bearer))) == (401, BEGIN_ANEW)


@pytest.mark.parametrize(
    "header",
    [{}, {"Authorization": "Basic x"}, {"Authorization": "Bearer x"}, {"Authorization": "Bearer " + "a" * 6000}],
)
def test_without_a_bearer_there_is_nothing(client: Client, running: Verifier, header: dict[str, str]) -> None:
    answer = client.call("GET", token_path(), headers=header)
    assert (answer.status, outside(answer)) == (401, BEGIN_ANEW)
    assert inside(running, answer, "login")[0] == "bearer-invalid"


def test_a_bearer_of_another_key_is_refused(client: Client, running: Verifier, device: Device, issuer: Issuer) -> None:
    bearer = read_attest_answer(Guest(client, device, issuer.token(uid="altered")).attest().body)
    head, payload, signature = bearer.split(".")
    for altered in (f"{head}.{payload[:-4]}AAAA.{signature}", f"{head}.{payload}.", f"{payload}.{payload}.{signature}"):
        answer = client.token(altered)
        assert (answer.status, outside(answer)) == (401, BEGIN_ANEW)


def test_the_token_is_for_the_ephemeral_key_the_nonce_and_the_role_alone(
    client: Client, device: Device, issuer: Issuer
) -> None:
    guest = Guest(client, device, issuer.token(uid="sealed"))
    bearer = read_attest_answer(guest.attest().body)
    body = client.token(bearer, "knative").body
    assert open_token(body, guest.key, guest.nonce, "knative").token not in body.decode()
    for key, nonce, role in (
        (EphemeralKey(), guest.nonce, "knative"),
        (guest.key, client.nonce(), "knative"),
        (guest.key, guest.nonce, "default"),
    ):
        with pytest.raises(WireError):
            open_token(body, key, nonce, role)


def test_a_pod_that_asks_all_the_time_is_told_to_wait(client: Client, device: Device, issuer: Issuer) -> None:
    answers = [Guest(client, device, issuer.token(uid="often")).attest() for _ in range(10)]
    assert [answer.status for answer in answers] == [200] * 10
    # On a slow machine it may have earned another one meanwhile.
    while answers[-1].status == 200:
        assert len(answers) < 1000
        answers.append(Guest(client, device, issuer.token(uid="often")).attest())
    assert (answers[-1].status, answers[-1].headers["retry-after"]) == (503, "2")
    assert Guest(client, device, issuer.token(uid="another")).attest().status == 200


def test_nothing_secret_is_in_the_log_or_the_store(
    running: Verifier, client: Client, device: Device, issuer: Issuer
) -> None:
    pod_token = issuer.token(uid="quiet")
    guest = Guest(client, device, pod_token)
    body = guest.body()
    bearer = read_attest_answer(client.attest(body).body)
    token = open_token(client.token(bearer).body, guest.key, guest.nonce).token
    written = running.log_path.read_text() + "".join(
        path.read_text() for path in (running.site.folder / "verdicts").iterdir()
    )
    (line,) = [each for each in running.events("attestation") if (each["pod"] or {}).get("k8s_pod_uid") == "quiet"]
    assert (line["simulated"], line["assurance"], line["guest"]) == (True, "workload", "simulated")
    signature = json.dumps(json.loads(body)["tee-evidence"]["primary_evidence"]["attestation_report"]["signature"]["r"])
    for secret in (pod_token, pod_token.split(".")[2], guest.nonce, bearer, bearer.split(".")[2], token, signature):
        assert secret not in written
    assert HOST_DATA.hex() in written
