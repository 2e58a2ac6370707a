"""A node whose run is killed while it comes up leaves nothing, and another one comes up afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.node.records import records
from tests.node.sandbox import traces
from tests.node.stack import Stack, running
from tests.support.paths import ROOT
from tests.support.shown import Report
from tests.support.until import until

pytestmark = [pytest.mark.node, pytest.mark.slow]

_RUN = """
import sys
from tests.node.stack import up
up(lambda line: print(line, flush=True))
"""


def test_a_node_that_was_killed_half_way_leaves_nothing_and_comes_up_again(stack: Stack, report: Report) -> None:
    """The cluster of this run goes on beside both."""
    before = {record.name for record in records()}
    run = subprocess.Popen([sys.executable, "-c", _RUN], stdout=subprocess.PIPE, cwd=ROOT, text=True)
    assert run.stdout is not None
    try:
        # The node is ready by then, and pods are being started.
        lines = iter(run.stdout.readline, "")
        assert any("images loaded" in line for line in lines)
        (record,) = [record for record in records() if record.name not in before]
        assert len(record.cgroup.members()) > 5
    finally:
        run.kill()
        run.wait()
        run.stdout.close()
    until(lambda: not record.file.exists(), 600)
    assert traces(record) == []
    with running(report) as again:
        assert again.sandbox.record.name not in {record.name, *before}
        assert again.admin.items("/api/v1/nodes")
    assert traces(again.sandbox.record) == []
    assert stack.admin.items("/api/v1/nodes")
