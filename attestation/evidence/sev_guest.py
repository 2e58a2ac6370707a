"""`sev-guest`: the ioctl interface of /dev/sev-guest.

include/uapi/linux/sev-guest.h and Documentation/virt/coco/sev-guest.rst; the certificates of the extended report come
from the host as a GHCB certificate table (AMD 56421, SNP Extended Guest Request).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from array import array
from collections.abc import Callable
from typing import NamedTuple

from attestation.errors import FormatError
from attestation.evidence.deadline import within
from attestation.evidence.errors import Code, EvidenceError
from attestation.evidence.source import CollectedEvidence, accept, require_report_data
from attestation.report.abi import REPORT_SIZE
from attestation.report.certificate_table import MAX_TABLE_SIZE
from attestation.report.envelopes import IOCTL_RESPONSE_SIZE, from_ioctl
from attestation.report.report_data import padded

NAME = "sev-guest"
DEFAULT_PATH = "/dev/sev-guest"

SNP_GET_EXT_REPORT = 0xC0205302  # _IOWR('S', 2, struct snp_guest_request_ioctl)
_REQUEST_IOCTL = struct.Struct("<B7xQQQ")  # snp_guest_request_ioctl: msg_version, req_data, resp_data, exitinfo2
_EXT_REPORT_REQ = struct.Struct("<64sI28xQI4x")  # snp_ext_report_req: user_data, vmpl, certs_address, certs_len
_RESPONSE_HEADER = struct.Struct("<II")  # MSG_REPORT_RSP: status, report_size
_MESSAGE_VERSION = 1
_PAGE = 4096
# Upper half of exitinfo2.
VMM_ERR_INVALID_LEN = 1
VMM_ERR_BUSY = 2
_TRIES = 3  # full buffer, the size that the host requires, none at all

# (descriptor, request, argument changed in place) -> return value; raises OSError. fcntl.ioctl is one.
Ioctl = Callable[[int, int, bytearray], int]


class _Answer(NamedTuple):
    """One exchange: `errno` 0 for success; `certs_len` is what the kernel left there, in bytes."""

    errno: int
    exitinfo2: int
    certs_len: int
    response: bytes
    certificates: bytes

    @property
    def vmm_error(self) -> int:
        return self.exitinfo2 >> 32

    @property
    def firmware_error(self) -> int:
        return self.exitinfo2 & 0xFFFFFFFF


class SevGuest:
    """`path` is the device. `vmpl` is what the report says; firmware refuses one below the guest's own."""

    name = NAME

    def __init__(self, path: str = DEFAULT_PATH, *, vmpl: int = 0, ioctl: Ioctl = fcntl.ioctl) -> None:
        if not path.startswith("/"):
            raise EvidenceError(NAME, Code.BAD_ADDRESS, f"address is not an absolute path, such as {DEFAULT_PATH}")
        self._path, self._vmpl, self._ioctl = path, vmpl, ioctl

    def report_data(self, digest: bytes) -> bytes:
        """Raw and zero-padded."""
        return padded(digest)

    def collect(self, report_data: bytes, *, timeout: float) -> CollectedEvidence:
        """See EvidenceSource. The driver itself waits up to a minute for a throttling hypervisor."""
        require_report_data(report_data)
        return within(NAME, timeout, lambda: self._collect(report_data))

    def _collect(self, report_data: bytes) -> CollectedEvidence:
        try:
            device = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise self._not_opened(error) from None
        try:
            answer = self._request(device, report_data)
        finally:
            os.close(device)
        status, size = _RESPONSE_HEADER.unpack_from(answer.response)
        if status != 0:
            raise EvidenceError(NAME, Code.REFUSED, f"firmware answered status 0x{status:x} for VMPL {self._vmpl}")
        if size != REPORT_SIZE:
            raise EvidenceError(NAME, Code.WRONG_LENGTH, f"report has {size} bytes, required {REPORT_SIZE}")
        try:
            found = from_ioctl(answer.response, answer.certificates)
        except FormatError as error:
            raise EvidenceError(NAME, Code.MALFORMED, str(error)) from None
        return accept(NAME, report_data, found.report.raw, found.certificates)

    def _not_opened(self, error: OSError) -> EvidenceError:
        name = errno.errorcode.get(error.errno or 0, type(error).__name__)
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.ENODEV):
            return EvidenceError(NAME, Code.NOT_THERE, f"{self._path} is not there ({name})")
        if error.errno in (errno.EACCES, errno.EPERM):
            return EvidenceError(
                NAME,
                Code.PERMISSION_DENIED,
                f"{self._path} may not be opened ({name}); a container also needs it in its device cgroup",
            )
        if error.errno == errno.EBUSY:
            return EvidenceError(NAME, Code.THROTTLED, f"{self._path} is busy")
        return EvidenceError(NAME, Code.DEVICE_ERROR, f"{self._path}: {name}")

    def _request(self, device: int, report_data: bytes) -> _Answer:
        """A good answer, with certificates where the host has any that fit."""
        # All the kernel takes at once: to ask for the size first would cost a second trip to throttled firmware.
        certs_len = MAX_TABLE_SIZE
        for _ in range(_TRIES):
            answer = self._exchange(device, report_data, certs_len)
            if answer.errno == 0 and answer.exitinfo2 == 0:
                return answer
            if answer.vmm_error != VMM_ERR_INVALID_LEN:
                raise self._refusal(answer)
            fits = certs_len < answer.certs_len <= MAX_TABLE_SIZE and answer.certs_len % _PAGE == 0
            # A host whose certificates do not fit can still be attested: the verifier has other places to look.
            certs_len = answer.certs_len if fits else 0
        raise EvidenceError(NAME, Code.DEVICE_ERROR, "driver finds the certificate buffer wrong at any size")

    def _exchange(self, device: int, report_data: bytes, certs_len: int) -> _Answer:
        certificates = array("B", bytes(certs_len + _PAGE))
        start = -certificates.buffer_info()[0] % _PAGE if certs_len else 0
        certs_address = certificates.buffer_info()[0] + start if certs_len else 0
        request = array("B", _EXT_REPORT_REQ.pack(report_data, self._vmpl, certs_address, certs_len))
        response = array("B", bytes(IOCTL_RESPONSE_SIZE))
        argument = bytearray(
            _REQUEST_IOCTL.pack(_MESSAGE_VERSION, request.buffer_info()[0], response.buffer_info()[0], 0)
        )
        number = 0
        try:
            self._ioctl(device, SNP_GET_EXT_REPORT, argument)
        except OSError as error:
            number = error.errno or errno.EIO
        return _Answer(
            errno=number,
            exitinfo2=_REQUEST_IOCTL.unpack(argument)[3],
            certs_len=_EXT_REPORT_REQ.unpack(request.tobytes())[3],
            response=response.tobytes(),
            certificates=certificates.tobytes()[start : start + certs_len],
        )

    def _refusal(self, answer: _Answer) -> EvidenceError:
        name = errno.errorcode.get(answer.errno, "no error")
        said = f"ioctl: {name}, firmware error 0x{answer.firmware_error:x}, hypervisor error {answer.vmm_error}"
        if answer.vmm_error == VMM_ERR_BUSY or answer.errno in (errno.EAGAIN, errno.EBUSY, errno.EINTR):
            return EvidenceError(NAME, Code.THROTTLED, f"{said}: the hypervisor throttles requests")
        if answer.errno in (errno.ETIMEDOUT, errno.ENOTTY):
            return EvidenceError(
                NAME,
                Code.DEVICE_DISABLED,
                f"{said}: no sev-guest device, or the driver gave its message key up; restart the guest",
            )
        if answer.errno == errno.ENODEV:
            return EvidenceError(NAME, Code.VANISHED, f"{said}: the device went away")
        if answer.errno == errno.EINVAL or answer.firmware_error:
            return EvidenceError(NAME, Code.REFUSED, said)
        return EvidenceError(NAME, Code.DEVICE_ERROR, said)
