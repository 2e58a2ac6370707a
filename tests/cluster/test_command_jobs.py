"""The Jobs of `preflight --probe` and `doctor --job`: their controller makes their pods in a restricted namespace."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cli.diagnosis.job import job_of as doctor_job
from cli.live.job import RESTRICTED_CONTAINER, RESTRICTED_POD
from cli.preflight.probe_job import job_of as probe_job
from tests.cluster.attacks import IMAGE
from tests.cluster.client import Object
from tests.cluster.commands import runner
from tests.cluster.controlplane import ControlPlane
from tests.cluster.installation import Installation
from tests.cluster.namespace import Namespace
from webhook.modes import Mode

Make = Callable[..., Namespace]

pytestmark = pytest.mark.usefixtures("morphisms")

_RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def _pod_of(here: Namespace, job: Object) -> Object:
    """The pod that the Job's controller made, as it was admitted."""
    here.admin.create(here.path("jobs", group="batch/v1"), job)
    name = job["metadata"]["name"]

    def made(items: list[Object]) -> Object | None:
        labels = "batch.kubernetes.io/job-name"
        return next((each for each in items if each["metadata"].get("labels", {}).get(labels) == name), None)

    found: Object = here.admin.until(here.pods(), made)
    return found


def _create_ill_pod(here: Namespace) -> None:
    container = {"name": "app", "image": IMAGE, "securityContext": RESTRICTED_CONTAINER}
    metadata = {"name": "ill", "annotations": {"morphisms.dev/secret-tls": "secret/shop/tls#certificate"}}
    spec = {"containers": [container], "securityContext": RESTRICTED_POD}
    here.admin.create(here.pods(), {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def _init_containers(pod: Object) -> list[str]:
    return [each["name"] for each in pod["spec"].get("initContainers", ())]


@pytest.mark.parametrize("mode", [Mode.AUDIT, Mode.INJECT])
def test_the_pod_of_a_probing_job_is_admitted_and_not_injected(namespace: Make, mode: Mode) -> None:
    pod = _pod_of(namespace(mode.value, **_RESTRICTED), probe_job(IMAGE, "{}"))
    assert _init_containers(pod) == []
    assert "runtimeClassName" not in pod["spec"]


@pytest.mark.parametrize("mode", [Mode.INJECT, Mode.ENFORCE])
def test_the_pod_of_a_doctors_job_is_admitted_and_injected_where_every_pod_is(namespace: Make, mode: Mode) -> None:
    here = namespace(mode.value, **_RESTRICTED)
    _create_ill_pod(here)
    job = doctor_job(here.admin.get(here.pods("ill")), mode)
    assert job is not None
    # The tests' installation names its image by a tag, which `enforce` refuses outside of morphisms-init.
    job["spec"]["template"]["spec"]["containers"][0]["image"] = IMAGE
    pod = _pod_of(here, job)
    assert _init_containers(pod) == (["morphisms-init"] if mode is Mode.ENFORCE else [])
    assert pod["spec"]["runtimeClassName"] == "kata-qemu-snp"


@pytest.mark.parametrize("knows", [True, False], ids=["the cluster's configuration", "a milder one"])
def test_a_doctors_job_whose_pod_would_be_refused_is_never_created(
    cluster: ControlPlane,
    morphisms: Installation,
    namespace: Make,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    knows: bool,
) -> None:
    """The sidecar's image has a tag and no digest, so no pod would come of the Job, and three minutes would pass."""
    here = namespace(Mode.ENFORCE.value, **_RESTRICTED)
    _create_ill_pod(here)
    options = ["ill", "-n", here.name, "--job", "-o", "json"]
    if not knows:
        file = tmp_path / "webhook.yaml"
        rules = {"images/digest": {"enforce": "record"}}
        file.write_text(yaml.safe_dump({**morphisms.configuration(), "rules": rules}))
        options += ["--config", str(file)]
    done = runner(cluster, capsys)("doctor", *options)
    [line] = [each for each in json.loads(done.out)["lines"] if each["check"] == "job"]
    assert (done.code, line["state"], "[images/digest]" in line["text"]) == (1, "not-evaluated", True), line
    assert here.admin.items(here.path("jobs", group="batch/v1")) == []
    assert "creating Job" not in done.err
