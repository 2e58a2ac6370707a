"""The two kinds of report APIs. Their results have the same members; a cluster has one, both, or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from server.kubernetes.client import Client


@dataclass(frozen=True, slots=True)
class ReportAPI:
    """`has_source`: whether a report itself names its source, and not its results alone."""

    api_version: str
    kind: str
    cluster_kind: str
    resource: str
    cluster_resource: str
    has_source: bool

    def path(self, namespace: str) -> str:
        """The collection in a namespace; for an empty one that of the cluster's reports."""
        root = f"/apis/{self.api_version}"
        return f"{root}/namespaces/{namespace}/{self.resource}" if namespace else f"{root}/{self.cluster_resource}"

    @property
    def every(self) -> str:
        """The collection over all namespaces."""
        return f"/apis/{self.api_version}/{self.resource}"


OPEN_REPORTS: Final = ReportAPI("openreports.io/v1alpha1", "Report", "ClusterReport", "reports", "clusterreports", True)
POLICY_REPORTS: Final = ReportAPI(
    "wgpolicyk8s.io/v1alpha2", "PolicyReport", "ClusterPolicyReport", "policyreports", "clusterpolicyreports", False
)
_APIS: Final = (OPEN_REPORTS, POLICY_REPORTS)


async def served_api(client: Client) -> ReportAPI | None:
    """The API that this cluster serves, the newer one where it has both; None for none. Raises KubernetesError."""
    for api in _APIS:
        found = await client.find(f"/apis/{api.api_version}")
        resources = found.get("resources") if found is not None else None
        names = {
            each.get("name") for each in (resources if isinstance(resources, list) else ()) if isinstance(each, dict)
        }
        if {api.resource, api.cluster_resource} <= names:
            return api
    return None
