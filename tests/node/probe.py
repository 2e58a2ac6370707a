"""Whether this machine can carry a node: asked before anything is built, so that the tier is left out with a reason.

`why_not` makes and removes what a node needs most. It changes nothing of the machine's own.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

_NEEDED = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_KILL": 5,
    "CAP_SETUID": 7,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_CHROOT": 18,
    "CAP_SYS_ADMIN": 21,
    "CAP_MKNOD": 27,
}
"""The capabilities that the node's programs use. CAP_SYS_RESOURCE is not among them: containerd does without."""
_TRIAL_SECONDS = 30
# In namespaces that end with the command: a bridge whose packets iptables sees, a mount of each kind, a shared tree.
_TRIAL = """
set -e
mount --make-rshared /
mount -t tmpfs none "$0"
mkdir "$0/lower" "$0/upper" "$0/work" "$0/merged"
layers="lowerdir=$0/lower,upperdir=$0/upper,workdir=$0/work"
mount -t overlay overlay -o "$layers" "$0/merged" || { echo "no overlayfs" >&2; exit 1; }
ip link set lo up
ip link add trial type bridge || { echo "no bridge can be made" >&2; exit 1; }
[ -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || { echo "no br_netfilter" >&2; exit 1; }
echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables || { echo "br_netfilter cannot be switched on" >&2; exit 1; }
"""


def why_not(checks: Sequence[Callable[[], str | None]] | None = None) -> str | None:
    """The first thing that is missing, in one line; None where a node can run."""
    for check in CHECKS if checks is None else checks:
        if (missing := check()) is not None:
            return missing
    return None


def _root() -> str | None:
    return None if os.geteuid() == 0 else "it needs root"


def _capabilities() -> str | None:
    return missing_capability(Path("/proc/self/status").read_text())


def missing_capability(status: str) -> str | None:
    """The first needed capability that the effective set of a /proc/PID/status lacks."""
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    held = int(line.split()[1], 16)
    lacking = [name for name, bit in _NEEDED.items() if not held >> bit & 1]
    return f"it needs {', '.join(lacking)}" if lacking else None


def _cgroups() -> str | None:
    return unusable_cgroups(Path("/proc/self/mountinfo").read_text())


def hierarchies(mountinfo: str) -> list[Path]:
    """Where limits are set: each hierarchy of version 1, else the one of version 2."""
    first, second = _mounted(mountinfo)
    return first or second[:1]


def all_hierarchies(mountinfo: str) -> list[Path]:
    """As `hierarchies`, and beside those of version 1 that of version 2, in which runc makes cgroups too."""
    first, second = _mounted(mountinfo)
    return first + second[:1]


def _mounted(mountinfo: str) -> tuple[list[Path], list[Path]]:
    first: list[Path] = []
    second: list[Path] = []
    for line in mountinfo.splitlines():
        fields = line.split()
        kind = fields[fields.index("-") + 1]
        if kind == "cgroup":
            first.append(Path(fields[4]))
        elif kind == "cgroup2":
            second.append(Path(fields[4]))
    return first, second


def unusable_cgroups(mountinfo: str) -> str | None:
    """Why no cgroup can be made in one of the hierarchies, or which controller is missing."""
    found = hierarchies(mountinfo)
    if not found:
        return "it needs a mounted cgroup hierarchy, version 1 or 2"
    names = {name for path in found for name in path.name.split(",")}
    if len(found) == 1 and (controllers := found[0] / "cgroup.controllers").exists():
        names = set(controllers.read_text().split())
    if lacking := {"cpu", "cpuset", "memory", "pids"} - names:
        return f"it needs the cgroup controllers {', '.join(sorted(lacking))}"
    for path in found:
        trial = path / f"morphisms-trial-{os.getpid()}"
        try:
            trial.mkdir()
            trial.rmdir()
        except OSError as error:
            return f"it needs a writable cgroup hierarchy: {path}: {error.strerror}"
    return None


def _namespaces() -> str | None:
    command = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", _TRIAL, "/mnt"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TRIAL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it needs network and mount namespaces of its own: {error}"
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["unshare failed"]
        return f"it needs network and mount namespaces of its own: {lines[-1]}"
    return None


def _network_of_a_thread() -> str | None:
    return None if hasattr(ctypes.CDLL(None), "setns") else "it needs setns"


CHECKS: tuple[Callable[[], str | None], ...] = (_root, _capabilities, _cgroups, _namespaces, _network_of_a_thread)
