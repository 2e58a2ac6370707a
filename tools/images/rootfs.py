"""One image's root file system: interpreter, libraries, locked packages, our modules. No shell, no package manager.

    python -m tools.images.rootfs foundation sidecar FOLDER ENVIRONMENT
    python -m tools.images.rootfs own sidecar FOLDER ENVIRONMENT

The foundation depends on the image's lock alone, so an engine keeps its layer while our modules change. Two runs from
the same inputs give the same bytes: order, times and modes are fixed, and nothing holds a build path.
"""

from __future__ import annotations

import argparse
import compileall
import os
import py_compile
import shutil
import ssl
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tools.images.commands import run
from tools.images.imports import closure
from tools.images.libraries import needed, package_records
from tools.images.targets import PACKAGES, PYTHON, TARGETS, Target

SOURCE = Path(__file__).parents[2]

# Of the standard library: development, graphics, terminals, databases, other protocols, and its obsolete modules.
# fmt: off
_UNUSED = frozenset((
    "__hello__", "__phello__", "_bootsubprocess", "_crypt", "_ctypes_test", "_curses", "_curses_panel", "_dbm", "_gdbm",
    "_lsprof", "_pyio", "_sqlite3", "_tkinter", "_xxsubinterpreters", "_xxtestfuzz", "antigravity", "asynchat",
    "asyncore", "audioop", "bdb", "cProfile", "cgi", "cgitb", "code", "codeop", "compileall", "crypt", "curses", "dbm",
    "dist-packages", "distutils", "doctest", "ensurepip", "ftplib", "idlelib", "imaplib", "imghdr", "lib2to3",
    "mailbox", "modulefinder", "nis", "nntplib", "ossaudiodev", "pdb", "pipes", "poplib", "profile", "pstats", "pty",
    "pyclbr", "pydoc_data", "readline", "rlcompleter", "shelve", "site-packages", "smtpd", "smtplib", "spwd",
    "sqlite3", "sunau", "tabnanny", "telnetlib", "test", "this", "tkinter", "trace", "turtle", "turtledemo",
    "unittest", "venv", "wave", "webbrowser", "xdrlib", "xmlrpc", "xxlimited", "xxlimited_35", "zipapp",
))
# fmt: on
_UNUSED_PREFIXES = ("_test", "config-")

_ETC = {
    "passwd": "root:x:0:0:root:/:/nonexistent\nnonroot:x:65532:65532:nonroot:/nonexistent:/nonexistent\n",
    "group": "root:x:0:\nnonroot:x:65532:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def lay_foundation(target: Target, root: Path, environment: Path) -> None:
    """All that our sources do not change. Fills `root` and `environment`, neither of which may exist."""
    root.mkdir(parents=True)
    for link, folder in (("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")):
        (root / folder).mkdir(parents=True)
        (root / link).symlink_to(folder)
    (root / "tmp").mkdir()  # a place to mount a volume on
    _install(target, environment)
    _add_packages(environment, root)
    _add_interpreter(root)
    _add_libraries(root)
    _add_certificates(root)
    for name, text in _ETC.items():
        _write(root / "etc" / name, text)
    _compile(root, "usr/lib/" + PYTHON, PACKAGES)
    _settle(root, _epoch())


def add_own(target: Target, root: Path, environment: Path) -> None:
    """Our modules, and what describes this version of them. `environment` is the foundation's."""
    _add_bill_of_materials(target, environment, root)
    if target.exec_helper:
        _add_helper(root)
    _add_our_modules(target, root)
    _add_build_time(root)
    _write(root / target.entrypoint, target.launcher, executable=True)
    _compile(root, PACKAGES)
    _settle(root, _epoch())


def _epoch() -> int:
    """Unix seconds that the files of the image carry: of the commit that they are built from."""
    return int(os.environ.get("SOURCE_DATE_EPOCH", "0"))


def _install(target: Target, environment: Path) -> None:
    """A virtual environment of the locked packages and nothing else, not even pip."""
    run(sys.executable, "-m", "venv", "--without-pip", str(environment))
    run(
        *(sys.executable, "-m", "pip", "--python", str(environment), "install", "--quiet", "--no-compile"),
        *("--disable-pip-version-check", "--require-hashes", "--only-binary", ":all:"),
        *("--requirement", str(SOURCE / target.requirements)),
    )


def _add_packages(environment: Path, root: Path) -> None:
    packages = root / PACKAGES.lstrip("/")
    shutil.copytree(environment / "lib" / PYTHON / "site-packages", packages)
    for record in packages.glob("*.dist-info/RECORD"):
        # Commands are left out; their checksums would reveal the folder they were installed in.
        lines = [line for line in record.read_text().splitlines(keepends=True) if not line.startswith("../")]
        record.write_text("".join(lines))


def _add_bill_of_materials(target: Target, environment: Path, root: Path) -> None:
    file = root / "usr/share/sbom" / f"morphisms-{target.name}.cdx.json"
    file.parent.mkdir(parents=True)
    run(
        *(sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--output-format", "JSON"),
        *("--pyproject", str(SOURCE / "pyproject.toml"), "--output-file", str(file)),
        str(environment / "bin" / "python"),
    )


def _add_helper(root: Path) -> None:
    helper = root / "usr/libexec/morphisms/exec"
    helper.parent.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        run("make", "--silent", "-C", str(SOURCE / "sidecar/exec"), f"BUILD={scratch}/helper")
        shutil.copyfile(f"{scratch}/helper/exec", helper)
    helper.chmod(0o755)


def _add_interpreter(root: Path) -> None:
    shutil.copyfile(Path(sys.base_prefix) / "bin" / PYTHON, root / "usr/bin" / PYTHON)
    (root / "usr/bin" / PYTHON).chmod(0o755)
    library = root / "usr/lib" / PYTHON
    shutil.copytree(sysconfig.get_path("stdlib"), library, ignore=_unused, ignore_dangling_symlinks=True)
    run("strip", "--strip-unneeded", str(root / "usr/bin" / PYTHON), *map(str, _extensions(library)))


def _unused(folder: str, names: list[str]) -> set[str]:
    """By name at the top only: inside a package the same name may be something else."""
    unused = {name for name in names if name in ("__pycache__", "test", "tests")}
    if folder == sysconfig.get_path("stdlib") or Path(folder).name == "lib-dynload":
        unused |= {name for name in names if name.split(".")[0] in _UNUSED or name.startswith(_UNUSED_PREFIXES)}
    return unused


def _add_our_modules(target: Target, root: Path) -> None:
    for file in _with_texts(closure(SOURCE, target.modules)):
        copy = root / PACKAGES.lstrip("/") / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(SOURCE / file, copy)


def _with_texts(modules: list[Path]) -> Iterator[Path]:
    """The modules, and the rules texts that lie beside a package's `__init__.py`."""
    for file in modules:
        yield file
        if file.name == "__init__.py":
            yield from (text.relative_to(SOURCE) for text in sorted((SOURCE / file).parent.glob("*.rego")))


def _add_build_time(root: Path) -> None:
    """For the verifier, whose clock is never before it (attestation/verifier/clock.py)."""
    folder = root / PACKAGES.lstrip("/") / "attestation" / "verifier"
    if folder.exists():
        _write(folder / "built", f"{_epoch()}\n")


def _add_libraries(root: Path) -> None:
    """All in the one folder that the loader looks into without a cache."""
    libraries = needed([root / "usr/bin" / PYTHON, *_extensions(root)])
    folder = root / "usr/lib" / libraries["libc.so.6"].parent.name
    folder.mkdir()
    outside = {name: path for name, path in libraries.items() if not path.is_relative_to(root)}
    for name, path in outside.items():
        copy = root / name.lstrip("/") if name.startswith("/") else folder / name
        shutil.copyfile(path, copy)
        copy.chmod(0o755)
        if path.is_relative_to(sys.base_prefix) and path.name.startswith("libpython"):
            run("strip", "--strip-unneeded", str(copy))
    for package, record in package_records(outside.values()).items():
        _write(root / "var/lib/dpkg/status.d" / package, record)


def _extensions(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.so*") if path.is_file() and not path.is_symlink())


def _add_certificates(root: Path) -> None:
    """The public authorities as Debian packages them: what an operator added to the building machine stays out."""
    authorities = sorted(Path("/usr/share/ca-certificates/mozilla").glob("*.crt"))
    if not authorities:
        raise FileNotFoundError("install ca-certificates: the images carry its authorities")
    place = ssl.get_default_verify_paths().openssl_cafile
    _write(root / place.lstrip("/"), "".join(file.read_text() for file in authorities))


def _compile(root: Path, *folders: str) -> None:
    """Compile ahead, because the root is read-only; unchecked at run time, because the image cannot change."""
    for folder in (root / name.lstrip("/") for name in folders):
        compiled = compileall.compile_dir(
            folder,
            quiet=1,
            stripdir=str(root),
            prependdir="/",
            maxlevels=32,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        if not compiled:
            raise SyntaxError(f"not everything below {folder} could be compiled")


def _settle(root: Path, epoch: int) -> None:
    """Modes and times of everything, children before their folders."""
    for path in sorted(root.rglob("*"), reverse=True):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or _is_program(path) else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)
    if (temporary := root / "tmp").exists():
        temporary.chmod(0o1777)
    root.chmod(0o755)
    os.utime(root, (epoch, epoch))


def _is_program(file: Path) -> bool:
    """An interpreter, a launcher, or the loader and its libraries; a module that happens to be marked is not."""
    return bool(file.stat().st_mode & 0o100) and (".so" in file.name or file.parent.name in ("bin", "morphisms"))


def _write(file: Path, text: str, *, executable: bool = False) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755 if executable else 0o644)


_PARTS: Mapping[str, Callable[[Target, Path, Path], None]] = {"foundation": lay_foundation, "own": add_own}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tools.images.rootfs", description="Assemble an image's files.")
    parser.add_argument("part", choices=_PARTS)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("folder", type=Path, help="what the part adds to")
    parser.add_argument("environment", type=Path, help="the locked packages; made with the foundation")
    arguments = parser.parse_args()
    part = _PARTS[arguments.part]
    part(TARGETS[arguments.target], arguments.folder.absolute(), arguments.environment.absolute())


if __name__ == "__main__":
    main()
