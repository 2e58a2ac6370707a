"""Whether this machine can carry a node: asked before anything is built, so that the tier is left out with a reason.

`why_not` makes and removes what a node needs most. It changes nothing of the machine's own.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.node.records import RECORDS, Record, alone

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
_TRIAL_SECONDS = 300
# In namespaces that end with the command: what runc mounts and makes, what kubelet writes, what kube-proxy asks of
# iptables. $0 is a folder for mounts; $1 lies where the node's files will, and containerd keeps its layers there.
_TRIAL = """
set -e
cannot() { echo "$1" >&2; exit 1; }
mount --make-rshared / || cannot "no mount can be shared"
mount -t tmpfs none "$0" || cannot "no tmpfs"
mkdir "$1/lower" "$1/upper" "$1/work" "$0/merged" "$0/pts" "$0/proc" "$0/sys" "$0/queue"
mount -t overlay overlay -o "lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work" "$0/merged" || cannot "no overlayfs"
mount -t proc proc "$0/proc" || cannot "no proc can be mounted"
mount -t sysfs sysfs "$0/sys" || cannot "no sysfs can be mounted"
mount -t devpts devpts "$0/pts" || cannot "no devpts can be mounted"
mount -t mqueue mqueue "$0/queue" || cannot "no mqueue can be mounted"
mknod "$0/null" c 1 3 && : > "$0/null" || cannot "no device can be made"
: < /dev/kmsg || cannot "no /dev/kmsg"
mount --bind "$1/lower" /proc/sys/kernel || cannot "no settings of the kernel can be covered by copies"
ip link set lo up || cannot "ip cannot set a link up"
ip link add trial type bridge || cannot "no bridge can be made"
ip link add trial0 type veth peer name trial1 || cannot "no veth can be made"
[ -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || cannot "no br_netfilter"
echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables || cannot "br_netfilter cannot be switched on"
command -v iptables > /dev/null || exit 0
rule() { iptables -w -t nat -A POSTROUTING -m comment --comment trial "$@" || cannot "iptables cannot: $*"; }
rule -m statistic --mode random --probability 0.5 -j MASQUERADE
rule -m mark --mark 0x4000/0x4000 -j MARK --xor-mark 0x4000
iptables -w -A FORWARD -m conntrack --ctstate INVALID -j DROP || cannot "iptables cannot: conntrack"
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


def _entered_cgroup() -> str | None:
    """Make one in every hierarchy, enter it and remove it, as a run does."""
    name = f"morphisms-trial-{os.getpid()}"
    hierarchies = all_hierarchies(Path("/proc/self/mountinfo").read_text())
    try:
        with alone():
            record = Record.new(name, str(RECORDS / name), hierarchies)
            try:
                record.cgroup.make()
                command = [*record.cgroup.joining(), "true"]
                done = subprocess.run(command, capture_output=True, text=True, timeout=_TRIAL_SECONDS, check=False)
            finally:
                record.cgroup.remove()
                record.forget()
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it needs a cgroup of its own: {error}"
    return f"it needs a cgroup that a process can enter: {done.stderr.strip()}" if done.returncode else None


def _namespaces() -> str | None:
    with tempfile.TemporaryDirectory(prefix="morphisms-trial-") as folder:
        command = ["unshare", "--net", "--mount", "--pid", "--fork", "--propagation", "private"]
        command += ["sh", "-c", _TRIAL, "/mnt", folder]
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


CHECKS: tuple[Callable[[], str | None], ...] = (
    _root,
    _capabilities,
    _cgroups,
    _entered_cgroup,
    _namespaces,
    _network_of_a_thread,
)
