"""What is rendered from the kustomizations into one file each, by the kubectl that the cluster tier has."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Final

import yaml

from cli.guards import GUARDS, guard
from tests.cluster.binaries import KUBERNETES, binary
from tests.support.paths import ROOT
from webhook.configuration.model import Configuration

MANIFESTS: Final = ROOT / "manifests"
# Rendered file -> its kustomization.
RENDERED: Final = {"install.yaml": "base", "install-verifier.yaml": "base/verifier"}
PREVIOUS: Final = MANIFESTS / "previous" / "install.yaml"


def guard_file(name: str) -> Path:
    """The manifest of a guard that `morphisms guards` writes too."""
    folder = "base/guards" if name == GUARDS[0] else "components/cluster-guards"
    return MANIFESTS / folder / f"{name}.yaml"


def guard_text(name: str) -> str:
    """What the manifest should hold: the policy for the default configuration, and the binding that it has."""
    _, mark, binding = guard_file(name).read_text().partition("---\n")
    return guard(name, Configuration()) + mark + binding


def render(folder: Path) -> str:
    """The kustomization as one YAML text. Raises CalledProcessError."""
    command = [binary(KUBERNETES, "kubectl"), "kustomize", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def rendered(name: str) -> list[dict[str, Any]]:
    """The objects of a rendered file, as it is committed."""
    return list(yaml.safe_load_all((MANIFESTS / name).read_text()))
