"""One container as a process: its root folder, environment, command and identity, from the pod's own fields."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo import mounts
from demo.image import Image
from demo.volumes import UnsupportedError, field_of

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TERMINATION_LOG = "dev/termination-log"
_VARIABLE = re.compile(r"\$(\$|\(([A-Za-z_.-][A-Za-z0-9_.-]*)\))")
_SHOWN_BYTES = 64 * 1024


@dataclass(frozen=True)
class Ended:
    """What a container left: exit code, termination message, output."""

    name: str
    exit_code: int
    message: str
    stdout: str = field(repr=False)
    stderr: str = field(repr=False)


@dataclass(frozen=True)
class Surroundings:
    """What all containers of a pod share. `maps_users`: other users' ids can be had here."""

    pod: dict[str, Any]
    volumes: Mapping[str, Path]
    devices: Mapping[str, str]
    maps_users: bool

    @property
    def security(self) -> dict[str, Any]:
        return self.pod["spec"].get("securityContext") or {}


class Container:
    """Running from construction on."""

    def __init__(self, spec: dict[str, Any], image: Image, folder: Path, around: Surroundings) -> None:
        self.name: str = spec["name"]
        self._folder = folder
        root = _make_root(spec, image, folder, around)
        self._enter = [_program("chroot"), str(root), *_identity(spec, image, around)]
        self._environment = environment(spec, around.pod)
        with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
            self.process = subprocess.Popen(  # noqa: S603 - what the pod says
                [*self._enter, *_command(spec, image)],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=self._environment,
            )

    def run(self, command: list[str], seconds: float) -> int:
        """Run another command in the container; its exit code. Raises subprocess.TimeoutExpired."""
        nothing = subprocess.DEVNULL
        done = subprocess.run(  # noqa: S603 - what the pod says
            [*self._enter, *command],
            stdin=nothing,
            stdout=nothing,
            stderr=nothing,
            env=self._environment,
            timeout=seconds,
            check=False,
        )
        return done.returncode

    def wait(self, seconds: float) -> Ended:
        """Wait for it to exit. Raises subprocess.TimeoutExpired."""
        code = self.process.wait(seconds)
        texts = [_text(self._folder / name) for name in ("termination-log", "stdout", "stderr")]
        return Ended(self.name, code, *texts)

    def stop(self, grace_seconds: float) -> Ended:
        """SIGTERM, and SIGKILL when the grace period is over."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.wait(grace_seconds)


def environment(spec: dict[str, Any], pod: dict[str, Any]) -> dict[str, str]:
    """The image's PATH, then the container's `env` in order; `$(NAME)` means an earlier one, `$$` a `$`."""
    found = {"PATH": _PATH}
    for variable in spec.get("env") or ():
        if "valueFrom" in variable:
            reference = variable["valueFrom"].get("fieldRef")
            if reference is None:
                raise UnsupportedError(f"env {variable['name']} from anything but a field")
            found[variable["name"]] = field_of(pod, reference["fieldPath"])
        else:
            found[variable["name"]] = _expanded(variable.get("value", ""), found)
    return found


def _expanded(text: str, known: Mapping[str, str]) -> str:
    def replacement(match: re.Match[str]) -> str:
        return "$" if match[1] == "$" else known.get(match[2], match[0])

    return _VARIABLE.sub(replacement, text)


def _command(spec: dict[str, Any], image: Image) -> list[str]:
    """The pod's command instead of the image's entrypoint; its args behind either."""
    known = {each["name"]: each.get("value", "") for each in spec.get("env") or ()}
    words = [*(spec.get("command") or image.entrypoint), *(spec.get("args") or ())]
    return [_expanded(word, known) for word in words]


def _identity(spec: dict[str, Any], image: Image, around: Surroundings) -> list[str]:
    """setpriv(1) with the options of the security contexts, as far as this machine supports them."""
    own = spec.get("securityContext") or {}
    words = [_program("setpriv"), "--pdeathsig=KILL"]
    if around.maps_users:
        # A container's own fields win over the pod's, and zero is a user too.
        security = {"runAsUser": image.user, "runAsGroup": image.user, **around.security, **own}
        user, group = security["runAsUser"], security["runAsGroup"]
        groups = [around.security.get("fsGroup"), *(around.security.get("supplementalGroups") or ())]
        names = ",".join(str(each) for each in groups if each is not None)
        words += [f"--reuid={user}", f"--regid={group}", f"--groups={names}" if names else "--clear-groups"]
    if "ALL" in (own.get("capabilities") or {}).get("drop", ()):
        words += ["--inh-caps=-all", "--bounding-set=-all"]
    if own.get("allowPrivilegeEscalation") is False:
        words.append("--no-new-privs")
    return [*words, "--"]


def _make_root(spec: dict[str, Any], image: Image, folder: Path, around: Surroundings) -> Path:
    """The image, /proc, a small /dev, and the volumes at the paths that the pod says."""
    root = folder / "root"
    root.mkdir(parents=True)
    mounts.place(folder, "root", root, read_only=False)
    for path, source in image.files.items():
        mounts.place(root, path, Path(source))
    mounts.place(root, "proc", Path("/proc"), read_only=False)
    devices = {f"/dev/{name}": f"/dev/{name}" for name in ("null", "zero", "random", "urandom")}
    for path, source in {**devices, **around.devices}.items():
        mounts.place(root, path, Path(source), read_only=False)
    log = folder / "termination-log"
    log.touch()
    log.chmod(0o666)
    mounts.place(root, _TERMINATION_LOG, log, read_only=False)
    for mount in spec.get("volumeMounts") or ():
        volume = around.volumes[mount["name"]]
        mounts.place(root, mount["mountPath"], volume, read_only=bool(mount.get("readOnly")))
    if (spec.get("securityContext") or {}).get("readOnlyRootFilesystem"):
        mounts.protect(root)
    return root


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise UnsupportedError(f"no {name} on this machine")
    return found


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_SHOWN_BYTES).decode(errors="replace")
