"""Attacks on a verifier's memory and processor by callers without evidence: others get their nonces and bearers."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from attestation.simulator.device import Device
from attestation.simulator.hierarchy import Hierarchy
from kbs.guest import write_auth
from kbs.messages import (
    ATTEST_PATH,
    AUTH_PATH,
    MAX_ATTEST_SIZE,
    MAX_ATTEST_WITH_INITDATA_SIZE,
    MAX_AUTH_SIZE,
    NONCE_HEADER,
)
from tests.attestation.verifier.guest import Client
from tests.attestation.verifier.process import HOST_DATA, Verifier, make_site, policy, start_command, verifier
from tests.attestation.verifier.test_refusals import Guest
from tests.attestation.verifier.tokens import Issuer
from tests.support.ports import has_ipv6
from tests.support.processes import listening_ports
from tests.support.processes import running as running_process
from tests.support.unfinished_bodies import unfinished_bodies

KIB = 1024
# With quotes and line ends, as policies have them: its JSON is larger than it is.
DOCUMENT = (
    b'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n"policy.rego" = """\n' + b'# "a" "b"\n' * 40_000 + b'"""\n'
)
ATTACKER, OTHER = "127.0.0.2", "127.0.0.3"
HOSTILE = {
    "objects": b"{},",
    "lists": b"[],",
    "members": b'{"":0},',
    "floats": b"1e9,",
}


def hostile(kind: str, size: int) -> bytes:
    """JSON of about `size` bytes that takes a parser as long as possible."""
    piece = HOSTILE[kind]
    return b'{"a":[' + piece * ((size - 20) // len(piece)) + b"0]}"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, hierarchy: Hierarchy, issuer: Issuer) -> Iterator[Verifier]:
    """A verifier that these tests alone attack; its Vault does not answer."""
    site = make_site(tmp_path_factory.mktemp("verifier"), hierarchy, issuer, "http://127.0.0.1:1")
    site.write_policy("payments", policy(hostData=[HOST_DATA.hex(), sha256(DOCUMENT).hexdigest()]))
    site.settings["perSource"] = {"burst": 100_000, "perSecond": 10_000}
    with verifier(site) as process:
        yield process


def connection(running: Verifier, source: str) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=str(running.site.folder / "ca.crt"))
    return http.client.HTTPSConnection(
        "127.0.0.1", running.port, timeout=300, context=context, source_address=(source, 0)
    )


def status(caller: http.client.HTTPSConnection, path: str, body: bytes, headers: dict[str, str] | None = None) -> int:
    caller.request("POST", path, body, headers or {})
    answer = caller.getresponse()
    answer.read()
    return answer.status


@pytest.mark.parametrize(("count", "size"), [(136, 490 * KIB), (300, MAX_ATTEST_SIZE)])
def test_unfinished_bodies_keep_no_other_address_out(
    alone: Verifier, device: Device, issuer: Issuer, count: int, size: int
) -> None:
    ca = alone.site.folder / "ca.crt"
    with unfinished_bodies(alone.port, ca, ATTEST_PATH, source=ATTACKER, count=count, size=size, shrinks=True):
        caller = connection(alone, OTHER)
        for _ in range(20):
            assert status(caller, AUTH_PATH, write_auth()) == 200
        caller.close()
        client = alone.client()
        uid = f"unfinished-{count}"
        assert Guest(client, device, issuer.token(uid=uid)).attest().status == 200
        client.close()
        probe = http.client.HTTPConnection("127.0.0.1", alone.metrics_port, timeout=300)
        probe.request("GET", "/readyz")
        assert probe.getresponse().read() == b"ok\n"
        probe.close()


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_body_costs_little_whatever_its_size(
    alone: Verifier, device: Device, issuer: Issuer, kind: str
) -> None:
    """One of 512 KiB cost as much of the event loop as 20 attestations, one of 64 KiB as three, and any address could
    send it. Both are sent in turn with two attestations, because a processor is not always equally fast."""
    caller, client = connection(alone, ATTACKER), alone.client()
    bodies = [hostile(kind, size) for size in (MAX_ATTEST_SIZE, 512 * KIB)]
    used = {"attack": 0.0, "honest": 0.0}
    for number in range(20):
        guests = [Guest(client, device, issuer.token(uid=f"{kind}-{number}-{each}")) for each in range(2)]
        before = _processor_seconds(alone.process.pid)
        for body in bodies:
            try:  # the server closes a connection whose body is too large
                assert status(caller, ATTEST_PATH, body) in (400, 413)
            except OSError:
                caller.close()
        between = _processor_seconds(alone.process.pid)
        assert [guest.attest().status for guest in guests] == [200, 200]
        used["attack"] += between - before
        used["honest"] += _processor_seconds(alone.process.pid) - between
    caller.close()
    client.close()
    assert used["attack"] < 2 * used["honest"], used


def test_probes_are_answered_under_hostile_bodies(alone: Verifier) -> None:
    """What one of them costs is shown above, and the probes wait for those before them alone."""
    stop, answered = threading.Event(), threading.Semaphore(0)

    def attack() -> None:
        caller = connection(alone, ATTACKER)
        while not stop.is_set():
            try:
                status(caller, ATTEST_PATH, hostile("objects", MAX_ATTEST_SIZE))
                answered.release()
            except OSError:
                caller.close()
        caller.close()

    threads = [threading.Thread(target=attack, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    probe = http.client.HTTPConnection("127.0.0.1", alone.metrics_port, timeout=300)
    try:
        for _ in range(50):
            answered.acquire()
            probe.request("GET", "/healthz")
            assert probe.getresponse().read() == b"ok\n"
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        probe.close()


@pytest.mark.parametrize(
    ("path", "size", "expected"),
    [
        (AUTH_PATH, MAX_AUTH_SIZE, 200),
        (AUTH_PATH, MAX_AUTH_SIZE + 1, 413),
        (ATTEST_PATH, MAX_ATTEST_SIZE, 400),
        (ATTEST_PATH, MAX_ATTEST_SIZE + 1, 413),
    ],
)
def test_a_body_has_the_size_of_its_call(alone: Verifier, path: str, size: int, expected: int) -> None:
    caller = connection(alone, OTHER)
    assert status(caller, path, write_auth().ljust(size)) == expected
    caller.close()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be", "utf-8-sig"])
def test_json_is_utf_8_and_nothing_else(alone: Verifier, device: Device, issuer: Issuer, encoding: str) -> None:
    """A front that reads UTF-8 alone would see another message in the same bytes."""
    client = alone.client()
    assert client.call("POST", AUTH_PATH, write_auth().decode().encode(encoding)).status == 400
    guest = Guest(client, device, issuer.token(uid=f"encoding-{encoding}"))
    assert client.attest(b'{"a":"b"}'.decode().encode(encoding)).status == 400
    assert client.attest(guest.body()).status == 200
    client.close()


def test_a_call_may_bring_its_nonce_and_no_other(alone: Verifier, device: Device, issuer: Issuer) -> None:
    client = alone.client()
    body = Guest(client, device, issuer.token(uid="header")).body()
    nonce = json.loads(body)["runtime-data"]["nonce"]
    other = client.call("POST", ATTEST_PATH, body, {NONCE_HEADER: client.nonce()})
    assert (other.status, other.error.problem) == (400, "InvalidRequest")
    assert client.call("POST", ATTEST_PATH, body, {NONCE_HEADER: nonce}).status == 200
    client.close()


def with_document(guest: Guest, document: bytes) -> bytes:
    body = json.loads(guest.body())
    return json.dumps({"init-data": {"format": "toml", "body": document.decode()}} | body).encode()


def test_a_guest_may_send_the_document_that_it_was_launched_with(
    alone: Verifier, device: Device, issuer: Issuer
) -> None:
    client = alone.client()
    launched = replace(device, host_data=sha256(DOCUMENT).digest())
    guest = Guest(client, launched, issuer.token(uid="initdata"))
    body = with_document(guest, DOCUMENT)
    assert len(body) > 8 * MAX_ATTEST_SIZE
    # Nobody can send so much without having asked for a nonce.
    for headers in ({}, {NONCE_HEADER: "A" * 44}):
        with contextlib.suppress(OSError):  # the server closes the connection while it sends
            assert client.call("POST", ATTEST_PATH, body, headers).status == 413
        client.close()
    assert client.call("POST", ATTEST_PATH, body, {NONCE_HEADER: guest.nonce}).status == 200
    # A small one needs neither.
    guest = Guest(client, launched, issuer.token(uid="initdata"))
    small = with_document(guest, b"version = 1")
    answer = client.attest(small)
    assert answer.status == 401
    (line,) = alone.events("attestation", answer.error.correlation_id)
    assert (line["reason"], line["detail"]) == ("verdict", "guest/initdata")
    assert client.call("GET", "/healthz").status == 200
    client.close()


@pytest.mark.parametrize("kind", [*HOSTILE, "escapes"])
def test_a_large_body_is_a_document_and_nothing_else(
    alone: Verifier, device: Device, issuer: Issuer, kind: str
) -> None:
    """A valid nonce is to be had for nothing, so it must not buy time either: no more than a document takes."""
    client, launched = alone.client(), replace(device, host_data=sha256(DOCUMENT).digest())
    size = MAX_ATTEST_WITH_INITDATA_SIZE - 100
    body = b'{"init-data":{"format":"toml","body":"' + b"\\u0041" * (size // 6) + b'"}}'
    if kind != "escapes":
        body = hostile(kind, size)
    used = {"attack": 0.0, "honest": 0.0}
    for number in range(10):
        guest = Guest(client, launched, issuer.token(uid=f"large-{kind}-{number}"))
        honest = with_document(guest, DOCUMENT)
        before = _processor_seconds(alone.process.pid)
        assert client.call("POST", ATTEST_PATH, body, {NONCE_HEADER: client.nonce()}).status == 400
        between = _processor_seconds(alone.process.pid)
        assert client.call("POST", ATTEST_PATH, honest, {NONCE_HEADER: guest.nonce}).status == 200
        used["attack"] += between - before
        used["honest"] += _processor_seconds(alone.process.pid) - between
    client.close()
    assert used["attack"] < 2 * used["honest"], used


def test_the_limit_of_an_address_counts_before_a_body_arrives(
    tmp_path: Path, hierarchy: Hierarchy, issuer: Issuer
) -> None:
    site = make_site(tmp_path, hierarchy, issuer, "http://127.0.0.1:1")
    site.settings["perSource"] = {"burst": 1, "perSecond": 0.0001}
    with verifier(site) as running:
        caller = connection(running, OTHER)
        assert status(caller, ATTEST_PATH, b"{}") == 400
        caller.close()
        caller = connection(running, OTHER)
        caller.putrequest("POST", ATTEST_PATH)
        caller.putheader("Content-Length", "1000")
        caller.endheaders()
        assert caller.getresponse().status == 503
        caller.close()


def test_a_pods_flood_of_good_evidence_displaces_no_record(alone: Verifier, device: Device, issuer: Issuer) -> None:
    """It has a valid token, so its records are kept with those that strangers cannot displace."""
    client = alone.client()
    guest = Guest(client, device, issuer.token(uid="flood", pod="flood-1"))
    statuses = []
    for _ in range(40):
        guest.nonce = client.nonce()
        statuses.append(guest.attest().status)
    client.close()
    kept = [record for record in alone.site.records() if (record.get("pod") or {}).get("k8s_pod_uid") == "flood"]
    assert 10 <= len(kept) == statuses.count(200) < 40
    line, *_ = alone.events("pod_too_often")
    assert line["detail"].startswith("prod/shop/flood-1: more than 10 at once")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/.well-known/jwks.json"])
def test_head_is_answered_as_get_without_a_body(alone: Verifier, path: str) -> None:
    caller = connection(alone, OTHER)
    answers = []
    for method in ("HEAD", "GET"):
        caller.request(method, path)
        answer = caller.getresponse()
        answers.append((answer.status, answer.headers["Content-Length"], answer.read()))
    caller.close()
    assert [each[:2] for each in answers] == [answers[1][:2]] * 2
    assert answers[0][2] == b""


def test_both_address_families_reach_calls_and_probes(tmp_path: Path, hierarchy: Hierarchy, issuer: Issuer) -> None:
    site = make_site(tmp_path, hierarchy, issuer, "http://127.0.0.1:1")
    command = start_command(site)
    for option in ("--listen", "--metrics-listen"):
        command[command.index(option) + 1] = "[::]:0"
    with running_process(command, tmp_path / "log") as process:
        port, metrics_port = listening_ports(process, tmp_path / "log")
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
        context.check_hostname = False
        for host in ("127.0.0.1", "::1"):
            if host == "::1" and not has_ipv6():
                pytest.skip("this machine has no IPv6 loopback address")
            caller = http.client.HTTPSConnection(host, port, timeout=300, context=context)
            assert status(caller, AUTH_PATH, write_auth()) == 200
            caller.close()
            probe = http.client.HTTPConnection(host, metrics_port, timeout=300)
            probe.request("GET", "/healthz")
            assert probe.getresponse().read() == b"ok\n"
            probe.close()


def _processor_seconds(pid: int) -> float:
    return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3), whose numbers are Linux' interface


def test_it_still_serves_afterwards(alone: Verifier, device: Device, issuer: Issuer) -> None:
    client: Client = alone.client()
    assert Guest(client, device, issuer.token(uid="afterwards")).attest().status == 200
    client.close()
    assert alone.events("handler_failed") == []
