"""`configfs-tsm`: the kernel's report interface, /sys/kernel/config/tsm/report, from Linux 6.7 on.

Documentation/ABI/testing/configfs-tsm-report and drivers/virt/coco/guest/report.c define the protocol: make an entry,
write `inblob`, read `outblob` and `auxblob`, and let `generation` prove that no other process wrote in between.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from attestation.errors import FormatError
from attestation.evidence.deadline import within
from attestation.evidence.errors import Code, EvidenceError
from attestation.evidence.source import CollectedEvidence, accept, require_report_data
from attestation.report.abi import REPORT_SIZE
from attestation.report.certificate_table import MAX_TABLE_SIZE, parse_certificate_table
from attestation.report.report_data import padded

NAME = "configfs-tsm"
DEFAULT_PATH = "/sys/kernel/config/tsm/report"
PROVIDER = "sev_guest"  # KBUILD_MODNAME of drivers/virt/coco/sev-guest
ATTEMPTS = 3
_TEXT_LIMIT = 4096  # SIMPLE_ATTR_SIZE, fs/configfs/file.c
# Before our entry exists these mean that there is no such interface here; afterwards, that it went away.
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.ENODEV})


class ConfigfsTsm:
    """`path` is the `report` directory. `vmpl` is requested unless the guest itself runs at a higher number."""

    name = NAME

    def __init__(self, path: str = DEFAULT_PATH, *, vmpl: int = 0) -> None:
        if not path.startswith("/"):
            raise EvidenceError(NAME, Code.BAD_ADDRESS, f"address is not an absolute path, such as {DEFAULT_PATH}")
        self._path, self._vmpl = path, vmpl

    def report_data(self, digest: bytes) -> bytes:
        """Raw and zero-padded."""
        return padded(digest)

    def collect(self, report_data: bytes, *, timeout: float) -> CollectedEvidence:
        """See EvidenceSource. Needs root and a writable configfs; a throttled kernel may hold the read for a minute."""
        require_report_data(report_data)
        return within(NAME, timeout, lambda: self._collect(report_data))

    def _collect(self, report_data: bytes) -> CollectedEvidence:
        for _ in range(ATTEMPTS):
            with self._entry() as entry:
                blobs = self._generate(entry, report_data)
            if blobs is not None:
                return self._evidence(report_data, *blobs)
        raise EvidenceError(
            NAME, Code.RACED, f"generation changed under us {ATTEMPTS} times: something else writes to our entry"
        )

    @contextmanager
    def _entry(self) -> Iterator[str]:
        entry = f"{self._path}/morphisms-{os.urandom(16).hex()}"
        try:
            os.mkdir(entry, 0o700)
        except OSError as error:
            if error.errno in _ABSENT:
                raise EvidenceError(NAME, Code.NOT_THERE, f"{self._path} is not there") from None
            raise _translate(error, "making an entry") from None
        try:
            yield entry
        finally:
            # rmdir alone: attributes cannot be unlinked, they go with their item.
            with suppress(FileNotFoundError):
                _remove(entry)

    def _generate(self, entry: str, report_data: bytes) -> tuple[bytes, bytes] | None:
        """outblob and auxblob, or None when the generation shows another process's write."""
        provider = _read_text(entry, "provider")
        if provider != PROVIDER:
            raise EvidenceError(NAME, Code.WRONG_PROVIDER, f"provider is {provider[:32]!r}, required {PROVIDER!r}")
        expected = _read_number(entry, "generation")
        # A guest under an SVSM (VMPL 2, say) has a floor, and firmware refuses anything below it.
        level = max(self._vmpl, _read_number(entry, "privlevel_floor"))
        _write(entry, "privlevel", str(level).encode())
        _write(entry, "inblob", report_data)
        outblob = _read(entry, "outblob", REPORT_SIZE)
        auxblob = _read(entry, "auxblob", MAX_TABLE_SIZE)
        return (outblob, auxblob) if _read_number(entry, "generation") == expected + 2 else None

    def _evidence(self, report_data: bytes, outblob: bytes, auxblob: bytes) -> CollectedEvidence:
        try:
            table = parse_certificate_table(auxblob)
        except FormatError as error:
            raise EvidenceError(NAME, Code.MALFORMED, str(error)) from None
        return accept(NAME, report_data, outblob, table)


def _remove(entry: str) -> None:
    try:
        os.rmdir(entry)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _translate(error, "removing the entry") from None


def _read(entry: str, attribute: str, limit: int) -> bytes:
    """The whole attribute. Raises EvidenceError, TOO_LARGE beyond `limit` bytes."""
    try:
        descriptor = os.open(f"{entry}/{attribute}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = b""
            while chunk := os.read(descriptor, limit + 1 - len(data)):
                data += chunk
                if len(data) > limit:
                    raise EvidenceError(NAME, Code.TOO_LARGE, f"{attribute} has more than {limit} bytes")
            return data
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _translate(error, f"reading {attribute}") from None


def _read_text(entry: str, attribute: str) -> str:
    return _read(entry, attribute, _TEXT_LIMIT).decode("utf-8", "replace").strip()


def _read_number(entry: str, attribute: str) -> int:
    text = _read_text(entry, attribute)
    if not text.isascii() or not text.isdigit():
        raise EvidenceError(NAME, Code.MALFORMED, f"{attribute} is not a number")
    return int(text)


def _write(entry: str, attribute: str, data: bytes) -> None:
    """In one write(2), as configfs demands. A binary attribute takes effect on close, which loses its errors."""
    try:
        descriptor = os.open(f"{entry}/{attribute}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            written = os.write(descriptor, data)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _translate(error, f"writing {attribute}") from None
    if written != len(data):
        raise EvidenceError(NAME, Code.SHORT_ANSWER, f"{attribute} took {written} of {len(data)} bytes")


def _translate(error: OSError, doing: str) -> EvidenceError:
    name = errno.errorcode.get(error.errno or 0, type(error).__name__)
    if error.errno in _ABSENT:
        return EvidenceError(NAME, Code.VANISHED, f"{doing}: {name}, the entry is gone")
    if error.errno in (errno.EBUSY, errno.EAGAIN, errno.EINTR):
        return EvidenceError(NAME, Code.THROTTLED, f"{doing}: {name}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return EvidenceError(
            NAME, Code.PERMISSION_DENIED, f"{doing}: {name}; needs root and a configfs mounted read-write"
        )
    if error.errno == errno.EINVAL:
        return EvidenceError(NAME, Code.REFUSED, f"{doing}: {name}, firmware or driver refused the request")
    if error.errno in (errno.ETIMEDOUT, errno.ENOTTY):
        return EvidenceError(
            NAME, Code.DEVICE_DISABLED, f"{doing}: {name}, the driver gave its message key up; restart the guest"
        )
    return EvidenceError(NAME, Code.DEVICE_ERROR, f"{doing}: {name}")
