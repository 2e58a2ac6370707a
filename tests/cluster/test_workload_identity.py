"""A Service gets a workload identity: captured, rendered, applied, made by Knative, injected by the webhook."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from cli.main import main
from cli.proof.guest_requests import Host, guest_requests
from measured.measured_document import differences, document_of_annotation
from measured.pod import INITDATA_ANNOTATION
from plan.layout import CONTAINER
from tests.cluster.audit import Event
from tests.cluster.commands import until_unchanged
from tests.cluster.controlplane import ControlPlane
from tests.cluster.installation import Installation
from tests.cluster.knative import pod_of
from tests.cluster.namespace import Namespace
from tests.cluster.rendered import CONFIGURATIONS, SERVICE, capture, found, pinned_sidecar, write_inputs
from tests.support.paths import ROOT
from tests.support.policy_engine import Engine
from tests.webhook.properties.test_measured_services import FOREIGN, Change, changes

DRY_RUN: Final = {"dryRun": "All"}


@dataclass(frozen=True)
class Applied:
    """A rendered Service that was applied: its namespace and folder, the object, and the pod that came of it."""

    here: Namespace
    out: Path
    service: dict[str, Any]
    pod: dict[str, Any]

    @property
    def policy(self) -> str:
        return (self.out / "policy.rego").read_text()


@pytest.fixture(scope="module")
def applied(
    cluster: ControlPlane, morphisms: Installation, knative: object, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Applied]:
    """Captured, rendered, applied, made by Knative's controller, injected by the webhook."""
    assert knative
    folder = tmp_path_factory.mktemp("identity")
    with pinned_sidecar(morphisms):
        here = Namespace.make(cluster.admin, "enforce", {})
        options = write_inputs(folder, capture(cluster))
        (folder / "service.yaml").write_text(SERVICE)
        options += ["-f", str(folder / "service.yaml")]
        assert main(["render", "-n", here.name, *options, "-o", str(folder / "out")]) == 0
        service = yaml.safe_load((folder / "out" / "service.yaml").read_text())
        cluster.user("dev").kubectl("-n", here.name, "apply", "-f", folder / "out" / "service.yaml")
        pod = pod_of(here, service["spec"]["template"]["metadata"]["name"])
        yield Applied(here, folder / "out", service, pod)
        here.delete()


def test_a_capture_needs_what_the_page_grants_and_reads_nothing_else(
    cluster: ControlPlane, applied: Applied, capsys: pytest.CaptureFixture[str]
) -> None:
    ci, mark = cluster.user("ci"), cluster.audit.mark()
    refused = ["capture", "--kubeconfig", str(ci.kubeconfig)]
    assert main(refused) == 2
    assert "the API server refused (403)" in capsys.readouterr().err
    page = (ROOT / "docs" / "workload-identity.md").read_text()
    (block,) = [each for each in page.split("```yaml\n") if "name: morphisms-capture" in each]
    roles = list(yaml.safe_load_all(block.partition("```")[0]))
    for role in roles:
        cluster.admin.apply(role)
        cluster.admin.apply(_bound(role, "ci"))
    assert capture(cluster, ci) == capture(cluster)
    assert main(refused) == 2
    assert "does not say Knative's version" in capsys.readouterr().err, "the role lets it look for the Deployment"

    def is_last(event: Event) -> bool:
        return event["user"]["username"] == "ci" and event["objectRef"]["resource"] == "deployments"

    cluster.audit.until(lambda event: is_last(event) and event["responseStatus"]["code"] == 404, mark)
    cluster.audit.until_now(cluster.admin)
    asked = [each for each in cluster.audit.events(mark) if each["user"]["username"] == "ci"]
    assert {(each["verb"], each["objectRef"]["resource"]) for each in asked} == {
        ("get", "configmaps"),
        ("get", "deployments"),
        ("list", "serviceaccounts"),
    }
    for role in roles:
        cluster.kubectl("delete", "-f", "-", input=[_bound(role, "ci"), role])


def _bound(role: dict[str, Any], user: str) -> dict[str, Any]:
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": f"{role['kind']}Binding",
        "metadata": role["metadata"],
        "roleRef": {"apiGroup": group, "kind": role["kind"], "name": role["metadata"]["name"]},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    }


def test_the_pod_that_knative_makes_is_the_one_that_was_measured(applied: Applied) -> None:
    document = document_of_annotation(applied.pod["metadata"]["annotations"][INITDATA_ANNOTATION])
    assert document is not None
    assert differences(applied.pod, document) == []
    requests = guest_requests(applied.pod, CONFIGURATIONS, Host(random.Random(1)))
    with Engine(applied.policy) as guest:
        assert [ask["kind"] for ask in requests if not guest.ask(ask["kind"], ask["request"])] == []


def test_a_rendered_service_of_a_repository_is_what_the_cluster_has(cluster: ControlPlane, applied: Applied) -> None:
    developer, file = cluster.user("dev"), applied.out / "service.yaml"
    for options in ((), ("--server-side", "--force-conflicts")):
        developer.kubectl("-n", applied.here.name, "apply", *options, "-f", file)
        until_unchanged(developer, "-n", applied.here.name, *options, "-f", file)


def test_a_service_that_was_changed_after_its_rendering_gets_no_pod_and_is_told_the_field(
    cluster: ControlPlane, applied: Applied
) -> None:
    other = copy.deepcopy(applied.service)
    other["metadata"]["namespace"] = applied.here.name
    (variable,) = [one for one in other["spec"]["template"]["spec"]["containers"][0]["env"] if one["name"] == "COLOUR"]
    variable["value"] = "ultramarine"
    revision = f"{other['spec']['template']['metadata']['name'][:-1]}x"
    other["spec"]["template"]["metadata"]["name"] = revision
    cluster.user("dev").apply(other)
    message = found(lambda: _failure(applied.here, revision))
    assert "isolation/measured-pod" in message
    assert "COLOUR" in message
    assert "ultramarine" not in message


def test_every_field_that_reaches_the_guest_is_refused_early_with_its_name_and_late_for_real(
    cluster: ControlPlane, applied: Applied
) -> None:
    """Each changed alone, in the pod as a hostile controller would hand it over.

    What is ours in the pod, injection writes back as it was measured.
    """
    controller = cluster.service_account("kube-system", "replicaset-controller")
    document = document_of_annotation(applied.pod["metadata"]["annotations"][INITDATA_ANNOTATION])
    assert document is not None
    path = applied.here.path("pods")
    assert controller.request("POST", path, _again(applied.pod), query=DRY_RUN).status == 201
    images = {**CONFIGURATIONS, FOREIGN: {"Entrypoint": ["/foreign"]}}
    refused, written_back, wrong = 0, 0, []
    with Engine(applied.policy) as guest:
        for change in _each_kind(changes(applied.pod)):
            changed = copy.deepcopy(applied.pod)
            change.apply(changed)
            if changed["metadata"]["namespace"] == applied.here.name:
                answer = controller.request("POST", path, _again(changed), query=DRY_RUN)
                lines = answer.message.split("; ")
                if answer.status == 201 and _is_ours(change) and differences(answer.body, document) == []:
                    written_back += 1
                elif answer.status != 201 and any(all(part in line for part in change.field) for line in lines):
                    refused += 1
                else:
                    wrong.append(("early", change.field, answer.status, answer.message))
            guest.load(applied.policy)
            requests = guest_requests(changed, images, Host(random.Random(1)))
            if all(guest.ask(ask["kind"], ask["request"]) for ask in requests):
                wrong.append(("late", change.field))
    assert wrong == []
    assert refused > 40
    assert written_back > 10


def _each_kind(all_changes: Iterable[Change]) -> Iterator[Change]:
    """Without most of queue-proxy's many variables, each of which takes the same way."""
    for change in all_changes:
        container, field = change.field[0], change.field[-1]
        if container != "queue-proxy" or not field.isupper() or field in ("SERVING_REVISION", "SERVING_POD"):
            yield change


def _is_ours(change: Change) -> bool:
    return change.field[0] == CONTAINER or change.field[-1].startswith("/morphisms/")


def _again(pod: dict[str, Any]) -> dict[str, Any]:
    """The pod as it can be created once more."""
    metadata, spec = pod["metadata"], pod["spec"]
    kept = {name: metadata[name] for name in ("generateName", "labels", "annotations", "ownerReferences")}
    if not metadata["name"].startswith(metadata["generateName"]):
        kept["name"] = metadata["name"]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": kept, "spec": {**spec, "nodeName": None}}


def _failure(here: Namespace, revision: str) -> str | None:
    """Why the ReplicaSet of a Revision can make no pod."""
    for replica_set in here.admin.get(here.path("replicasets", group="apps/v1"))["items"]:
        if replica_set["metadata"]["labels"].get("serving.knative.dev/revision") == revision:
            for condition in replica_set.get("status", {}).get("conditions") or []:
                if condition["type"] == "ReplicaFailure":
                    return str(condition["message"])
    return None
