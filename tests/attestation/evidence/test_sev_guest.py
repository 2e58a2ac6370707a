"""/dev/sev-guest against the driver's side of its memory, and against a recorded answer of a real machine."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from attestation.evidence import Code, CollectedEvidence, EvidenceError, Kind, open_source
from attestation.evidence.sev_guest import SevGuest
from attestation.report.abi import parse_report
from attestation.simulator.device import Device
from tests.attestation.evidence.conftest import appraise_own
from tests.attestation.evidence.driver import BUSY, INVALID_LEN, Refusal, SevGuestDriver, snp_report_resp
from tests.support.vectors import Store

DIGEST = bytes(range(48))
ASKED = DIGEST + bytes(16)
NODE = "/dev/null"  # something to open; the ioctl goes to the stand-in


@pytest.fixture
def driver(device: Device) -> SevGuestDriver:
    return SevGuestDriver(lambda data, _: snp_report_resp(device.report(data)), device.certificate_table())


def collect(driver: SevGuestDriver, *, asked: bytes = ASKED, vmpl: int = 0, timeout: float = 5) -> CollectedEvidence:
    return SevGuest(NODE, vmpl=vmpl, ioctl=driver).collect(asked, timeout=timeout)


def refused(driver: SevGuestDriver, *, timeout: float = 5) -> EvidenceError:
    with pytest.raises(EvidenceError) as caught:
        collect(driver, timeout=timeout)
    assert caught.value.source == "sev-guest"
    return caught.value


def test_evidence_with_certificates_is_accepted(driver: SevGuestDriver, device: Device) -> None:
    evidence = collect(driver)
    assert [entry.kind for entry in evidence.certificates] == ["VCEK", "ASK"]
    assert appraise_own(evidence, device.hierarchy.root_path, device.hierarchy.crl_path).accepted


def test_the_request_is_what_the_driver_takes(driver: SevGuestDriver) -> None:
    collect(driver, vmpl=2)
    assert [(each.user_data, each.vmpl, each.certs_len, each.aligned) for each in driver.requests] == [
        (ASKED, 2, 0x4000, True)
    ]


def test_a_recorded_exchange_of_a_real_machine(vectors: Store) -> None:
    recorded = vectors.read("reports/ioctl-snp_report_resp-lit/snp_report_resp.bin")
    report = parse_report(recorded[0x20 : 0x20 + 1184])
    evidence = collect(SevGuestDriver(lambda *_: recorded), asked=report.report_data)
    assert (evidence.report, evidence.certificates) == (report.raw, ())


def test_a_real_hosts_table_in_the_buffer(vectors: Store) -> None:
    folder = vectors.path(vectors.first("reports/genoa-v3-configfs-tsm-veraison", "reports/milan-v2-virtee"))
    report = (folder / "report.bin").read_bytes()
    driver = SevGuestDriver(lambda *_: snp_report_resp(report), (folder / "auxblob.bin").read_bytes())
    evidence = collect(driver, asked=parse_report(report).report_data)
    assert sorted(entry.kind for entry in evidence.certificates) == ["ASK", "VCEK"]


def test_certificates_that_do_not_fit_are_done_without(driver: SevGuestDriver) -> None:
    driver.needed = 0x5000
    assert collect(driver).certificates == ()
    assert [each.certs_len for each in driver.requests] == [0x4000, 0]


def test_a_driver_that_finds_every_size_wrong_is_not_asked_for_ever(driver: SevGuestDriver) -> None:
    driver.refusals = [Refusal(errno.EIO, INVALID_LEN)] * 10
    assert refused(driver).code is Code.DEVICE_ERROR
    assert len(driver.requests) == 3


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (Refusal(errno.EIO, BUSY), Code.THROTTLED),
        (Refusal(errno.EAGAIN), Code.THROTTLED),
        (Refusal(errno.EBUSY), Code.THROTTLED),
        (Refusal(errno.EINTR), Code.THROTTLED),
        (Refusal(errno.ETIMEDOUT, 0xFF), Code.DEVICE_DISABLED),
        (Refusal(errno.ENOTTY, 0xFF), Code.DEVICE_DISABLED),
        (Refusal(errno.ENODEV, 0xFF), Code.VANISHED),
        (Refusal(errno.EINVAL, 0xFF), Code.REFUSED),
        (Refusal(errno.EIO, 0x16), Code.REFUSED),
        (Refusal(0, 0x16), Code.REFUSED),
        (Refusal(errno.EBADMSG), Code.DEVICE_ERROR),
        (Refusal(errno.EIO, 9 << 32), Code.DEVICE_ERROR),
    ],
)
def test_every_refusal_has_its_code(driver: SevGuestDriver, refusal: Refusal, code: Code) -> None:
    driver.refusals = [refusal] * 3
    error = refused(driver)
    assert error.code is code
    assert len(driver.requests) == 1
    if refusal.exitinfo2 == 0x16:
        assert "firmware error 0x16" in str(error)


def test_answers_that_are_not_a_report(driver: SevGuestDriver, device: Device) -> None:
    report = device.report(ASKED)
    answers = {
        Code.REFUSED: snp_report_resp(b"", status=0x27),
        Code.WRONG_LENGTH: snp_report_resp(report, size=1183),
        Code.MALFORMED: snp_report_resp(bytes(1184)),
        Code.WRONG_REPORT_DATA: snp_report_resp(device.report(b"x" * 64)),
    }
    for code, answer in answers.items():
        driver.answer = lambda *_, answer=answer: answer
        assert refused(driver).code is code
    driver.answer = lambda *_: bytes(4000)
    assert refused(driver).code is Code.WRONG_LENGTH


def test_a_certificate_table_that_points_outside_is_refused(driver: SevGuestDriver) -> None:
    table = bytearray(driver.certificates)
    table[16:20] = (0x7FFFFFFF).to_bytes(4, "little")
    driver.certificates = bytes(table)
    assert refused(driver).code is Code.MALFORMED


def test_device_that_is_not_there_or_may_not_be_opened(tmp_path: Path) -> None:
    def code(path: Path | str) -> Code:
        with pytest.raises(EvidenceError) as caught:
            SevGuest(str(path)).collect(ASKED, timeout=60)
        return caught.value.code

    assert code(tmp_path / "sev-guest") is Code.NOT_THERE
    assert code("/dev/null/sev-guest") is Code.NOT_THERE
    # A regular file takes no ioctl: the kernel's own ENOTTY, through the real fcntl.ioctl.
    plain = tmp_path / "plain"
    plain.touch()
    assert code(plain) is Code.DEVICE_DISABLED
    assert code(tmp_path) is Code.DEVICE_ERROR


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
def test_no_permission_is_a_failure_and_names_the_device_cgroup(
    monkeypatch: pytest.MonkeyPatch, driver: SevGuestDriver, number: int
) -> None:
    # As root every file opens; what a container without the device in its cgroup sees is EPERM.
    def denied(*_: object) -> int:
        raise OSError(number, "")

    monkeypatch.setattr(os, "open", denied)
    error = refused(driver)
    assert (error.code, error.kind) == (Code.PERMISSION_DENIED, Kind.FAILED)
    assert "device cgroup" in str(error)


def test_a_driver_that_sleeps_costs_the_deadline(driver: SevGuestDriver, device: Device) -> None:
    let_go = threading.Event()

    def slow(data: bytes, _: int) -> bytes:
        let_go.wait(600)
        return snp_report_resp(device.report(data))

    driver.answer = slow
    try:
        error = refused(driver, timeout=0.2)
    finally:
        let_go.set()
    assert (error.code, error.kind) == (Code.DEADLINE, Kind.BUSY)


def test_the_device_is_closed(driver: SevGuestDriver, tmp_path: Path) -> None:
    node = tmp_path / "sev-guest"
    node.touch()
    held: list[int] = []

    def count() -> int:
        links = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        return sum(os.path.realpath(link) == str(node) for link in links)

    def ioctl(descriptor: int, request: int, argument: bytearray) -> int:
        held.append(count())
        return driver(descriptor, request, argument)

    source = SevGuest(str(node), ioctl=ioctl)
    source.collect(ASKED, timeout=60)
    driver.refusals = [Refusal(errno.EIO)] * 9
    with pytest.raises(EvidenceError):
        source.collect(ASKED, timeout=60)
    assert (held, count()) == ([1, 1], 0)


def test_the_digest_travels_raw_and_padded() -> None:
    assert open_source("sev-guest", "/dev/sev-guest").report_data(DIGEST) == ASKED
