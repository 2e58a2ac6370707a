"""The key server's manifests offline: `check` and `inject` decide as the cluster would, and refuse what it refuses."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.recorded import Command
from tests.support.paths import ROOT

_DIGEST = "@sha256:" + "d" * 64


@pytest.fixture
def workload() -> dict[str, Any]:
    """The overlay's StatefulSet, its images by digest."""
    path = ROOT / "manifests" / "overlays" / "kms-in-guests" / "statefulset.yaml"
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    for container in document["spec"]["template"]["spec"]["containers"]:
        container["image"] += _DIGEST
    return document


def _check(command: Command, folder: Path, document: dict[str, Any]) -> tuple[int, str]:
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump(document))
    result = command("check", "-f", str(path), "--mode", "enforce")
    return result.code, result.out


def test_the_overlay_is_clean(command: Command, tmp_path: Path, workload: dict[str, Any]) -> None:
    code, out = _check(command, tmp_path, workload)
    assert code == 0, out


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda item: item.update(kind="Deployment"), "isolation/key-server"),
        (lambda item: item["metadata"].update(name="other"), "isolation/key-server"),
        (lambda item: item["spec"]["template"]["spec"].update(hostPID=True), "isolation/host-namespaces"),
        (lambda item: item["spec"]["template"]["spec"].update(runtimeClassName="runc"), "placement/runtime-class"),
        (
            lambda item: item["spec"]["template"]["metadata"]["annotations"].update(
                {"morphisms.dev/profile": "kata-snp"}
            ),
            "placement/profile",
        ),
    ],
    ids=["deployment", "another-name", "host-namespace", "plain-class", "another-profile"],
)
def test_what_is_no_key_server_is_told_before_it_is_applied(
    command: Command, tmp_path: Path, workload: dict[str, Any], change: Any, rule: str
) -> None:
    change(workload)
    code, out = _check(command, tmp_path, workload)
    assert code == 1
    assert f"[{rule}]" in out


def test_inject_adds_the_status_and_nothing_else(command: Command, tmp_path: Path, workload: dict[str, Any]) -> None:
    path = tmp_path / "manifest.yaml"
    path.write_text(yaml.safe_dump(workload))
    result = command("inject", "-f", str(path))
    assert result.code == 0, result.err
    (document,) = yaml.safe_load_all(result.out)
    expected = copy.deepcopy(workload)
    status = document["spec"]["template"]["metadata"]["annotations"]["morphisms.dev/status"]
    expected["spec"]["template"]["metadata"]["annotations"]["morphisms.dev/status"] = status
    assert document == expected
