"""A stand-in of a cluster whose scanner has reported on the namespace `shop`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tests.cli.live.stand_in import StandIn, ready
from webhook.wellknown import MODE_LABEL

Json = dict[str, Any]

NAMESPACE: Final = "/api/v1/namespaces/shop"
LEASE: Final = "/apis/coordination.k8s.io/v1/namespaces/morphisms-system/leases/morphisms-scanner"
API: Final = "/apis/openreports.io/v1alpha1"
REPORT: Final = f"{API}/clusterreports/morphisms"


def ago(hours: float) -> str:
    return (datetime.now(UTC) - timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")


def report(mode: str, hours: float, result: str = "pass") -> Json:
    """The cluster's report, in which the shop is clean for so long."""
    properties = {"mode": mode, "cleanSince": ago(hours)}  # which counts for nothing where the result is `fail`
    about = [{"apiVersion": "v1", "kind": "Namespace", "name": "shop"}]
    message = "1 of 1 workloads are not ready for mode enforce"
    shop = {"rule": "ready", "result": result, "message": message, "properties": properties, "resources": about}
    other = {**shop, "result": "pass", "properties": {"mode": mode, "cleanSince": ago(1000)}}
    return {"results": [{**other, "resources": [{"kind": "Namespace", "name": "bank"}]}, shop]}


def reported(*items: Json, mode: str | None = "audit", clean: float = 1000, since: float | None = 1000) -> StandIn:
    """A cluster with a scanner, in which the shop has its mode, and a clean report, for so many hours."""
    cluster = ready()
    cluster.add("shop", mode, *items)
    if since is not None:
        fields = {"f:metadata": {"f:labels": {f"f:{MODE_LABEL}": {}}}}
        other = {"time": ago(0), "fieldsV1": {"f:metadata": {"f:annotations": {"f:x": {}}}}}
        cluster.objects[NAMESPACE]["metadata"]["managedFields"] = [
            other,
            {"time": ago(since), "fieldsV1": fields},
            {"time": ago(since + 500), "fieldsV1": fields},
        ]
    renewed = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    cluster.objects[LEASE] = {"spec": {"holderIdentity": "scanner-0", "renewTime": renewed}}
    cluster.objects[API] = {"resources": [{"name": "reports"}, {"name": "clusterreports"}]}
    cluster.objects[REPORT] = report(mode or "audit", clean)
    return cluster
