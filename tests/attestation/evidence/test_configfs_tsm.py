"""configfs-tsm against a mounted file system that behaves as the kernel's."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attestation.evidence import Code, EvidenceError, Kind, collect_first, open_source
from attestation.evidence.configfs_tsm import ATTEMPTS, ConfigfsTsm
from attestation.report.abi import parse_report
from attestation.simulator.device import Device
from plan.document import EvidenceSource
from tests.attestation.evidence.conftest import appraise_own
from tests.attestation.evidence.fuse import mounted
from tests.attestation.evidence.tsm import Fault, Tsm, fail
from tests.support.vectors import Store

DIGEST = bytes(range(48))
ASKED = DIGEST + bytes(16)


@pytest.fixture
def tsm(device: Device) -> Tsm:
    return Tsm(lambda report_data, _: (device.report(report_data), device.certificate_table()))


@pytest.fixture
def path(tsm: Tsm, tmp_path: Path) -> Iterator[Path]:
    """…/report, mounted."""
    try:
        mount = mounted(tsm, tmp_path / "report")
        at = mount.__enter__()
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0)
        pytest.skip(f"cannot mount FUSE here ({name}): run as root, or under `unshare -Urm`")
    try:
        yield at
    finally:
        mount.__exit__(None, None, None)


def refused(path: Path | str, *, timeout: float = 60) -> EvidenceError:
    with pytest.raises(EvidenceError) as caught:
        ConfigfsTsm(str(path)).collect(ASKED, timeout=timeout)
    assert caught.value.source == "configfs-tsm"
    return caught.value


def raising(number: int) -> Fault:
    def fault(tsm: Tsm, name: str) -> bytes | None:
        raise fail(number)

    return fault


def somebody_writes(tsm: Tsm, name: str) -> None:
    tsm.items[name].write_generation += 1


def test_evidence_is_accepted_and_the_entry_is_gone(path: Path, tsm: Tsm, device: Device) -> None:
    evidence = ConfigfsTsm(str(path)).collect(ASKED, timeout=60)
    assert parse_report(evidence.report).report_data == ASKED
    assert [entry.kind for entry in evidence.certificates] == ["VCEK", "ASK"]
    result = appraise_own(evidence, device.hierarchy.root_path, device.hierarchy.crl_path)
    assert result.accepted
    assert result.source == "configfs-tsm"
    assert (tsm.items, len(tsm.made)) == ({}, 1)


def test_the_kernel_protocol_step_by_step(path: Path, tsm: Tsm) -> None:
    ConfigfsTsm(str(path)).collect(ASKED, timeout=60)
    assert tsm.steps == [
        "mkdir",
        "read provider",
        "read generation",
        "read privlevel_floor",
        "write privlevel",
        "write inblob",
        "read outblob",
        "read auxblob",
        "read generation",
        "rmdir",
    ]


@pytest.mark.parametrize(("floor", "asked"), [(0, 0), (2, 2)])
def test_privilege_level_is_the_guests_own_where_that_is_higher(
    path: Path, tsm: Tsm, device: Device, floor: int, asked: int
) -> None:
    levels: list[int] = []
    tsm.floor = floor

    def firmware(report_data: bytes, level: int) -> tuple[bytes, bytes]:
        levels.append(level)
        return device.report(report_data), b""

    tsm.firmware = firmware
    ConfigfsTsm(str(path)).collect(ASKED, timeout=60)
    assert levels == [asked]


def test_real_blobs_with_pem_certificates(path: Path, tsm: Tsm, vectors: Store) -> None:
    folder = vectors.path(vectors.first("reports/genoa-v3-configfs-tsm-veraison", "reports/milan-v2-virtee"))
    report, auxblob = (folder / "report.bin").read_bytes(), (folder / "auxblob.bin").read_bytes()
    tsm.firmware = lambda *_: (report, auxblob)
    evidence = ConfigfsTsm(str(path)).collect(parse_report(report).report_data, timeout=60)
    assert evidence.report == report
    # The host's table holds the root as well; it stays behind.
    assert sorted(entry.kind for entry in evidence.certificates) == ["ASK", "VCEK"]
    assert {entry.kind: entry.data for entry in evidence.certificates}["VCEK"] == (folder / "vek.der").read_bytes()


def test_no_certificates_is_fine(path: Path, tsm: Tsm, device: Device) -> None:
    tsm.firmware = lambda report_data, _: (device.report(report_data), b"")
    assert ConfigfsTsm(str(path)).collect(ASKED, timeout=60).certificates == ()


def test_a_write_by_somebody_else_is_noticed_and_the_whole_is_tried_again(path: Path, tsm: Tsm) -> None:
    tsm.fault("read auxblob", somebody_writes)
    ConfigfsTsm(str(path)).collect(ASKED, timeout=60)
    assert len(set(tsm.made)) == 2
    assert tsm.items == {}


@pytest.mark.parametrize("step", ["write privlevel", "read outblob", "read auxblob"])
def test_a_write_by_somebody_else_at_any_time_ends_in_raced(path: Path, tsm: Tsm, step: str) -> None:
    tsm.fault(step, *[somebody_writes] * ATTEMPTS)
    error = refused(path)
    assert (error.code, error.kind) == (Code.RACED, Kind.BUSY)
    assert (tsm.items, len(tsm.made)) == ({}, ATTEMPTS)


def test_another_report_than_asked_for_is_noticed(path: Path, tsm: Tsm, device: Device) -> None:
    tsm.firmware = lambda *_: (device.report(b"x" * 64), b"")
    assert refused(path).code is Code.WRONG_REPORT_DATA


def forced(content: bytes) -> Fault:
    return lambda *_: content


def vanish(tsm: Tsm, name: str) -> None:
    del tsm.items[name]


def unregister(tsm: Tsm, _: str) -> None:
    tsm.provider = None


@pytest.mark.parametrize(
    ("step", "fault", "code"),
    [
        ("read outblob", raising(errno.EBUSY), Code.THROTTLED),
        ("read outblob", raising(errno.EAGAIN), Code.THROTTLED),
        ("write privlevel", raising(errno.EBUSY), Code.THROTTLED),
        ("read outblob", raising(errno.ETIMEDOUT), Code.DEVICE_DISABLED),
        ("read outblob", raising(errno.ENOTTY), Code.DEVICE_DISABLED),
        ("read outblob", raising(errno.EINVAL), Code.REFUSED),
        ("read outblob", raising(errno.EIO), Code.DEVICE_ERROR),
        ("mkdir", raising(errno.EACCES), Code.PERMISSION_DENIED),
        ("mkdir", raising(errno.EROFS), Code.PERMISSION_DENIED),
        ("mkdir", raising(errno.ENOMEM), Code.DEVICE_ERROR),
        ("read provider", forced(b"tdx_guest\n"), Code.WRONG_PROVIDER),
        ("read provider", forced(b""), Code.WRONG_PROVIDER),
        ("read provider", unregister, Code.VANISHED),
        ("read provider", vanish, Code.VANISHED),
        ("read outblob", vanish, Code.VANISHED),
        ("read generation", vanish, Code.VANISHED),
        ("read outblob", forced(b""), Code.WRONG_LENGTH),
        ("read outblob", forced(b"\2" * 1183), Code.WRONG_LENGTH),
        ("read outblob", forced(b"\2" * 1185), Code.TOO_LARGE),
        ("read auxblob", forced(bytes(0x4001)), Code.TOO_LARGE),
        ("read auxblob", forced(b"\1" * 100), Code.MALFORMED),
        ("read outblob", forced(bytes(1184)), Code.MALFORMED),
        ("read generation", forced(b"one\n"), Code.MALFORMED),
        ("read generation", forced(b""), Code.MALFORMED),
    ],
)
def test_every_fault_has_its_code_and_leaves_nothing_behind(
    path: Path, tsm: Tsm, step: str, fault: Fault, code: Code
) -> None:
    tsm.fault(step, fault)
    assert refused(path).code is code
    assert tsm.items == {}


def test_a_missing_interface_and_a_missing_driver_are_unavailable(path: Path, tsm: Tsm, tmp_path: Path) -> None:
    tsm.provider = None
    for at in (path, tmp_path / "nowhere" / "report"):
        error = refused(at)
        assert (error.code, error.kind) == (Code.NOT_THERE, Kind.UNAVAILABLE)


def test_inblob_is_exactly_what_was_asked(path: Path, tsm: Tsm, device: Device) -> None:
    seen: list[bytes] = []

    def firmware(report_data: bytes, _: int) -> tuple[bytes, bytes]:
        seen.append(report_data)
        return device.report(report_data), b""

    tsm.firmware = firmware
    asked = bytes([0, 10, 13, 255]) * 16
    ConfigfsTsm(str(path)).collect(asked, timeout=60)
    assert seen == [asked]


@pytest.mark.parametrize("size", [0, 48, 63, 65])
def test_another_length_than_64_is_the_callers_mistake(size: int) -> None:
    with pytest.raises(ValueError, match="64"):
        ConfigfsTsm("/nowhere").collect(bytes(size), timeout=1)


def test_a_kernel_that_holds_the_read_costs_the_deadline_and_is_cleaned_up_later(path: Path, tsm: Tsm) -> None:
    let_go, removed = threading.Event(), threading.Event()

    def hold(tsm: Tsm, name: str) -> None:
        let_go.wait(600)

    tsm.fault("read outblob", hold)
    tsm.fault("rmdir", lambda *_: removed.set())
    error = refused(path, timeout=0.2)
    assert (error.code, error.kind) == (Code.DEADLINE, Kind.BUSY)
    let_go.set()
    assert removed.wait(60)


def test_a_throttled_device_is_asked_again_until_it_answers(path: Path, tsm: Tsm) -> None:
    tsm.fault("read outblob", raising(errno.EBUSY), raising(errno.EBUSY))
    evidence = collect_first([EvidenceSource("configfs-tsm", str(path))], DIGEST, timeout=60)
    assert evidence.source == "configfs-tsm"
    assert len(tsm.made) == 3


def test_the_digest_travels_raw_and_padded() -> None:
    encode: Callable[[bytes], bytes] = open_source("configfs-tsm", "/x").report_data
    assert encode(DIGEST) == ASKED
