"""A Pod, a Deployment and a StatefulSet get a workload identity: rendered, applied, made by their own controllers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import yaml

from cli.main import main
from cli.proof.guest_requests import Host, guest_requests
from measured.measured_document import differences, document_of_annotation
from measured.pod import INITDATA_ANNOTATION
from tests.cli import kinds
from tests.cluster.attacks import DRY
from tests.cluster.client import Client, Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.installation import Installation
from tests.cluster.knative import APP_IMAGE, QUEUE_IMAGE
from tests.cluster.namespace import Namespace
from tests.cluster.rendered import CONFIGURATIONS, capture, failures, pinned_sidecar, write_inputs
from tests.support.policy_engine import Engine

_CLAIMED: Final = ("Pod", "Deployment", "StatefulSet")


@dataclass(frozen=True)
class Stage:
    """A namespace, and the folder of each kind's rendering."""

    here: Namespace
    developer: Client
    folders: dict[str, Path]

    def pod(self, kind: str) -> Object:
        """The workload's pod, as it is stored."""
        (pod,) = self.here.admin.until(
            self.here.pods(), lambda pods: [each for each in pods if each["metadata"]["labels"]["app"] == kind] or None
        )
        found: Object = pod
        return found


@pytest.fixture(scope="module")
def stage(cluster: ControlPlane, morphisms: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A cluster of which Knative's settings are written by hand, because nothing of Knative's is rendered here."""
    folder = tmp_path_factory.mktemp("kinds")
    here = Namespace.make(cluster.admin, "enforce", {})
    with pinned_sidecar(morphisms):
        captured = capture(cluster)
        captured["knative"]["configMaps"]["config-deployment"] = {"queue-sidecar-image": QUEUE_IMAGE}
        options = ["-n", here.name, *write_inputs(folder, captured)]
        for kind in _CLAIMED:
            (folder / f"{kind}.yaml").write_text(yaml.safe_dump(_item(kind)))
            words = ["render", "-f", str(folder / f"{kind}.yaml"), *options, "-o", str(folder / kind)]
            assert main(words) == 0, kind
        yield Stage(here, cluster.user("dev"), {kind: folder / kind for kind in _CLAIMED})
    here.delete()


def _item(kind: str) -> Object:
    """The workload of the offline tests, as the developer would apply it here: one replica, this cluster's image."""
    item = kinds.workload(kind, kind.lower())
    del item["metadata"]["namespace"]
    template = item if kind == "Pod" else item["spec"]["template"]
    template["metadata"].setdefault("labels", {})["app"] = kind
    spec = template["spec"]
    spec["serviceAccountName"] = "default"
    for container in (*spec["initContainers"], *spec["containers"]):
        container["image"] = APP_IMAGE
    if kind != "Pod":
        item["spec"] |= {"replicas": 1, "selector": {"matchLabels": {"app": kind}}}
    return item


def test_the_pods_that_the_controllers_make_are_the_measured_ones(stage: Stage) -> None:
    for folder in stage.folders.values():
        stage.developer.kubectl("apply", "-n", stage.here.name, "-f", folder / "workload.yaml")
    for kind, folder in stage.folders.items():
        pod = stage.pod(kind)
        document = document_of_annotation(pod["metadata"]["annotations"][INITDATA_ANNOTATION])
        assert document is not None
        assert differences(pod, document) == []
        record = yaml.safe_load((folder / "appraisal.yaml").read_text())
        assert record["workload"]["service"] == kind.lower()
        assert record["hostData"] == [document.initdata.host_data.hex()]
        requests = guest_requests(pod, CONFIGURATIONS, Host(random.Random(1)))
        with Engine((folder / "policy.rego").read_text()) as guest:
            assert [ask["kind"] for ask in requests if not guest.ask(ask["kind"], ask["request"])] == [], kind


@pytest.mark.parametrize("kind", _CLAIMED)
def test_a_workload_that_was_changed_after_its_rendering_makes_no_pod(stage: Stage, kind: str) -> None:
    here = stage.here
    changed: Object = yaml.safe_load((stage.folders[kind] / "workload.yaml").read_text())
    changed["metadata"] |= {"namespace": here.name, "name": f"changed-{kind.lower()}"}
    template = changed if kind == "Pod" else changed["spec"]["template"]
    template["spec"]["containers"][0]["env"][1]["value"] = "ultramarine"
    if kind == "Pod":
        message = stage.developer.request("POST", here.pods(), changed, query=DRY).message
    else:
        stage.developer.apply(changed)
        message = here.admin.until(
            here.path("events"), lambda events: failures(events, changed["metadata"]["name"]) or None
        )[0]
    assert "isolation/measured-pod" in message
    assert "COLOUR" in message
    assert "ultramarine" not in message
