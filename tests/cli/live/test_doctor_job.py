"""`morphisms doctor POD --job`: a Job that the namespace admits, which is read and gone afterwards."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from cli.diagnosis.job import job_of
from cli.live import job as live_job
from cli.support.admission import Admission
from sidecar.doctor import Report
from sidecar.errors import SidecarError
from sidecar.reasons import Reason
from tests.cli.audit.found import IMAGE, SNAPSHOT
from tests.cli.live.conftest import Run
from tests.cli.live.job_runner import JOBS, JobRunner
from tests.cli.live.stand_in import SYSTEM, StandIn, ready
from tests.support.done import Done
from webhook.configuration.model import Configuration
from webhook.modes import Mode
from webhook.request import User
from webhook.snapshot import Snapshot

Json = dict[str, Any]
_POD = "/api/v1/namespaces/shop/pods/web"
_CONTROLLER = User("system:serviceaccount:kube-system:job-controller")
_IMAGE = "registry.example/sidecar@sha256:" + "b" * 64
_CONFIGURATION = Configuration.model_validate({"cluster": "prod", "sidecar": {"image": _IMAGE}})
_MODES = [Mode.AUDIT, Mode.INJECT, Mode.ENFORCE]


def _snapshot(mode: Mode) -> Snapshot:
    return Snapshot({"shop": mode}, runtime_classes=SNAPSHOT.runtime_classes, now=SNAPSHOT.now)


def _injected(mode: Mode) -> Json:
    """A pod with a secret, as the webhook injects it."""
    metadata = {
        "name": "web",
        "namespace": "shop",
        "annotations": {"morphisms.dev/secret-db": "secret/shop/db#password"},
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [{"name": "a", "image": IMAGE}]},
    }
    admitted = Admission(_CONFIGURATION, _snapshot(mode)).pod(pod, "shop")
    assert admitted.denial is None
    return admitted.object


def _log(*failed: Reason) -> str:
    """What the doctor prints: some steps are well, and these fail."""
    lines: list[str] = []
    report = Report(lines.append)
    report.ok("evidence", "coco-aa gives reports")
    for reason in failed:
        report.failed(
            "attestation" if reason is Reason.VERIFIER_REFUSED else reason.value[:12], SidecarError(reason, "no")
        )
    report.skipped("contents", "a secret is missing")
    return "".join(lines)


def _cluster(mode: Mode, log: str = "", **status: Any) -> JobRunner:
    cluster = JobRunner.on(ready(), log, **status)
    cluster.add("shop", mode.value)
    text = f"version: 1\ncluster: prod\nsidecar: {{image: '{_IMAGE}'}}\n"
    cluster.objects[f"{SYSTEM}/morphisms-webhook"] = {"data": {"configuration.yaml": text}}
    ended = {"initContainerStatuses": [{"name": "morphisms-init", "state": {"terminated": {"exitCode": 0}}}]}
    cluster.objects[_POD] = {**_injected(mode), "status": ended}
    cluster.lists["/api/v1/namespaces/shop/events"] = []
    return cluster


def _ask(run: Run, cluster: StandIn) -> Done:
    return run(cluster, "doctor", "web", "-n", "shop", "--job", "-o", "json")


def _lines(done: Done) -> dict[str, tuple[str, str]]:
    return {each["check"]: (each["state"], each["text"]) for each in json.loads(done.out)["lines"]}


@pytest.mark.parametrize("mode", _MODES)
def test_the_webhook_admits_the_jobs_pod_in_every_mode(mode: Mode) -> None:
    job = job_of(_injected(mode), mode)
    assert job is not None
    template = copy.deepcopy(job["spec"]["template"])
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    pod["metadata"] |= {"generateName": "morphisms-doctor-x-", "namespace": "shop"}
    admitted = Admission(_CONFIGURATION, _snapshot(mode)).pod(copy.deepcopy(pod), "shop", _CONTROLLER)
    assert admitted.denial is None
    inits = [each["name"] for each in admitted.object["spec"].get("initContainers", ())]
    assert inits == (["morphisms-init"] if mode is Mode.ENFORCE else [])
    assert admitted.object["spec"]["runtimeClassName"] == "kata-qemu-snp"
    # The plan is the pod's own, and the token is for the verifier.
    init = _injected(mode)["spec"]["initContainers"][0]
    [container] = admitted.object["spec"]["containers"]
    assert (container["image"], container["env"]) == (init["image"], init["env"])


def test_a_pod_that_opts_out_is_refused_in_enforce_so_the_job_never_is_one() -> None:
    job = job_of(_injected(Mode.INJECT), Mode.INJECT)
    assert job is not None
    template = copy.deepcopy(job["spec"]["template"])
    template["metadata"]["namespace"] = "shop"
    admission = Admission(_CONFIGURATION, _snapshot(Mode.ENFORCE))
    assert admission.pod({"apiVersion": "v1", "kind": "Pod", **template}, "shop", _CONTROLLER).denial is not None


@pytest.mark.parametrize("mode", _MODES)
def test_a_developer_reads_each_step_and_the_job_is_gone(run: Run, mode: Mode) -> None:
    cluster = _cluster(mode, _log(Reason.SECRET_MISSING))
    done = _ask(run, cluster)
    found = _lines(done)
    assert done.code == 1
    assert found["evidence"] == ("ok", "coco-aa gives reports")
    assert found["secret-missin"[:12]] == ("failed", "no [secret-missing]")
    assert found["contents"][0] == "not-evaluated"
    assert ("attestation" in found) == (mode is Mode.ENFORCE)
    assert [job["spec"]["backoffLimit"] for job in cluster.jobs] == [0]
    assert cluster.deleted == [(f"{JOBS}/{cluster.name}", {"propagationPolicy": ["Background"]})]


@pytest.mark.parametrize("mode", [Mode.INJECT, Mode.ENFORCE])
def test_a_refusal_of_the_jobs_own_pod_is_skipped(run: Run, mode: Mode) -> None:
    """A verifier that reads pods back knows no workload of the Job's pod."""
    message = "refused [verifier-refused, correlation id 4be1]"
    ended = {"terminated": {"exitCode": 12, "message": message}}
    if mode is Mode.ENFORCE:  # its morphisms-init is refused, and the doctor never starts
        statuses = [{"name": "morphisms-init", "state": ended}]
        cluster = _cluster(mode, phase="Failed", initContainerStatuses=statuses)
    else:
        cluster = _cluster(mode, _log(Reason.VERIFIER_REFUSED).replace("a secret is missing", "x"), phase="Failed")
    state, text = _lines(_ask(run, cluster))["attestation"]
    assert (state, text.startswith("skipped: ")) == ("note", True)
    assert len(cluster.deleted) == 1


def test_another_failure_of_the_jobs_init_is_one(run: Run) -> None:
    ended = {"terminated": {"exitCode": 13, "message": "no answer [verifier-unreachable]"}}
    cluster = _cluster(Mode.ENFORCE, phase="Failed", initContainerStatuses=[{"name": "morphisms-init", "state": ended}])
    assert _lines(_ask(run, cluster))["job"] == ("failed", "no answer [verifier-unreachable]")


def test_what_only_injection_holds_is_not_held_against_the_doctor(run: Run) -> None:
    log = _log(Reason.POD_TOKEN, Reason.VOLUME)
    assert {"pod-token", "volume"}.isdisjoint(_lines(_ask(run, _cluster(Mode.ENFORCE, log))))
    found = _lines(_ask(run, _cluster(Mode.INJECT, log)))
    assert (found["pod-token"][0], found["volume"][0]) == ("failed", "failed")


def test_a_job_that_never_ends_is_deleted_and_not_known(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_job, "SECONDS", -1)
    cluster = _cluster(Mode.INJECT, phase="Pending")
    assert _lines(_ask(run, cluster))["job"][0] == "not-evaluated"
    assert len(cluster.deleted) == 1


def test_without_the_flag_or_the_right_there_is_no_job(run: Run) -> None:
    cluster = _cluster(Mode.INJECT)
    assert run(cluster, "doctor", "web", "-n", "shop").code == 0
    assert cluster.jobs == []
    assert {method for method, _ in cluster.asked} == {"GET"}
    cluster.forbidden.add(JOBS)
    state, text = _lines(_ask(run, cluster))["job"]
    assert (state, "needs create on jobs" in text, cluster.deleted) == ("not-evaluated", True, [])
    assert run(cluster, "doctor", "--job").code == 2


def test_a_pod_without_a_plan_makes_no_job(run: Run) -> None:
    cluster = _cluster(Mode.INJECT)
    cluster.objects[_POD]["spec"].pop("initContainers")
    assert _lines(_ask(run, cluster))["job"][0] == "not-evaluated"
    assert cluster.jobs == []


def test_a_job_that_the_namespace_would_refuse_is_not_created(run: Run) -> None:
    """By tag, an image of the sidecar is refused in enforce; a Job would wait for a pod that never comes."""
    cluster = _cluster(Mode.ENFORCE)
    cluster.objects[_POD]["spec"]["initContainers"][0]["image"] = "registry.example/sidecar:1"
    state, text = _lines(_ask(run, cluster))["job"]
    assert (state, "would refuse the doctor's Job: [images/digest]" in text) == ("not-evaluated", True)
    assert cluster.jobs == []


_SAID = (
    'admission webhook "validate-pod.enforce.morphisms.dev" denied the request: [images/digest] container doctor:'
    " registry.example/sidecar:1 has no digest"
)


def test_what_the_api_server_would_refuse_is_said_at_once_and_no_job_waits_for_it(run: Run) -> None:
    """A quota, a guard, or a rule that this user's view of the configuration lacks: its pod would never come."""
    cluster = _cluster(Mode.ENFORCE)
    cluster.refusals[_IMAGE] = (403, _SAID)
    state, text = _lines(_ask(run, cluster))["job"]
    assert (state, text) == ("not-evaluated", f"the namespace would refuse the pod of the doctor's Job: {_SAID}")
    assert (cluster.jobs, cluster.deleted) == ([], [])
    # What was tried out is the pod that the Job makes.
    [tried] = cluster.tried
    expected = job_of(_injected(Mode.ENFORCE), Mode.ENFORCE)
    assert expected is not None
    template = expected["spec"]["template"]
    assert (tried["spec"], tried["metadata"]["annotations"]) == (template["spec"], template["metadata"]["annotations"])


def test_a_user_who_may_make_jobs_and_no_pods_gets_one(run: Run) -> None:
    cluster = _cluster(Mode.ENFORCE, _log())
    cluster.forbidden.add("/api/v1/namespaces/shop/pods")
    assert _lines(_ask(run, cluster))["evidence"][0] == "ok"
    assert len(cluster.jobs) == 1
