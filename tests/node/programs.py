"""What the node tier runs: programs built from published Go modules, cached as the control plane's, and Debian's.

`python -m tests.node.programs` builds what is missing. The control plane and Knative's controllers come from
tests/cluster/binaries.py, whose cache they share.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.cluster import binaries
from tests.cluster.binaries import KNATIVE, KUBERNETES, Module, Program, Report

_HERE = Path(__file__).parent

NODE: Final = Module(
    "kubernetes",
    (
        Program("kubelet", "k8s.io/kubernetes/cmd/kubelet", binaries.KUBERNETES_FLAGS),
        Program("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", binaries.KUBERNETES_FLAGS),
    ),
    home=_HERE,
)
DATA_PATH: Final = Module(
    "knative",
    (
        Program("activator", "knative.dev/serving/cmd/activator", binaries.SMALL),
        Program("autoscaler", "knative.dev/serving/cmd/autoscaler", binaries.SMALL),
        Program("queue", "knative.dev/serving/cmd/queue", binaries.SMALL),
    ),
    home=_HERE,
)
COREDNS: Final = Module("coredns", (Program("coredns", ".", binaries.SMALL),), home=_HERE)
APPLICATION: Final = Module("application", (Program("application", ".", binaries.SMALL),), home=_HERE)
PAUSE: Final = Module("pause", (Program("pause", ".", binaries.SMALL),), home=_HERE)
MODULES: Final = (KUBERNETES, KNATIVE, NODE, DATA_PATH, COREDNS, APPLICATION, PAUSE)

# One program stands for its package.
_DEBIAN: Final[Mapping[str, str]] = {
    "buildah": "buildah",
    "conntrack": "conntrack",
    "containerd": "containerd",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "mmdebstrap": "mmdebstrap",
    "runc": "runc",
}


def missing_packages() -> list[str]:
    """Debian packages of packages.txt that are not installed here."""
    return sorted(package for program, package in _DEBIAN.items() if shutil.which(program) is None)


def build(report: Report) -> None:
    """Provide every program."""
    binaries.build(report, *MODULES)


if __name__ == "__main__":
    build(lambda line: print(line, file=sys.stderr, flush=True))
