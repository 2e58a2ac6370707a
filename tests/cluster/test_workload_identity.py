"""A Service gets a workload identity: captured, rendered, applied, made by Knative, injected by the webhook."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml

from cli.main import main
from measured.measured_document import differences, document_of_annotation
from measured.pod import INITDATA_ANNOTATION
from tests.cluster.controlplane import ControlPlane
from tests.cluster.installation import Installation
from tests.cluster.knative import APP_IMAGE, pod_of
from tests.cluster.namespace import Namespace
from tests.cluster.rendered import CONFIGURATIONS, capture, found, pinned_sidecar, write_inputs
from tests.measured.guest_requests import Host, guest_requests
from tests.support.policy_engine import Engine

SERVICE: Final = """\
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: payments
  annotations:
    morphisms.dev/secret-tls: ~/tls#certificate
spec:
  template:
    spec:
      containers:
        - image: {image}
          command: [/app]
          env:
            - name: DB_PASSWORD
              value: vault:~/db#password
            - name: COLOUR
              value: blue
"""


@pytest.fixture
def pinned(morphisms: Installation) -> Iterator[None]:
    """The sidecar's image is named by its digest."""
    with pinned_sidecar(morphisms):
        yield


@pytest.mark.usefixtures("pinned", "knative")
def test_the_pod_that_knative_makes_is_the_one_that_was_measured(
    cluster: ControlPlane, namespace: Callable[..., Namespace], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = namespace("enforce")
    options = write_inputs(tmp_path, capture(cluster))
    (tmp_path / "service.yaml").write_text(SERVICE.format(image=APP_IMAGE))
    options += ["-f", str(tmp_path / "service.yaml")]
    assert main(["render", "-n", here.name, *options, "-o", str(tmp_path / "out")]) == 0, capsys.readouterr().err
    service = yaml.safe_load((tmp_path / "out" / "service.yaml").read_text())
    service["metadata"]["namespace"] = here.name
    cluster.user("dev").apply(service)
    revision = service["spec"]["template"]["metadata"]["name"]
    pod = pod_of(here, revision)
    document = document_of_annotation(pod["metadata"]["annotations"][INITDATA_ANNOTATION])
    assert document is not None
    assert differences(pod, document) == []
    requests = guest_requests(pod, CONFIGURATIONS, Host(random.Random(1)))
    with Engine((tmp_path / "out" / "policy.rego").read_text()) as guest:
        assert [ask["kind"] for ask in requests if not guest.ask(ask["kind"], ask["request"])] == []
    other = copy.deepcopy(service)
    other["spec"]["template"]["spec"]["containers"][0]["env"][1]["value"] = "ultramarine"
    other["spec"]["template"]["metadata"]["name"] = f"{revision[:-1]}x"
    cluster.user("dev").apply(other)
    message = found(lambda: _failure(here, f"{revision[:-1]}x"))
    assert "isolation/measured-pod" in message
    assert "COLOUR" in message
    assert "ultramarine" not in message


def _failure(here: Namespace, revision: str) -> str | None:
    """Why the ReplicaSet of a Revision can make no pod."""
    for replica_set in here.admin.get(here.path("replicasets", group="apps/v1"))["items"]:
        if replica_set["metadata"]["labels"].get("serving.knative.dev/revision") == revision:
            for condition in replica_set.get("status", {}).get("conditions") or []:
                if condition["type"] == "ReplicaFailure":
                    return str(condition["message"])
    return None
