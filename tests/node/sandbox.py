"""What a node is kept in: a network and a mount namespace, a cgroup in every hierarchy, a folder, and a record of them.

The record says what to end and what to put back, so that one whose run has died is removed by the next. In the mount
namespace /run is memory and /var is a folder of the run's own, and mounts end with their last process. Settings of the
kernel that belong to no namespace are copies there, or cannot be written: this machine's own stay as they are.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.cluster.keeper import Keeper
from tests.node import probe
from tests.node.cgroup import switched_on
from tests.node.records import RECORDS, Record, alone, claimed_by_others, guarding, read_record, records
from tests.support.paths import ROOT
from tests.support.until import until

BRIDGE_ADDRESS: Final = "10.123.0.1"
POD_NETWORK: Final = "10.123.0.0/16"
SERVICE_NETWORK: Final = "10.96.0.0/16"
# Those that a kubelet sets. They belong to no namespace.
_SYSCTLS: Final = (
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)
_SETUP: Final = f"""
set -e
mount --make-rshared /
mount --bind "$0/var" /var
# Programs here know the cluster's names, as its pods do.
[ ! -e /etc/resolv.conf ] || mount --bind "$0/resolv.conf" /etc/resolv.conf
mount -t tmpfs -o mode=755 none /run
mkdir /run/lock
ip link set lo up
ip link add cni0 type bridge
ip address add {BRIDGE_ADDRESS}/16 dev cni0
ip link set cni0 up
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables
echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
for settings in /proc/sys/*; do
  [ "$settings" != /proc/sys/net ] || continue  # this namespace's own
  mount --bind "$settings" "$settings"
  mount -o remount,bind,ro "$settings"
done
for name in {" ".join(_SYSCTLS)}; do
  [ -e "/proc/sys/$name" ] || continue
  mkdir -p "$0/sysctls/${{name%/*}}"
  cat "/proc/sys/$name" > "$0/sysctls/$name"
  mount --bind "$0/sysctls/$name" "/proc/sys/$name"
done
# Without a route a connection from here to a Service ends before iptables sees it.
ip route add {SERVICE_NETWORK} dev cni0
"""
_CLONE_NEWNET: Final = 0x40000000


class Guard(Keeper):
    """Removes the sandbox when its run has ended, in whatever way. It holds a lock on the record meanwhile."""

    def __init__(self, record: Record) -> None:
        command = [sys.executable, "-m", "tests.node.sandbox", record.name]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, start_new_session=True
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()


class _Nobody(Keeper):
    """For a sandbox that stays until it is removed by name."""

    def __init__(self) -> None:
        """Nothing to start."""

    def close(self) -> None:
        """Nothing to end."""

    def _tell(self, line: str) -> None:
        """Nobody to tell."""


class Sandbox:
    """Namespaces and cgroup; `prefix` stands before each command that runs in them."""

    def __init__(self, record: Record, keeper: Keeper) -> None:
        self.record = record
        self.folder = Path(record.folder)
        self.cgroup = record.cgroup
        self.keeper = keeper

    @classmethod
    def make(cls, *, stays: bool = False) -> Sandbox:
        """A new one, after those have been removed whose runs have died."""
        remove_leftovers()
        name = f"morphisms-node-{secrets.token_hex(4)}"
        hierarchies = probe.all_hierarchies(Path("/proc/self/mountinfo").read_text())
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        for made in ("var/lib/cni", "var/log", "var/tmp", "var/lib/kubelet"):
            (folder / made).mkdir(parents=True)
        (folder / "var/run").symlink_to("/run")
        (folder / "resolv.conf").write_text("nameserver 10.96.0.10\nsearch cluster.local\n")
        with alone():
            record = Record.new(name, str(folder), hierarchies, stays=stays)
            keeper = _Nobody() if stays else Guard(record)
            record.cgroup.make()
        isolated = ["unshare", "--net", "--mount", "--propagation", "private", "sleep", "infinity"]
        holder = subprocess.Popen(
            [*record.cgroup.joining(), *isolated], stdin=subprocess.DEVNULL, start_new_session=True
        )
        until(lambda: _entered(holder.pid))
        record = replace(record, holder=holder.pid)
        with alone():
            record.write()
        made_here = cls(record, keeper)
        made_here.run("sh", "-c", _SETUP, str(folder))
        return made_here

    @classmethod
    def named(cls, name: str) -> Sandbox:
        """One that stays."""
        return cls(read_record(RECORDS / f"{name}.json"), _Nobody())

    @property
    def prefix(self) -> tuple[str, ...]:
        """Becomes the command that follows: the process id stays."""
        namespaces = f"/proc/{self.record.holder}/ns"
        entering = ["nsenter", f"--net={namespaces}/net", f"--mount={namespaces}/mnt", f"--wdns={ROOT}", "--"]
        return (*self.cgroup.joining(), *entering)

    def run(self, *command: str, check: bool = True, input: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run a command in it to its end."""
        done = subprocess.run([*self.prefix, *command], input=input, capture_output=True, check=False)
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr.decode(errors='replace')}"
        return done

    def connect(self, host: str, port: int, seconds: float = 300) -> socket.socket:
        """A connection from inside its network."""
        return connect(self.record.holder, host, port, seconds)

    def root(self, path: str) -> Path:
        """Where a path of its mount namespace is read from outside."""
        return Path(f"/proc/{self.record.holder}/root") / path.lstrip("/")

    def remove(self) -> None:
        """End and remove all of it; the guard does, where there is one."""
        self.keeper.close()
        remove(self.record)


def connect(holder: int, host: str, port: int, seconds: float = 300) -> socket.socket:
    """A connection from inside the network namespace of process `holder`. A namespace is entered by a thread alone."""
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def enter() -> None:
        try:
            with Path(f"/proc/{holder}/ns/net").open() as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns failed")
            made.append(socket.create_connection((host, port), seconds))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def remove_leftovers() -> None:
    """Remove each sandbox whose run has died together with its guard."""
    for record in records():
        with contextlib.ExitStack() as stack:
            with alone():
                if record.stays or not record.file.exists() or not stack.enter_context(guarding(record)):
                    continue
            remove(record)


def remove(record: Record) -> None:
    """End its processes; remove cgroups and folder; put controllers back; forget it. May be repeated."""
    record.cgroup.end()
    record.cgroup.remove()
    shutil.rmtree(record.folder, ignore_errors=True)
    with alone():
        record.forget()


def traces(record: Record) -> list[str]:
    """What is left of it on this machine, in words; nothing after `remove`."""
    left = [f"process {pid}" for pid in sorted(record.cgroup.members())]
    left += [f"cgroup {folder}" for folder in record.cgroup.folders if folder.exists()]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    left += [f"mount {line.split()[4]}" for line in mounts if record.folder in line]
    left += [
        f"controller {name} in {path}"
        for path, names in record.controllers.items()
        for name in names
        if name in switched_on(Path(path)) and not claimed_by_others(record, path, name)
    ]
    left += [str(path) for path in (Path(record.folder), record.file, record.lock) if path.exists()]
    return left


def _entered(pid: int) -> bool:
    return os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net") and (
        Path(f"/proc/{pid}/comm").read_text() == "sleep\n"
    )


def _guard(name: str) -> None:
    file = RECORDS / f"{name}.json"
    with guarding(read_record(file)):
        print("guarding", flush=True)
        for _ in sys.stdin:
            pass
        remove(read_record(file))


if __name__ == "__main__":
    _guard(sys.argv[1])
