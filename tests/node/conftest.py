"""The node tier: tests on one node, once a run. They run with NODE=1, as root; NODE=all adds the long ones.

`stack`: everything together (`tests.node.stack.Stack`): `admin` and `cluster` as in tests/cluster, `morphisms.vault`,
`request(namespace, revision)` through the activator, `ready_pod`, `gone`. Evidence is simulated, and every runtime
handler is plain runc: no test here says anything about VMs or SNP.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.node import programs
from tests.node.stack import Stack, running
from tests.support.shown import Report, report_of


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Report:
    return report_of(request.config)


@pytest.fixture(scope="session")
def stack(report: Report) -> Iterator[Stack]:
    """The one of this run. The probe has passed, so a package that is missing is a failure."""
    if missing := programs.missing_packages():
        pytest.fail(f"the node tier needs Debian's packages {' '.join(missing)}: `make packages`, as root")
    with running(report) as started:
        yield started
