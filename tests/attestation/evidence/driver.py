"""The kernel's side of /dev/sev-guest: what drivers/virt/coco/sev-guest/sev-guest.c does with an ioctl's memory."""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

SNP_GET_EXT_REPORT = 0xC0205302
PAGE, BLOB_MAX = 4096, 0x4000
INVALID_LEN, BUSY = 1 << 32, 2 << 32


@dataclass(frozen=True)
class Refusal:
    """What the ioctl returns, and what it leaves in exitinfo2. A `code` of 0 is success with an error in exitinfo2."""

    code: int
    exitinfo2: int = 0


@dataclass
class Request:
    """One ioctl, as the driver read it."""

    user_data: bytes
    vmpl: int
    certs_len: int
    aligned: bool


@dataclass
class SevGuestDriver:
    """An ioctl function. `answer`: (REPORT_DATA, VMPL) -> 4,000 bytes of snp_report_resp. `refusals` come first."""

    answer: Callable[[bytes, int], bytes]
    certificates: bytes = b""
    refusals: Sequence[Refusal] = ()
    needed: int | None = None
    requests: list[Request] = field(default_factory=list)

    def __call__(self, descriptor: int, request: int, argument: bytearray) -> int:
        assert request == SNP_GET_EXT_REPORT
        assert len(argument) == 32
        version, req_data, resp_data, _ = struct.unpack("<B7xQQQ", argument)
        if version == 0 or not req_data or not resp_data:
            raise OSError(errno.EINVAL, "")
        raw = ctypes.string_at(req_data, 112)
        user_data, vmpl, reserved, address, certs_len = struct.unpack("<64sI28sQI4x", raw)
        assert not any(reserved)
        self.requests.append(Request(user_data, vmpl, certs_len, address % PAGE == 0))
        if certs_len > BLOB_MAX or certs_len % PAGE:
            raise OSError(errno.EINVAL, "")
        if len(self.requests) <= len(self.refusals):
            self._refuse(self.refusals[len(self.requests) - 1], argument)
            return 0
        needed = -(-len(self.certificates) // PAGE) * PAGE if self.needed is None else self.needed
        if certs_len and needed > certs_len:
            ctypes.memmove(req_data + 104, struct.pack("<I", needed), 4)
            self._refuse(Refusal(errno.EIO, INVALID_LEN), argument)
        if certs_len:
            ctypes.memmove(address, self.certificates.ljust(certs_len, b"\0"), certs_len)
        ctypes.memmove(resp_data, self.answer(user_data, vmpl), 4000)
        return 0

    def _refuse(self, refusal: Refusal, argument: bytearray) -> None:
        struct.pack_into("<Q", argument, 24, refusal.exitinfo2)
        if refusal.code:
            raise OSError(refusal.code, "")


def snp_report_resp(report: bytes, *, status: int = 0, size: int | None = None) -> bytes:
    """MSG_REPORT_RSP in its 4,000 bytes."""
    return (struct.pack("<II24x", status, len(report) if size is None else size) + report).ljust(4000, b"\0")
