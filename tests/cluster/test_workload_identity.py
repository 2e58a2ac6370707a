"""A Service gets a workload identity: captured, rendered, applied, made by Knative, injected by the webhook."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
import yaml

from cli.main import main
from measured.measured_document import differences, document_of_annotation
from measured.pod import INITDATA_ANNOTATION
from tests.cluster.controlplane import ControlPlane
from tests.cluster.installation import Installation
from tests.cluster.knative import APP_IMAGE, QUEUE_IMAGE, pod_of
from tests.cluster.namespace import Namespace
from tests.measured.guest_requests import Host, guest_requests
from tests.support.policy_engine import Engine
from tests.support.until import until

T = TypeVar("T")

SIDECAR: Final = f"registry.example/morphisms/sidecar@sha256:{'5' * 64}"
CONFIGURATIONS: Final[dict[str, dict[str, Any]]] = {
    APP_IMAGE: {"Env": ["PATH=/bin"], "Entrypoint": ["/app"], "User": "1000:1000"},
    QUEUE_IMAGE: {"Entrypoint": ["/ko-app/queue"], "User": "65532:65532"},
    SIDECAR: {"Entrypoint": ["/usr/bin/morphisms-init"], "User": "65532:65532"},
}
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
    settings = morphisms.configuration()
    morphisms.configure({**settings, "sidecar": {**settings.get("sidecar", {}), "image": SIDECAR}})
    yield
    morphisms.configure(settings)


@pytest.mark.usefixtures("pinned", "knative")
def test_the_pod_that_knative_makes_is_the_one_that_was_measured(
    cluster: ControlPlane, namespace: Callable[..., Namespace], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = namespace("enforce")
    captured = _found(lambda: _captured(cluster, capsys))
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(captured))
    trust = {"version": 1, "template": captured["template"], "queueProxy": QUEUE_IMAGE, "guests": ["kata-snp"]}
    login = {"mount": "jwt", "role": "knative"}
    (tmp_path / "trust.yaml").write_text(yaml.safe_dump({**trust, "vault": login}))
    (tmp_path / "images.json").write_text(json.dumps(CONFIGURATIONS))
    (tmp_path / "service.yaml").write_text(SERVICE.format(image=APP_IMAGE))
    files = {"-f": "service.yaml", "--cluster": "cluster.yaml", "--trust": "trust.yaml", "--images": "images.json"}
    options = [word for name, file in files.items() for word in (name, str(tmp_path / file))]
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
    message = _found(lambda: _failure(here, f"{revision[:-1]}x"))
    assert "isolation/measured-pod" in message
    assert "COLOUR" in message
    assert "ultramarine" not in message


def _found(look: Callable[[], T | None]) -> T:
    """What the look-up finds in the end."""
    found: list[T] = []

    def has_found() -> bool:
        if (one := look()) is not None:
            found.append(one)
        return bool(found)

    until(has_found)
    return found[0]


def _captured(cluster: ControlPlane, capsys: pytest.CaptureFixture[str]) -> dict[str, Any] | None:
    """The capture, once the new template is in force."""
    capsys.readouterr()
    code = main(["capture", "--kubeconfig", str(cluster.admin.kubeconfig), "--knative-version", "v1.23.0"])
    document = yaml.safe_load(capsys.readouterr().out) if code == 0 else None
    return document if document and document["template"]["sidecar"]["image"] == SIDECAR else None


def _failure(here: Namespace, revision: str) -> str | None:
    """Why the ReplicaSet of a Revision can make no pod."""
    for replica_set in here.admin.get(here.path("replicasets", group="apps/v1"))["items"]:
        if replica_set["metadata"]["labels"].get("serving.knative.dev/revision") == revision:
            for condition in replica_set.get("status", {}).get("conditions") or []:
                if condition["type"] == "ReplicaFailure":
                    return str(condition["message"])
    return None
