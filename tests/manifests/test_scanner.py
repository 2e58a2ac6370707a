"""The scanner's components, laid over the base as an operator does: what runs, as whom, and what that may do."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.main import build_parser
from tests.cluster.binaries import KUBERNETES, build
from tests.manifests.rendering import MANIFESTS, render, rendered

Object = dict[str, Any]

# By the cluster tier's kubectl.
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

_COMPONENTS = ("scanner", "scanner-reports", "scanner-config-maps", "scanner-probes")


@pytest.fixture(scope="module")
def overlaid(tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """What the components add to the base."""
    build(lambda line: print(line, file=sys.stderr, flush=True), KUBERNETES)
    folder: Path = tmp_path_factory.mktemp("overlay")
    root = Path(os.path.relpath(MANIFESTS, folder))
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [str(root / "base")],
        "components": [str(root / "components" / name) for name in _COMPONENTS],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    base = {(each["kind"], each["metadata"]["name"]) for each in _base()}
    every = [each for each in yaml.safe_load_all(render(folder)) if each is not None]
    return [each for each in every if (each["kind"], each["metadata"]["name"]) not in base]


@cache
def _base() -> list[Object]:
    return rendered("install.yaml")


def _webhook() -> Object:
    (found,) = (each for each in _base() if each["kind"] == "Deployment")
    return found


def test_the_scanner_runs_in_the_webhooks_image_with_an_account_of_its_own(overlaid: list[Object]) -> None:
    (deployment,) = (each for each in overlaid if each["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["serviceAccountName"] == "morphisms-scanner"
    assert container["image"] == _webhook()["spec"]["template"]["spec"]["containers"][0]["image"]
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert pod["securityContext"]["runAsNonRoot"] is True
    options = build_parser("scanner").parse_args(container["args"])
    assert (options.events, options.reports, options.config_maps, options.probes) == (True, True, True, True)
    assert str(options.config).startswith(container["volumeMounts"][0]["mountPath"])
    # No selector of the webhook's Service, budget or autoscaler may take its pods for the webhook's.
    assert deployment["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"] == "scanner"


def test_its_account_reads_no_secret_and_writes_events_reports_one_lease_and_one_config_map(
    overlaid: list[Object],
) -> None:
    writes = set()
    for role in (each for each in overlaid if each["kind"] in ("Role", "ClusterRole")):
        for rule in role["rules"]:
            if "nonResourceURLs" in rule:
                assert (rule["verbs"], any("*" in each for each in rule["nonResourceURLs"])) == (["get"], False)
                continue
            assert "secrets" not in rule["resources"]
            assert "*" not in (*rule["verbs"], *rule["resources"], *rule["apiGroups"])
            if set(rule["verbs"]) & {"create", "update", "patch", "delete"}:
                writes |= set(rule["resources"])
            if "configmaps" in rule["resources"]:
                assert rule.get("resourceNames") or rule["verbs"] == ["get"]
            if rule["resources"] == ["configmaps"] and "patch" in rule["verbs"]:
                assert (role["kind"], rule["resourceNames"]) == ("Role", ["morphisms-probes"])
    reports = {"reports", "clusterreports", "policyreports", "clusterpolicyreports"}
    assert writes == {"events", "leases", "configmaps", *reports}
    subjects = {(each["name"], each["namespace"]) for item in overlaid for each in item.get("subjects", ())}
    assert subjects == {("morphisms-scanner", "morphisms-system")}


def test_nothing_calls_it_and_without_probes_it_calls_the_api_servers_alone(overlaid: list[Object]) -> None:
    assert not [each for each in overlaid if each["kind"] == "Service"]
    policies = {each["metadata"]["name"]: each["spec"] for each in overlaid if each["kind"] == "NetworkPolicy"}
    assert policies.keys() == {"morphisms-scanner", "morphisms-scanner-probes"}
    assert {tuple(each["policyTypes"]) for each in policies.values()} == {("Egress",)}
    (rule,) = policies["morphisms-scanner"]["egress"]
    assert {each["port"] for each in rule["ports"]} == {443, 6443}
    ports = {each["port"] for rule in policies["morphisms-scanner-probes"]["egress"] for each in rule["ports"]}
    assert ports == {53, 443, 8443, 8200}
