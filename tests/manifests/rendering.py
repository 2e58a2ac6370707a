"""What is rendered from the kustomizations into one file each, by the kubectl that the cluster tier has."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Final

import yaml

from tests.cluster.binaries import KUBERNETES, binary
from tests.support.paths import ROOT

MANIFESTS: Final = ROOT / "manifests"
# Rendered file -> its kustomization.
RENDERED: Final = {"install.yaml": "base", "install-verifier.yaml": "base/verifier"}
PREVIOUS: Final = MANIFESTS / "previous" / "install.yaml"


def render(folder: Path) -> str:
    """The kustomization as one YAML text. Raises CalledProcessError."""
    command = [binary(KUBERNETES, "kubectl"), "kustomize", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def rendered(name: str) -> list[dict[str, Any]]:
    """The objects of a rendered file, as it is committed."""
    return list(yaml.safe_load_all((MANIFESTS / name).read_text()))
