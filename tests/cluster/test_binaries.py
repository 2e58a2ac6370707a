"""Which programs the tier runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cluster.binaries import KNATIVE, KUBERNETES, binary


def test_envtest_binaries_are_taken_where_there_are_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etcd").touch()
    (tmp_path / "kube-scheduler").touch()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    assert binary(KUBERNETES, "etcd") == str(tmp_path / "etcd")
    assert binary(KUBERNETES, "kube-apiserver") == str(KUBERNETES.folder / "kube-apiserver"), "not there: our own"
    assert binary(KUBERNETES, "kube-scheduler") == str(KUBERNETES.folder / "kube-scheduler"), "envtest has none"
    assert binary(KNATIVE, "webhook") == str(KNATIVE.folder / "webhook")


def test_the_server_tells_the_version_that_it_is_built_from() -> None:
    module = (KUBERNETES.source / "go.mod").read_text()
    version = re.search(r"k8s\.io/kubernetes v(\S+)", module)
    assert version is not None
    staging = set(re.findall(r"=> k8s\.io/\S+ v0\.(\S+)", module))
    assert {f"1.{each}" for each in staging} == {version[1]}
    (flags,) = {program.flags for program in KUBERNETES.programs if program.name.startswith("kube")}
    major, minor, _ = version[1].split(".")
    assert f"gitVersion=v{version[1]} " in flags
    assert f"gitMajor={major} " in flags
    assert flags.endswith(f"gitMinor={minor}")
