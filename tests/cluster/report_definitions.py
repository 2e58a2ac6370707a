"""The published definitions of the kinds in which reports are written."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.cluster.binaries import REPORTS
from tests.cluster.client import Object
from webhook.scanner.reports.api import POLICY_REPORTS, ReportAPI


def report_definitions(api: ReportAPI) -> list[Object]:
    """The published definitions; those of wgpolicyk8s.io are the same but for names, and what openreports.io added."""
    folder: Path = REPORTS.folder / "reports-api" / "config" / "crd"
    found = [yaml.safe_load(file.read_text()) for file in sorted(folder.glob("*.yaml"))]
    if api is POLICY_REPORTS:
        for definition in found:
            is_cluster = definition["spec"]["names"]["kind"] == "ClusterReport"
            plural = api.cluster_resource if is_cluster else api.resource
            kind = api.cluster_kind if is_cluster else api.kind
            definition["metadata"]["name"] = f"{plural}.wgpolicyk8s.io"
            names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
            definition["spec"] |= {"group": "wgpolicyk8s.io", "names": names}
            (version,) = definition["spec"]["versions"]
            version["name"] = "v1alpha2"
            for added in ("source", "configuration"):
                version["schema"]["openAPIV3Schema"]["properties"].pop(added, None)
    return found
