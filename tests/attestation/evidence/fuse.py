"""A Tsm as a real mounted file system: /dev/fuse spoken directly (include/uapi/linux/fuse.h), as far as needed."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_IFDIR, S_IFREG

from tests.attestation.evidence.tsm import ATTRIBUTES, Tsm, fail

LOOKUP, FORGET, GETATTR, SETATTR, MKDIR, RMDIR, OPEN, READ, WRITE = 1, 2, 3, 4, 9, 11, 14, 15, 16
RELEASE, FLUSH, INIT, INTERRUPT, BATCH_FORGET = 18, 25, 26, 36, 42
NO_REPLY = {FORGET, BATCH_FORGET, INTERRUPT}
FOPEN_DIRECT_IO = 1  # every read(2) comes to us, none is answered from a page cache
MNT_FORCE, MNT_DETACH, MS_NOSUID, MS_NODEV = 1, 2, 2, 4
_HEADER = struct.Struct("<IIQQIIII")
_ROOT = 1

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Handle:
    """struct configfs_buffer: read once per open file, written on close."""

    item: str
    attribute: str
    data: bytes | None = None
    written: bytes | None = None


class Mount:
    """Answers the kernel until the file system is gone."""

    def __init__(self, tsm: Tsm, device: int) -> None:
        self._tsm, self._device = tsm, device
        self._nodes: dict[int, tuple[str, ...]] = {_ROOT: ()}
        self._handles: dict[int, Handle] = {}
        self._next = 2

    def serve(self) -> None:
        while True:
            try:
                message = os.read(self._device, 256 * 1024)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue
                return  # ENODEV: unmounted
            _, operation, unique, node, *_ = _HEADER.unpack_from(message)
            try:
                number, body = 0, self._answer(operation, node, message[_HEADER.size :])
            except OSError as error:
                number, body = -(error.errno or errno.EIO), b""
            except KeyError:
                number, body = -errno.ENOENT, b""
            if operation not in NO_REPLY:
                with suppress(FileNotFoundError):  # the caller was interrupted meanwhile
                    os.write(self._device, struct.pack("<IiQ", 16 + len(body), number, unique) + body)

    def _answer(self, operation: int, node: int, body: bytes) -> bytes:
        if operation == INIT:
            return struct.pack("<IIIIHHIIHHI28x", 7, 31, 65536, 0, 8, 8, 65536, 1, 0, 0, 0)
        if operation in NO_REPLY:
            return b""
        if operation in (GETATTR, SETATTR):
            return struct.pack("<QII", 0, 0, 0) + self._attributes(node)
        if operation in (LOOKUP, MKDIR):
            name = body[8 if operation == MKDIR else 0 :].rstrip(b"\0").decode()
            if operation == MKDIR:
                self._tsm.mkdir(name)
            return self._entry((*self._nodes[node], name))
        if operation == RMDIR:
            self._tsm.rmdir(body.rstrip(b"\0").decode())
            return b""
        if operation == OPEN:
            item, attribute = self._nodes[node]
            self._tsm.item(item)
            self._next += 1
            self._handles[self._next] = Handle(item, attribute)
            return struct.pack("<QII", self._next, FOPEN_DIRECT_IO, 0)
        if operation in (READ, WRITE, FLUSH, RELEASE):
            return self._file(operation, body)
        raise fail(errno.ENOSYS)

    def _file(self, operation: int, body: bytes) -> bytes:
        (number,) = struct.unpack_from("<Q", body)
        handle = self._handles[number]
        if operation == READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            if handle.data is None:
                handle.data = self._tsm.read(handle.item, handle.attribute)
            return handle.data[offset : offset + size]
        if operation == WRITE:
            data = body[40:]
            if handle.attribute == "inblob":
                handle.written = (handle.written or b"") + data
            else:
                self._tsm.store_text(handle.item, handle.attribute, data)
            return struct.pack("<II", len(data), 0)
        if operation == RELEASE:
            del self._handles[number]
            return b""
        # configfs stores on release; FUSE tells us of that too late, but of close(2) in time.
        written, handle.written = handle.written, None
        if written is not None:
            with suppress(OSError):
                self._tsm.store_blob(handle.item, written)
        return b""

    def _entry(self, path: tuple[str, ...]) -> bytes:
        self._tsm.item(path[0])
        if len(path) > 2 or (len(path) == 2 and path[1] not in ATTRIBUTES):
            raise fail(errno.ENOENT)
        self._next += 1
        self._nodes[self._next] = path
        return struct.pack("<QQQQII", self._next, 0, 0, 0, 0, 0) + self._attributes(self._next)

    def _attributes(self, node: int) -> bytes:
        mode = S_IFREG | 0o600 if len(self._nodes[node]) == 2 else S_IFDIR | 0o700
        return struct.pack("<6Q10I", node, 4096, 0, 0, 0, 0, 0, 0, 0, mode, 1, os.getuid(), os.getgid(), 0, 4096, 0)


@contextmanager
def mounted(tsm: Tsm, path: Path) -> Iterator[Path]:
    """`tsm` at `path`. Raises PermissionError or FileNotFoundError where mounting FUSE is not possible."""
    path.mkdir()
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    if _libc.mount(b"tsm", bytes(path), b"fuse", MS_NOSUID | MS_NODEV, options.encode()) != 0:
        os.close(device)
        raise OSError(ctypes.get_errno(), "mount")
    thread = threading.Thread(target=Mount(tsm, device).serve, name="fuse", daemon=True)
    thread.start()
    try:
        yield path
    finally:
        _libc.umount2(bytes(path), MNT_FORCE | MNT_DETACH)
        thread.join(5)
        os.close(device)
