"""A memory volume whose content changes as one folder, without a link that a consumer would have to follow.

    ..2026_01_31_12_00_00.123456789/   the files, complete before anything shows them
    NAME                               each first part of a path: hard links to those files, one rename for each NAME
    ..data/                            that folder itself, put in place of the former one by one exchange, last of all

In a Kata guest the volume's root is a tmpfs of mode 1777 that root owns. There the kernel follows a link for its owner
alone (fs.protected_symlinks, on by default), and the application has another user than `morphisms-init`. Therefore the
root holds folders and files only. Everything that rotates together is in `..data`, and an event for `..data` arrives
after every NAME is new, so programs that watch mounted Secrets (on `..data`) work unchanged.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sidecar.errors import SidecarError
from sidecar.publish.render import File
from sidecar.reasons import Reason

# Half of the volumes' default size (`secretsSizeLimit`, `runSizeLimit`): a change is written beside what it replaces.
# Without this bound, secrets that fit once but not twice would fail at their first rotation.
MAX_SECRETS_BYTES: Final = 8 * 1024 * 1024
MAX_RUN_BYTES: Final = 2 * 1024 * 1024
_PAGE: Final = 4096  # a memory volume stores each file in whole pages
READY: Final = "ready"
HELPER: Final = "exec"
DATA: Final = "..data"
_NEXT: Final = "..next"
_AT_FDCWD: Final = -100  # linux/fcntl.h
_RENAME_EXCHANGE: Final = 2  # linux/fs.h
# The group may read: it is the pod's fsGroup, by the volume's set-group-id bit. Others may not.
_UMASK: Final = 0o027


class Volume:
    """One memory volume. `limit` bounds what is written, because Kata does not enforce `sizeLimit`."""

    def __init__(self, root: Path, limit: int) -> None:
        self._root = root
        self._limit = limit
        self._aside: Path | None = None

    def check(self, files: Mapping[str, File]) -> None:
        """Raises SidecarError when the files exceed the limit."""
        size = sum(-(-len(file.content) // _PAGE) * _PAGE for file in files.values())
        if size > self._limit:
            raise SidecarError(
                Reason.TOO_LARGE, f"{size} bytes for {self._root}, at most {self._limit} are published there"
            )

    def changed_files(self, files: Mapping[str, File]) -> set[str]:
        """Names of files whose published content or mode differs. Raises OSError."""
        folder = self._root / DATA
        if not folder.is_dir():
            return set(files)
        shown = {
            os.path.relpath(os.path.join(parent, name), folder)
            for parent, _, names in os.walk(folder)
            for name in names
        }
        return (shown ^ files.keys()) | {
            name
            for name in shown & files.keys()
            # A process that was killed may have placed some names and not exchanged the folder.
            if not _is(folder / name, files[name]) or not _is_same(folder / name, self._root / name)
        }

    def write_aside(self, files: Mapping[str, File]) -> None:
        """Write everything to a folder that no link shows yet. Raises OSError."""
        now = time.time_ns()
        stamp = time.strftime("..%Y_%m_%d_%H_%M_%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}"
        self._aside = self._root / stamp
        self._aside.mkdir(0o750)
        for name, file in files.items():
            target = self._aside / name
            target.parent.mkdir(0o750, parents=True, exist_ok=True)
            _write(target, file)

    def switch(self) -> None:
        """Show what was written aside: each name at once, then the folder of all of them at once. Raises OSError."""
        if self._aside is None:
            raise ValueError("nothing was written aside")
        aside, data = self._aside, self._root / DATA
        names = {each.name for each in aside.iterdir()}
        is_first = not data.is_dir()
        former = set() if is_first else {each.name for each in data.iterdir()}
        for name in names - former:
            taken = os.path.lexists(self._root / name)
            # The container's hook may have put the exec helper there already.
            if taken and not (name == HELPER and _is_copy(self._root / name, aside / name)):
                raise FileExistsError(errno.EEXIST, "not made by morphisms-init", str(self._root / name))
        self._aside = None
        if is_first:
            # Before the names: where there is no folder yet, a name is not ours, whatever was killed before.
            _put(aside, data)
        for name in names:
            _link((data if is_first else aside) / name, self._root / _NEXT)
            _put(self._root / _NEXT, self._root / name)
        if not is_first:
            _put(aside, data)
        for name in former - names:
            if os.path.lexists(self._root / name):
                _remove(self._root / name)

    def discard(self) -> None:
        """Remove what was written aside and not shown. Never raises."""
        if self._aside is not None:
            aside, self._aside = self._aside, None
            with contextlib.suppress(OSError):
                _remove(aside)

    def sweep(self) -> None:
        """Remove what a process that was killed has left behind. Raises OSError."""
        for entry in self._root.iterdir():
            if entry.name.startswith("..") and entry.name != DATA:
                _remove(entry)


def publish(
    secrets_root: Path, secrets: Mapping[str, File], run_root: Path, run: Mapping[str, File]
) -> tuple[set[str], set[str]]:
    """Both volumes, then `ready`; nothing becomes visible before all of it is written. Raises SidecarError.

    What a volume already shows is not written again. The answer is the names that are new or changed, by volume.
    """
    volumes = [
        (Volume(secrets_root, MAX_SECRETS_BYTES), secrets),
        (Volume(run_root, MAX_RUN_BYTES), run),
    ]
    for volume, content in volumes:
        volume.check(content)
    ready = run_root / READY
    previous = os.umask(_UMASK)
    try:
        changes = [volume.changed_files(content) for volume, content in volumes]
        changed = [both for both, names in zip(volumes, changes, strict=True) if names or not ready.exists()]
        for volume, _ in volumes:
            volume.sweep()
        for volume, content in changed:
            volume.write_aside(content)
        if changed:
            # Last of all: a process killed while it writes aside leaves what was there, and leaves it usable.
            ready.unlink(missing_ok=True)
            for volume, _ in changed:
                volume.switch()
            ready.touch(0o440)
    except OSError as error:
        raise _translated(error) from None
    finally:
        os.umask(previous)
        for volume, _ in volumes:
            volume.discard()
    return changes[0], changes[1]


def read_helper(path: Path) -> File:
    """The exec helper, as the image carries it. Raises SidecarError."""
    try:
        return File(path.read_bytes(), 0o550)
    except OSError as error:
        raise SidecarError(
            Reason.HELPER, f"the image has no readable exec helper at {path}: {error.strerror}"
        ) from None


def _write(target: Path, file: File) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    # Closed before anything is renamed: Linux does not run a program that is open for writing.
    with open(descriptor, "wb") as opened:
        opened.write(file.content)
        opened.flush()
        os.fchmod(descriptor, file.mode)


def _is(path: Path, file: File) -> bool:
    return stat.S_IMODE(path.stat().st_mode) == file.mode and path.read_bytes() == file.content


def _is_same(one: Path, other: Path) -> bool:
    """Whether the two are names of one file, and neither is a link."""
    try:
        return os.path.samestat(one.lstat(), other.lstat())
    except (FileNotFoundError, NotADirectoryError):
        return False


def _is_copy(one: Path, other: Path) -> bool:
    """Whether `one` is a regular file like `other`: the same content and mode."""
    status, wanted = one.lstat(), other.lstat()
    return status.st_mode == wanted.st_mode and one.read_bytes() == other.read_bytes()


def _link(source: Path, target: Path) -> None:
    """The same files under another name: a hard link, or a folder of hard links."""
    if source.is_dir():
        target.mkdir(0o750)
        for each in source.iterdir():
            _link(each, target / each.name)
    else:
        os.link(source, target)


def _put(new: Path, target: Path) -> None:
    """`new` in place of `target` in one step; what was there is removed. Raises OSError."""
    if os.path.lexists(target):
        libc = ctypes.CDLL(None, use_errno=True)
        # Unlike rename(2), an exchange takes folders that are not empty.
        if libc.renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(target), _RENAME_EXCHANGE) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(target))
        _remove(new)
    else:
        new.rename(target)


def _remove(entry: Path) -> None:
    import shutil

    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink()


def _translated(error: OSError) -> SidecarError:
    name = errno.errorcode.get(error.errno or 0, type(error).__name__)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return SidecarError(Reason.DISK_FULL, f"no room in the memory volume: {error.filename} ({name})")
    return SidecarError(Reason.VOLUME, f"cannot publish at {error.filename}: {error.strerror} ({name})")
