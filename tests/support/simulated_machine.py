"""`morphisms simulated-hardware` as a process of its own."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

from attestation.simulator.hierarchy import Hierarchy
from tests.support.paths import ROOT
from tests.support.processes import morphisms


@contextlib.contextmanager
def simulated_machine(hierarchy: Hierarchy, host_data: bytes, *options: str) -> Iterator[str]:
    """A running machine whose guests have this HOST_DATA; its address."""
    words = morphisms("simulated-hardware", "--dir", hierarchy.root_path.parent, "--listen", "127.0.0.1:0")
    words += ["--host-data", host_data.hex(), *options]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on "), "the simulated machine did not start"
        yield line.split()[-1]
    finally:
        process.terminate()
        process.wait(300)
        assert process.stdout is not None
        process.stdout.close()
