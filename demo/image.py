"""What stands for the two container images: files of this machine, laid out as an image would have them.

A real sidecar image holds an interpreter, `sidecar/`, what it imports of ours and the exec helper; so does this one.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.process import ROOT, run
from demo.transcript import UnexpectedError

_HERE = Path(__file__).parent
_HELPER = "/usr/libexec/morphisms/exec"
_NO_HELPER = "#!/bin/sh\necho 'morphisms-exec: was not built on this machine' >&2\nexit 126\n"


@dataclass(frozen=True)
class Image:
    """`files`: path in the image → path on this machine. `user` is the image's own, and its group's number too."""

    entrypoint: tuple[str, ...]
    user: int
    files: dict[str, str]

    @property
    def is_open(self) -> bool:
        """Whether other users than the owner may read it: of a checkout made with a strict umask they may not."""
        modes = [(path.is_dir(), path.stat().st_mode) for path in map(Path, self.files.values())]
        return all(mode & 0o005 == 0o005 if is_folder else mode & 0o004 for is_folder, mode in modes)

    def as_dict(self) -> dict[str, Any]:
        return {"entrypoint": list(self.entrypoint), "user": self.user, "files": self.files}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Image:
        return cls(tuple(values["entrypoint"]), values["user"], values["files"])


def sidecar_image(helper: Path) -> Image:
    """`morphisms-init`, run by the interpreter that runs the demo."""
    files = _system() | _interpreter()
    files |= {str(ROOT / name): str(ROOT / name) for name in ("sidecar", "attestation", "plan", "kbs", "logline")}
    return Image((sys.executable, "-m", "sidecar.main"), 65532, {**files, _HELPER: str(helper)})


def application_image() -> Image:
    """A shell script."""
    return Image((), 10001, {**_system(), "/app/payments": str(_HERE / "payments.sh")})


def build_helper(folder: Path) -> Path | None:
    """The exec helper, compiled now; None where there is no C compiler. Raises UnexpectedError."""
    if not all(shutil.which(tool) for tool in ("cc", "make", "readelf")):
        return None
    made = run(["make", "--silent", "-C", str(ROOT / "sidecar" / "exec"), f"BUILD={folder}"])
    if made.returncode != 0:
        raise UnexpectedError(f"the exec helper cannot be built: {made.stderr.strip()}")
    helper = folder / "exec"
    helper.chmod(0o755)
    return helper


def missing_helper(folder: Path) -> Path:
    """In its place: a program that says so."""
    path = folder / "exec"
    path.write_text(_NO_HELPER)
    path.chmod(0o755)
    return path


def _system() -> dict[str, str]:
    """Programs and libraries of this machine. /usr/libexec is the image's own."""
    folders = [path for path in Path("/usr").iterdir() if path.name != "libexec"]
    folders += [Path("/", name) for name in ("bin", "sbin", "lib", "lib32", "lib64", "etc", "nix")]
    return {str(path): str(path) for path in sorted(folders) if path.exists()}


def _interpreter() -> dict[str, str]:
    """The folders of this Python that are not below /usr; each by itself, so that its parent's mode does not matter."""
    prefixes = {Path(prefix) for prefix in (sys.prefix, sys.base_prefix) if not Path(prefix).is_relative_to("/usr")}
    return {str(path): str(path) for prefix in sorted(prefixes) for path in sorted(prefix.iterdir())}
