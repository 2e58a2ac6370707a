"""The control plane's programs, built from published Go modules: once, cached by content outside the tree.

`python -m tests.cluster.binaries` builds what is missing and shows how far it is (some ten minutes of two cores the
first time); the fixtures call it too. Where KUBEBUILDER_ASSETS names a folder with etcd, kube-apiserver or kubectl,
as envtest lays them out, those are taken instead.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.bench.golang import go
from tests.support.shown import Report

_HERE = Path(__file__).parent
_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "morphisms" / "cluster"
SMALL = "-s -w"
# Clients refuse a server that does not tell its version.
_VERSION = "k8s.io/component-base/version"
KUBERNETES_FLAGS = f"{SMALL} -X {_VERSION}.gitVersion=v1.36.3 -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=36"


@dataclass(frozen=True)
class Program:
    """A main package of one of the two modules. `envtest`: KUBEBUILDER_ASSETS may hold it."""

    name: str
    package: str
    flags: str
    envtest: bool = False


@dataclass(frozen=True)
class Module:
    """A folder with go.mod and go.sum, in `home`. `yaml`: (module, folders or files of it) to keep beside the programs.

    A main package of its own (`.`) counts with its source.
    """

    name: str
    programs: tuple[Program, ...]
    yaml: tuple[tuple[str, tuple[str, ...]], ...] = ()
    home: Path = _HERE

    @property
    def source(self) -> Path:
        return self.home / self.name

    @cached_property
    def folder(self) -> Path:
        """Where its programs are kept: other versions or flags mean another folder."""
        content = b"".join((self.source / name).read_bytes() for name in ("go.mod", "go.sum"))
        content += b"".join(path.read_bytes() for path in sorted(self.source.glob("*.go")))
        content += repr((self.programs, self.yaml)).encode()
        return _CACHE / f"{self.name}-{hashlib.sha256(content).hexdigest()[:16]}"


KUBERNETES = Module(
    "kubernetes",
    (
        Program("etcd", "go.etcd.io/etcd/server/v3", SMALL, envtest=True),
        Program("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", KUBERNETES_FLAGS, envtest=True),
        Program("kubectl", "k8s.io/kubernetes/cmd/kubectl", KUBERNETES_FLAGS, envtest=True),
        Program("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", KUBERNETES_FLAGS),
        Program("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", KUBERNETES_FLAGS),
        Program("etcdctl", "go.etcd.io/etcd/etcdctl/v3", SMALL),
    ),
)
KNATIVE = Module(
    "knative",
    (
        Program("webhook", "knative.dev/serving/cmd/webhook", SMALL),
        Program("controller", "knative.dev/serving/cmd/controller", SMALL),
    ),
    (
        ("knative.dev/serving", ("config/core",)),
        ("knative.dev/networking", ("config",)),
        ("knative.dev/caching", ("config",)),
    ),
)

REPORTS = Module("reports", (), (("github.com/openreports/reports-api", ("config/crd",)),))


def binary(module: Module, name: str) -> str:
    """The path of a program that `build` has provided."""
    program = next(program for program in module.programs if program.name == name)
    return str(_given(program) or module.folder / name)


def build(report: Report, *modules: Module) -> None:
    """Provide every program of the modules, telling `report` a line for each that had to be built."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    for module in modules:
        if not _missing(module) and all(_kept(module, name).exists() for name, _ in module.yaml):
            continue
        with only_one(_CACHE / "lock", "another build of the control plane is under way", report):
            _build(module, report)


def _missing(module: Module) -> list[Program]:
    return [p for p in module.programs if _given(p) is None and not (module.folder / p.name).exists()]


def _kept(module: Module, name: str) -> Path:
    return module.folder / name.rpartition("/")[2]


def _build(module: Module, report: Report) -> None:
    missing = _missing(module)
    if missing:
        report(f"building {module.name}: {', '.join(p.name for p in missing)} (once; kept in {module.folder})")
    module.folder.mkdir(parents=True, exist_ok=True)
    for program in missing:
        started = time.monotonic()
        unfinished = module.folder / f".{program.name}"
        command = [go(), "build", "-trimpath", "-ldflags", program.flags, "-o", str(unfinished), program.package]
        subprocess.run(command, cwd=module.source, env={**os.environ, "CGO_ENABLED": "0"}, check=True)
        unfinished.replace(module.folder / program.name)
        report(f"  {program.name} {time.monotonic() - started:.0f} s")
    for name, parts in module.yaml:
        _keep(module, name, parts)


def _keep(module: Module, name: str, parts: tuple[str, ...]) -> None:
    """Copy YAML out of a module, whose folder may be gone from Go's own cache later."""
    target = _kept(module, name)
    if target.exists():
        return
    unfinished = target.with_name(f".{target.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    # A module without programs was not downloaded by a build.
    subprocess.run([go(), "mod", "download", name], cwd=module.source, check=True)
    command = [go(), "list", "-m", "-f", "{{.Dir}}", name]
    source = Path(subprocess.run(command, cwd=module.source, capture_output=True, text=True, check=True).stdout.strip())
    for part in parts:
        for file in sorted((source / part).rglob("*.yaml")):
            copy = unfinished / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)  # not its mode: Go keeps modules read-only
    unfinished.replace(target)


def _given(program: Program) -> Path | None:
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    path = Path(assets) / program.name if assets and program.envtest else None
    return path if path is not None and path.exists() else None


@contextlib.contextmanager
def only_one(file: Path, other: str, report: Report) -> Iterator[None]:
    """One process at a time on this machine; tells that the `other` is waited for."""
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"{other}: waiting for its end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    build(lambda line: print(line, file=sys.stderr, flush=True), KUBERNETES, KNATIVE, REPORTS)
