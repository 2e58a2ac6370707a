"""coco-aa and simulated against real HTTP services, well-behaved and not."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from attestation.evidence import (
    Code,
    CollectedEvidence,
    EvidenceError,
    EvidenceSource,
    Kind,
    coco_document,
    collect_first,
    open_source,
)
from attestation.report.abi import parse_report
from attestation.report.report_data import accepted
from attestation.simulator.device import Device
from plan import document
from tests.attestation.evidence.agent import Respond, Service, attestation_agent, evidence_json, plain, serving
from tests.attestation.evidence.conftest import appraise_own
from tests.attestation.reports import UNREAD_ENTRIES
from tests.support.vectors import Store

DIGEST = bytes(range(48))
NAMES = ("coco-aa", "simulated")


def source(name: str, service: Service) -> EvidenceSource:
    return open_source(name, service.address)


def collect(name: str, service: Service, *, timeout: float = 60) -> CollectedEvidence:
    opened = source(name, service)
    return opened.collect(opened.report_data(DIGEST), timeout=timeout)


def refused(name: str, respond: Respond, *, timeout: float = 60) -> EvidenceError:
    with serving(respond) as service, pytest.raises(EvidenceError) as caught:
        collect(name, service, timeout=timeout)
    assert caught.value.source == name
    return caught.value


def simulated_body(device: Device) -> bytes:
    return device.report(DIGEST + bytes(16)) + device.certificate_table()


def test_the_guest_agents_evidence_is_accepted(device: Device) -> None:
    with serving(attestation_agent(device)) as service:
        evidence = collect("coco-aa", service)
    assert appraise_own(evidence, device.hierarchy.root_path, device.hierarchy.crl_path).accepted
    assert parse_report(evidence.report).report_data in accepted(DIGEST)
    assert evidence.document is not None


@pytest.mark.parametrize("entry", UNREAD_ENTRIES)
def test_an_agent_may_pass_the_hosts_whole_table_on(device: Device, entry: dict[str, Any]) -> None:
    body = json.loads(evidence_json(device, open_source("coco-aa", "http://127.0.0.1:8006").report_data(DIGEST)))
    without = json.loads(json.dumps(body))
    body["cert_chain"].append(entry)
    with serving(plain("200 OK", json.dumps(body).encode())) as service:
        evidence = collect("coco-aa", service)
    assert appraise_own(evidence, device.hierarchy.root_path, device.hierarchy.crl_path).accepted
    assert coco_document(evidence) == without, "and a verifier gets nothing that it does not read"


def test_the_request_to_the_agent_works_with_every_version(device: Device) -> None:
    with serving(attestation_agent(device)) as service:
        collect("coco-aa", service)
    (target,) = service.targets
    path, _, value = target.partition("?runtime_data=")
    assert path == "/aa/evidence"
    assert len(value) == 64  # nothing percent-encoded, no other parameter
    assert b"\r\nHost: 127.0.0.1:" in service.heads[0]


def test_the_agents_real_answer(vectors: Store) -> None:
    folder = vectors.path("reports/genoa-v3-coco-aa-json-trustee")
    body = (folder / "evidence.json").read_bytes()
    # Whoever recorded it asked for other REPORT_DATA; everything before that check has passed.
    assert refused("coco-aa", plain("200 OK", body)).code is Code.WRONG_REPORT_DATA


def test_raw_report_data_is_the_callers_mistake_for_the_agent() -> None:
    with pytest.raises(ValueError, match="base64url"):
        open_source("coco-aa", "http://127.0.0.1:8006").collect(DIGEST + bytes(16), timeout=1)


@pytest.mark.parametrize("name", NAMES)
def test_a_unix_socket_serves_as_well(name: str, device: Device, tmp_path: Path) -> None:
    respond = attestation_agent(device) if name == "coco-aa" else plain("200 OK", simulated_body(device))
    with serving(respond, tmp_path / "socket") as service:
        assert service.address.startswith("unix:/")
        assert collect(name, service).source == name


@pytest.mark.parametrize("name", NAMES)
def test_a_unix_socket_is_reached_by_a_path_that_is_too_long_for_one(name: str, device: Device, tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 60) / ("b" * 60)
    folder.mkdir(parents=True)
    (tmp_path / "short").symlink_to(folder)
    respond = attestation_agent(device) if name == "coco-aa" else plain("200 OK", simulated_body(device))
    with serving(respond, tmp_path / "short" / "socket"):
        found = collect_first([document.EvidenceSource(name, f"unix:{folder}/socket")], DIGEST, timeout=60)
    assert found.source == name
    with pytest.raises(EvidenceError, match="nothing listens there"):
        collect_first([document.EvidenceSource(name, f"unix:{folder}/{'c' * 60}/socket")], DIGEST, timeout=60)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("301 Moved Permanently", Code.REDIRECTED),
        ("307 Temporary Redirect", Code.REDIRECTED),
        ("429 Too Many Requests", Code.THROTTLED),
        ("503 Service Unavailable", Code.THROTTLED),
        ("500 Internal Server Error", Code.AGENT_ERROR),
        ("400 Bad Request", Code.REFUSED),
        ("403 Forbidden", Code.REFUSED),
        ("405 Method Not Allowed", Code.REFUSED),
        ("204 No Content", Code.REFUSED),
    ],
)
def test_status(name: str, status: str, code: Code) -> None:
    assert refused(name, plain(status, b"")).code is code


@pytest.mark.parametrize("name", NAMES)
def test_redirects_are_not_followed(name: str, device: Device) -> None:
    with serving(plain("200 OK", simulated_body(device))) as other:
        error = refused(name, plain("302 Found", b"", f"Location: {other.address}/report"))
    assert (error.code, other.heads) == (Code.REDIRECTED, [])


def test_a_switched_off_agent_is_unavailable_but_a_wrong_simulator_is_not() -> None:
    body = b"Attestation Feature Not Enabled"
    error = refused("coco-aa", plain("404 Not Found", body))
    assert (error.code, error.kind) == (Code.NOT_ENABLED, Kind.UNAVAILABLE)
    assert refused("simulated", plain("404 Not Found", body)).code is Code.REFUSED


@pytest.mark.parametrize("name", NAMES)
def test_nobody_there(name: str, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        for address in (f"http://127.0.0.1:{free.getsockname()[1]}", f"unix:{tmp_path}/none"):
            opened = open_source(name, address)
            with pytest.raises(EvidenceError) as caught:
                opened.collect(opened.report_data(DIGEST), timeout=60)
            assert (caught.value.code, caught.value.kind) == (Code.NOT_THERE, Kind.UNAVAILABLE)


def cut(announced: int, sent: bytes) -> Respond:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {announced}\r\n\r\n".encode()
    return lambda connection, _: connection.sendall(head + sent)


def send(data: bytes) -> Respond:
    return lambda connection, _: connection.sendall(data)


def chunks(total: int) -> Respond:
    def respond(connection: socket.socket, _: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _number in range(total // 1000):
            connection.sendall(b"3e8\r\n" + b" " * 1000 + b"\r\n")
        connection.sendall(b"0\r\n\r\n")

    return respond


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("respond", "code"),
    [
        (cut(2000, b"x" * 1000), Code.SHORT_ANSWER),
        (send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\nabc"), Code.SHORT_ANSWER),
        (cut(10**9, b"x"), Code.TOO_LARGE),
        (chunks(400_000), Code.TOO_LARGE),
        (send(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 400_000), Code.TOO_LARGE),
        (send(b""), Code.AGENT_ERROR),
        (send(b"\x16\x03\x01 this is no HTTP\r\n\r\n"), Code.MALFORMED),
        (send(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"), Code.MALFORMED),
        (send(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n"), Code.MALFORMED),
    ],
    ids=["cut", "cut-chunk", "announced", "chunked", "endless", "nothing", "no-http", "headers", "header"],
)
def test_answers_of_the_wrong_size_or_shape(name: str, respond: Respond, code: Code) -> None:
    assert refused(name, respond).code is code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", Code.MALFORMED),
        (b"not json", Code.MALFORMED),
        (b"[" * 100_000, Code.MALFORMED),
        (b"{}", Code.MALFORMED),
        (b'{"attestation_report": {"version": 3}}', Code.MALFORMED),
    ],
)
def test_agent_answers_that_are_no_evidence(body: bytes, code: Code) -> None:
    error = refused("coco-aa", plain("200 OK", body))
    assert error.code is code
    assert "[[" not in str(error)


def test_agent_evidence_for_somebody_else(device: Device) -> None:
    error = refused("coco-aa", plain("200 OK", evidence_json(device, b"x" * 64)))
    assert error.code is Code.WRONG_REPORT_DATA


def test_simulated_answers_that_are_no_evidence(device: Device) -> None:
    body = simulated_body(device)
    for wrong, code in (
        (b"", Code.WRONG_LENGTH),
        (body[:1183], Code.WRONG_LENGTH),
        (body[:1200], Code.MALFORMED),
        (device.report(b"x" * 64), Code.WRONG_REPORT_DATA),
    ):
        assert refused("simulated", plain("200 OK", wrong)).code is code


_TRICKLE_SECONDS = 600.0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"])
def test_a_trickle_of_bytes_does_not_extend_the_deadline(name: str, first: bytes) -> None:
    done = threading.Event()
    end = threading.Timer(_TRICKLE_SECONDS, done.set)
    end.start()

    def trickle(connection: socket.socket, _: str) -> None:
        connection.sendall(first)
        while not done.wait(0.05):
            connection.sendall(b"H")

    start = time.monotonic()
    try:
        error = refused(name, trickle, timeout=0.4)
    finally:
        end.cancel()
        done.set()
    assert (error.code, error.kind) == (Code.DEADLINE, Kind.BUSY)
    assert time.monotonic() - start < _TRICKLE_SECONDS / 2


@pytest.mark.parametrize("name", NAMES)
def test_a_listener_that_never_accepts_costs_the_deadline(name: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        opened = open_source(name, f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(EvidenceError) as caught:
            opened.collect(opened.report_data(DIGEST), timeout=0.2)
    assert caught.value.code is Code.DEADLINE


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "address",
    [
        "",
        "127.0.0.1:8006",
        "https://127.0.0.1:8006",
        "http://127.0.0.1",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:8006/aa",
        "http://127.0.0.1:8006?x",
        "http://user@127.0.0.1:8006",
        "unix:relative",
        "/run/agent.sock",
    ],
)
def test_addresses_that_cannot_be_used(name: str, address: str) -> None:
    with pytest.raises(EvidenceError) as caught:
        open_source(name, address)
    assert (caught.value.code, caught.value.kind) == (Code.BAD_ADDRESS, Kind.FAILED)


def test_another_machines_agent_is_not_ours() -> None:
    for address in ("http://192.0.2.1:8006", "http://agent.example:8006"):
        with pytest.raises(EvidenceError) as caught:
            open_source("coco-aa", address)
        assert caught.value.code is Code.BAD_ADDRESS
    for address in ("http://localhost:8006", "http://[::1]:8006", "http://127.0.0.2:8006"):
        assert open_source("coco-aa", address).name == "coco-aa"


def test_proxies_of_the_environment_are_not_asked(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(plain("502 Bad Gateway")) as proxy, serving(attestation_agent(device)) as service:
        monkeypatch.setenv("http_proxy", proxy.address)
        collect("coco-aa", service)
    assert proxy.heads == []
