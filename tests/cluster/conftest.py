"""The cluster tier: tests through a real control plane. One a run, a namespace a test; it ends with the folder's tests.

`cluster`: the running control plane (`tests.cluster.controlplane.ControlPlane`) with the nodes `snp-0`, `snp-1`
(they host SNP guests) and `plain-0`, and the developer `dev`.

    cluster.admin, cluster.user("ann", "team"), cluster.node("snp-0"), cluster.service_account(namespace, name)
        a `Client` each: `get`, `items`, `create`, `replace`, `patch`, `delete` by API path (ApiError for a refusal),
        `request` (any status, with warnings), `until` (waits by a watch), `kubectl(…)`, `apply(object, …)`, `can(…)`
    cluster.processes["kube-apiserver"]    a `Process`: `restart`, `stop`, `start`, `kill`, `signal`, `cpu_seconds`
    cluster.etcd.everything(), cluster.audit.mark(), cluster.audit.events(mark), cluster.audit.until(…, mark)

`knative`: stock Knative Serving on it (`webhook` and `controller` are Processes); `tests.cluster.knative.make_service`.

`morphisms`: installed on it from manifests/, two replicas behind a balancer. `replicas[0].process` is a Process; each
    has `metrics()` and a `folder` with its mounts; `registrations()`.

`guarded`: a control plane of its own without a webhook of ours, on which the guards are in force
    (`tests.cluster.guarded`).

`namespace(mode)`: makes a namespace in which `dev` may edit, and which is deleted at the end of the test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import binaries
from tests.cluster.controlplane import ControlPlane, control_plane
from tests.cluster.guarded import guards_alone
from tests.cluster.installation import Installation, running
from tests.cluster.knative import Knative, alone
from tests.cluster.namespace import Namespace
from tests.cluster.nodes import add_confidential_node, add_node
from tests.support.shown import Report, report_of

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder is the tier; which of it stays together: tests/support/spread.py."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker("cluster")


@pytest.fixture(scope="package")
def _report(request: pytest.FixtureRequest) -> Report:
    return report_of(request.config)


@pytest.fixture(scope="package")
def _programs(_report: Report) -> None:
    binaries.build(_report, binaries.KUBERNETES, binaries.KNATIVE, binaries.REPORTS)


@pytest.fixture(scope="package")
def cluster(_programs: None) -> Iterator[ControlPlane]:
    """The control plane, with nodes."""
    with control_plane("cluster") as running:
        for name in ("snp-0", "snp-1"):
            add_confidential_node(running.admin, name)
        add_node(running.admin, "plain-0")
        yield running


@pytest.fixture(scope="package")
def guarded(_programs: None) -> Iterator[ControlPlane]:
    """Another control plane, with the guards alone, all of them in force."""
    with guards_alone() as running:
        yield running


@pytest.fixture(scope="package")
def knative(cluster: ControlPlane, _report: Report) -> Iterator[Knative]:
    """Stock Knative on it."""
    with alone(_report):
        installed = Knative(cluster)
        try:
            installed.start()
            yield installed
        finally:
            installed.stop()


@pytest.fixture(scope="package")
def morphisms(cluster: ControlPlane) -> Iterator[Installation]:
    """Installed from manifests/, two replicas running."""
    with running(Installation(cluster)) as installation:
        installation.wait_for_sidecar()
        yield installation


@pytest.fixture
def namespace(cluster: ControlPlane) -> Iterator[Callable[..., Namespace]]:
    """`namespace(mode, **labels)`: a new one, in that mode; without a mode it is none of ours."""
    made: list[Namespace] = []

    def make(mode: str | None = None, **labels: str) -> Namespace:
        made.append(Namespace.make(cluster.admin, mode, labels))
        return made[-1]

    yield make
    for one in made:
        one.delete()
