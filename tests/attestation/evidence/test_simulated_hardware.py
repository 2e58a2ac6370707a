"""The simulated machine: accepted with its root alone, and never when it tampers."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from attestation.appraisal.appraise import Expectation, appraise
from attestation.errors import CertificateError
from attestation.evidence import collect_first, open_source
from attestation.pki.crl import parse_crl
from attestation.pki.endorsements import Endorsements, from_table
from attestation.pki.roots import TrustAnchors, amd_trust_anchors
from attestation.report.abi import parse_report
from attestation.report.coco import parse_coco_json
from attestation.report.envelopes import from_raw
from attestation.report.report_data import accepted
from attestation.simulator.device import DEFAULT_MEASUREMENT, Device, Tamper
from attestation.simulator.hierarchy import TCB, Hierarchy, SimulatorError, open_hierarchy
from attestation.simulator.server import SimulatedMachine
from plan.document import EvidenceSource
from tests.attestation.evidence.agent import evidence_json
from tests.attestation.evidence.conftest import appraise_own
from tests.attestation.reports import UNREAD_ENTRIES, guest_reference
from tests.support.paths import ROOT

DIGEST = bytes(range(48))


def command_line(module: str) -> str:
    """A program that is this one command, whatever else is registered."""
    return (
        f"import argparse, sys, {module} as command\n"
        "parser = argparse.ArgumentParser()\n"
        "command.configure(parser)\n"
        "sys.exit(command.run(parser.parse_args()))"
    )


REFERENCE = {
    "product": "Simulated",
    "measurements": [DEFAULT_MEASUREMENT.hex()],
    "minTcb": TCB.as_dict(),
}


@contextmanager
def machine(device: Device) -> Iterator[str]:
    running = SimulatedMachine(device, ("127.0.0.1", 0))
    running.start()
    try:
        yield running.address
    finally:
        running.stop()


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The command as a process of its own, and the four lines it says when it serves (empty when it does not)."""
    running = subprocess.Popen(
        [sys.executable, "-c", command_line("cli.commands.simulated_hardware"), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert running.stdout is not None
        yield running, [running.stdout.readline().strip() for _ in range(4)]
    finally:
        if running.poll() is None:
            running.kill()
        running.communicate()


@pytest.mark.parametrize("name", ["simulated", "coco-aa"])
def test_evidence_is_accepted_under_its_own_root_and_labelled(device: Device, name: str) -> None:
    with machine(device) as address:
        evidence = collect_first([EvidenceSource(name, address)], DIGEST, timeout=60)
    result = appraise_own(
        evidence,
        device.hierarchy.root_path,
        device.hierarchy.crl_path,
        Expectation(
            reference=guest_reference(REFERENCE, "simulated"),
            report_data=accepted(DIGEST),
            host_data=frozenset({bytes(32)}),
        ),
    )
    assert result.accepted, result.explain()
    assert (result.simulated, result.product, result.source) == (True, "Simulated", name)
    assert "SIMULATED" in result.summary()


@pytest.mark.parametrize(
    ("tamper", "failed"),
    [
        (Tamper.MEASUREMENT, {"signature/report"}),
        (Tamper.SIGNATURE, {"signature/report"}),
        (Tamper.TCB, {"tcb/certificate"}),
        (Tamper.DEBUG, {"policy/debug"}),
    ],
)
def test_each_way_of_tampering_fails_its_check_alone(device: Device, tamper: Tamper, failed: set[str]) -> None:
    with machine(Device(device.hierarchy, tamper=tamper)) as address:
        evidence = collect_first([EvidenceSource("simulated", address)], DIGEST, timeout=60)
    result = appraise_own(evidence, device.hierarchy.root_path, device.hierarchy.crl_path)
    assert not result.accepted
    assert {check.id for check in result.failed} == failed


def test_nothing_else_believes_it(device: Device, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = open_hierarchy(tmp_path_factory.mktemp("other"))
    with machine(device) as address:
        evidence = collect_first([EvidenceSource("simulated", address)], DIGEST, timeout=60)
    result = appraise_own(evidence, other.root_path, other.crl_path)
    assert "chain/intermediate" in {check.id for check in result.failed}
    given = from_table(evidence.certificates)
    for anchors in (TrustAnchors(), amd_trust_anchors([device.hierarchy.root])):
        result = appraise(
            from_raw(evidence.report), Endorsements(given.leaf, given.intermediates), anchors, datetime.now(UTC)
        )
        assert "product/line" in {check.id for check in result.failed}
        assert not result.accepted


def test_the_root_passes_for_no_other_line_and_the_ask_for_no_root(hierarchy: Hierarchy) -> None:
    assert hierarchy.root.subject_name == "ARK-Simulated"
    with pytest.raises(CertificateError):
        TrustAnchors().with_simulated(hierarchy.ask)


def test_host_data_and_measurement_are_what_was_said(hierarchy: Hierarchy) -> None:
    report = parse_report(Device(hierarchy, b"m" * 48, b"h" * 32).report(bytes(64)))
    assert (report.measurement, report.host_data) == (b"m" * 48, b"h" * 32)


def test_a_launch_has_one_report_id_and_the_next_another(hierarchy: Hierarchy) -> None:
    first, second = Device(hierarchy), Device(hierarchy)
    ids = [parse_report(each.report(bytes(64))).report_id for each in (first, first, second)]
    assert ids[0] == ids[1] != ids[2]


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_keys_are_kept_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "simulated"
    first = open_hierarchy(folder)
    made = _contents(folder)
    second = open_hierarchy(folder)
    assert _contents(folder) == made, "no key was generated again"
    assert (first.root.der, first.vcek.der) == (second.root.der, second.vcek.der)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert {str(path.relative_to(folder)) for path in files} == {
        "root.pem",
        "root.key",
        "ask.pem",
        "vcek.pem",
        "vcek.key",
        "crls/crl.pem",
        "lock",
    }


@pytest.fixture
def copied(hierarchy: Hierarchy, tmp_path: Path) -> Path:
    """A machine of our own to spoil."""
    folder = tmp_path / "copy"
    folder.mkdir()
    shutil.copytree(hierarchy.root_path.parent, folder, dirs_exist_ok=True)
    return folder


@pytest.mark.parametrize("name", ["root.pem", "root.key", "vcek.key", "vcek.pem", "ask.pem"])
def test_half_a_machine_is_not_completed_silently(copied: Path, name: str) -> None:
    # A new root beside old certificates would be refused by every verifier, much later and without a reason.
    (copied / name).unlink()
    with pytest.raises(SimulatorError, match="holds only"):
        open_hierarchy(copied)


def test_a_key_that_others_may_read_is_refused(copied: Path) -> None:
    (copied / "vcek.key").chmod(0o640)
    with pytest.raises(SimulatorError, match="readable by others"):
        open_hierarchy(copied)


def test_a_key_that_is_none_is_refused(copied: Path) -> None:
    (copied / "vcek.key").write_bytes(b"-----BEGIN PRIVATE KEY-----")
    with pytest.raises(SimulatorError, match="not a private key"):
        open_hierarchy(copied)


def test_the_revocation_list_is_renewed_in_time(copied: Path) -> None:
    before = (copied / "crls" / "crl.pem").read_bytes()
    open_hierarchy(copied)
    assert (copied / "crls" / "crl.pem").read_bytes() == before
    later = datetime.now(UTC) + timedelta(days=200)
    renewed = parse_crl(open_hierarchy(copied, later).crl_path.read_bytes())
    assert renewed.is_fresh(later + timedelta(days=300))


def test_an_expired_machine_says_so(copied: Path) -> None:
    with pytest.raises(SimulatorError, match="expired"):
        open_hierarchy(copied, datetime.now(UTC) + timedelta(days=8 * 365))


def test_two_that_start_at_once_have_one_root(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(open_hierarchy, [tmp_path / "both"] * 2)
    assert first.root.der == second.root.der


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_requests_that_are_none(device: Device) -> None:
    with machine(device) as address:
        for target in (
            "/report",
            "/report?report_data=",
            "/report?report_data=zz",
            "/report?report_data=" + "00" * 63,
            "/report?report_data=" + "00" * 65,
            "/report?report_data=" + "00" * 64 + "&report_data=" + "00" * 64,
            "/report?a=1&b=2&c=3&d=4&e=5&report_data=" + "00" * 64,
            "/aa/evidence",
            "/aa/evidence?runtime_data=" + "x" * 65,
        ):
            assert status(address + target) == 400, target
        assert status(address + "/") == 404
        assert status(address + "/aa/token?token_type=kbs") == 404
        assert status(address + "/report?report_data=" + "00" * 64) == 200


def test_the_agents_shape_pads_short_runtime_data_as_the_agent_does(device: Device) -> None:
    with machine(device) as address, urllib.request.urlopen(address + "/aa/evidence?runtime_data=nonce") as answer:
        report, certificates = parse_coco_json(answer.read())
    assert parse_report(report).report_data == b"nonce".ljust(64, b"\0")
    assert [entry.kind for entry in certificates] == ["VCEK", "ASK"]


def test_a_process_serves_until_sigterm(hierarchy: Hierarchy) -> None:
    folder = str(hierarchy.root_path.parent)
    wanted = ("--host-data", "ab" * 32, "--measurement", "cd" * 48)
    with process("--dir", folder, "--listen", "127.0.0.1:0", *wanted) as (running, said):
        address = said[0].removeprefix("listening on ")
        evidence = collect_first([EvidenceSource("simulated", address)], DIGEST, timeout=60)
        running.send_signal(signal.SIGTERM)
        _, errors = running.communicate(timeout=300)
    assert running.returncode == 0
    report = parse_report(evidence.report)
    assert (report.host_data, report.measurement) == (b"\xab" * 32, b"\xcd" * 48)
    assert said[1:] == [
        f"root         {hierarchy.root_path}",
        f"measurement  {'cd' * 48}",
        f"host data    {'ab' * 32}",
    ]
    assert "proves nothing" in errors
    assert DIGEST.hex() not in errors


def test_report_verify_takes_the_folder_as_it_is(device: Device, tmp_path: Path) -> None:
    folder, file = device.hierarchy.root_path.parent, tmp_path / "evidence.json"
    file.write_bytes(evidence_json(device, b"x"))
    trust = ["--simulated-root", f"{folder}/root.pem", "--crls", f"{folder}/crls"]
    document = json.loads(file.read_text())
    document["cert_chain"] += UNREAD_ENTRIES
    file.write_text(json.dumps(document))
    for arguments, code in (([*trust, "--authenticity-only"], 0), (trust, 3), ([], 1)):
        result = subprocess.run(
            [sys.executable, "-c", command_line("cli.commands.report"), "verify", str(file), *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert result.returncode == code, result.stdout + result.stderr
        assert ("simulated: the root is not AMD's" in result.stderr) == (code != 1)


def test_a_machine_as_slow_as_hardware_makes_one_report_after_the_other(hierarchy: Hierarchy) -> None:
    arguments = ("--dir", str(hierarchy.root_path.parent), "--listen", "127.0.0.1:0", "--report-milliseconds", "100")
    with process(*arguments) as (_, said):
        opened = open_source("simulated", said[0].split()[-1])
        started = time.monotonic()
        threads = [
            threading.Thread(target=opened.collect, args=(opened.report_data(DIGEST),), kwargs={"timeout": 60})
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - started >= 0.3


def test_an_ipv6_loopback_address(device: Device) -> None:
    try:
        running = SimulatedMachine(device, ("::1", 0))
    except OSError as error:
        pytest.skip(f"no IPv6 loopback on this machine: {error.strerror}")
    running.start()
    try:
        assert running.address.startswith("http://[::1]:")
        assert collect_first([EvidenceSource("simulated", running.address)], DIGEST, timeout=60).certificates
    finally:
        running.stop()


def test_a_process_on_a_unix_socket_survives_a_killed_predecessor(hierarchy: Hierarchy, tmp_path: Path) -> None:
    folder, path = str(hierarchy.root_path.parent), tmp_path / "machine.sock"
    for end in (signal.SIGKILL, signal.SIGTERM):
        with process("--dir", folder, "--listen", str(path)) as (running, said):
            assert said[0] == f"listening on unix:{path}"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            opened = open_source("simulated", f"unix:{path}")
            opened.collect(opened.report_data(DIGEST), timeout=60)
            running.send_signal(end)
            running.wait(300)
    assert not path.exists()


def test_a_socket_in_use_is_not_taken_away(device: Device, tmp_path: Path) -> None:
    path = tmp_path / "machine.sock"
    first = SimulatedMachine(device, path)
    first.start()
    try:
        with pytest.raises(OSError, match="in use"):
            SimulatedMachine(device, path)
        opened = open_source("simulated", first.address)
        opened.collect(opened.report_data(DIGEST), timeout=60)
    finally:
        first.stop()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--listen", "0.0.0.0:0"),
        ("--listen", "127.0.0.1:0", "--report-milliseconds", "soon"),
        ("--listen", "127.0.0.1:0", "--report-milliseconds", "-1"),
        ("--listen", "192.0.2.1:80"),
        ("--listen", "example.org:80"),
        ("--listen", "127.0.0.1"),
        ("--listen", "127.0.0.1:65536"),
        ("--listen", "127.0.0.1:0", "--host-data", "00"),
        ("--listen", "127.0.0.1:0", "--measurement", "zz"),
        ("--listen", "127.0.0.1:0", "--tamper", "nonsense"),
        ("--listen", "/nonexistent/folder/socket"),
    ],
)
def test_unusable_arguments_exit_with_2(hierarchy: Hierarchy, arguments: tuple[str, ...]) -> None:
    folder = str(hierarchy.root_path.parent)
    with process("--dir", folder, *arguments) as (running, _):
        _, errors = running.communicate(timeout=300)
    assert running.returncode == 2
    assert "Traceback" not in errors


def test_a_port_in_use_exits_with_2(hierarchy: Hierarchy) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with process("--dir", str(hierarchy.root_path.parent), "--listen", address) as (running, _):
            running.communicate(timeout=300)
    assert running.returncode == 2


def test_tampering_is_announced(hierarchy: Hierarchy) -> None:
    arguments = ("--dir", str(hierarchy.root_path.parent), "--listen", "127.0.0.1:0", "--tamper", "debug")
    with process(*arguments) as (running, _):
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=300)
    assert running.returncode == 0
    assert "verifiers must refuse" in errors
