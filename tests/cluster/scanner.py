"""The scanner on the control plane: its account as the components' manifests make it, and replicas as processes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from functools import partial
from typing import Final

import urllib3

from tests.cluster.client import Client
from tests.cluster.controlplane import ControlPlane
from tests.cluster.definitions import wait_until_established
from tests.cluster.installation import SYSTEM
from tests.cluster.nodes import MANIFESTS
from tests.cluster.process import Process
from tests.cluster.report_definitions import report_definitions
from tests.support.ports import free_port
from tests.support.until import until
from webhook.scanner.reports.api import OPEN_REPORTS

ACCOUNT: Final = "morphisms-scanner"


def scanner_account(cluster: ControlPlane, *components: str) -> Client:
    """The identity that these components give the scanner."""
    for component in components:
        cluster.kubectl("apply", "-f", MANIFESTS / "components" / component / "access.yaml")
    client = cluster.service_account(SYSTEM, ACCOUNT)
    # The API server authorises by a copy of its own.
    until(lambda: client.can("watch", "pods"))
    until(lambda: client.can("get", "leases", SYSTEM, "coordination.k8s.io", ACCOUNT))
    if "scanner-reports" in components:
        until(lambda: client.can("list", "cronjobs", group="batch"))
        until(lambda: client.can("watch", "configmaps", SYSTEM, name="morphisms-webhook-templates"))
    if "scanner-config-maps" in components:
        until(lambda: client.can("get", "configmaps"))
    if "scanner-probes" in components:
        until(lambda: client.can("patch", "configmaps", SYSTEM, name="morphisms-probes"))
    return client


class Scanner(Process):
    """One replica. `metrics` are its metrics now, by name with labels."""

    def __init__(self, cluster: ControlPlane, client: Client, name: str, *options: str) -> None:
        self.port = free_port()
        super().__init__(
            [
                *(sys.executable, "-m", "cli.main", "scanner", "--kubeconfig", str(client.kubeconfig)),
                *("--namespace", SYSTEM, "--metrics-listen", f"127.0.0.1:{self.port}", *options),
            ],
            cluster.folder / f"{name}.log",
            cluster.keeper,
            environment={"POD_NAME": name},
            ready=partial(_ready, self.port),
        )

    def metric(self, name: str) -> float:
        """The metric's value; 0 for one that is not there."""
        text = urllib3.request("GET", f"http://127.0.0.1:{self.port}/metrics", timeout=60, retries=False).data.decode()
        return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{name} ")), 0.0)


@contextlib.contextmanager
def reporting(cluster: ControlPlane, name: str) -> Iterator[Scanner]:
    """One replica that looks every second and writes OpenReports, whose definitions are there as long."""
    definitions = report_definitions(OPEN_REPORTS)
    cluster.admin.kubectl("apply", "--server-side", "-f", "-", input=definitions)
    wait_until_established(cluster.admin)
    account = scanner_account(cluster, "scanner", "scanner-reports")
    running = Scanner(cluster, account, name, "--reports", "--scan-seconds", "1")
    running.start()
    yield running
    running.stop()
    cluster.admin.kubectl("delete", "-f", "-", input=definitions)


def _ready(port: int) -> bool:
    try:
        return urllib3.request("GET", f"http://127.0.0.1:{port}/readyz", timeout=10, retries=False).status == 200
    except urllib3.exceptions.HTTPError:
        return False
