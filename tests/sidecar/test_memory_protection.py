"""A container of the same user in the pod's shared process namespace, which `on-change` with a signal asks for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from plan.document import SecretFile
from tests.sidecar.pod import HOME, Pod
from tests.sidecar.resident import resident

# As containers run: without a capability that would open everybody's memory, and as the same user.
_CONTAINED = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs")


def _contained(*words: str) -> int:
    return subprocess.run([*_CONTAINED, *words], capture_output=True, timeout=120).returncode


def test_another_process_reads_neither_its_memory_nor_its_pod_token(pod: Pod) -> None:
    if _contained("true") != 0:
        pytest.skip("this machine's setpriv drops no capabilities")
    pod.change(secrets=(SecretFile("db", f"{HOME}/db", "db"),))
    with resident(pod, prefix=_CONTAINED) as sidecar:
        sidecar.wait("published")
        there = Path(f"/proc/{sidecar.process.pid}")
        assert _contained("cat", f"{there}/status") == 0, "it is seen, by its name for instance"
        assert _contained("cat", f"{there}/environ") != 0
        assert _contained("head", "-c0", f"{there}/mem") != 0
        assert _contained("cat", f"{there}/root{pod.root}/token") != 0
        assert sidecar.stop().code == 0
