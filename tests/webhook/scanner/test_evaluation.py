"""What the scanner says of one workload: the class of each finding, the line to change, and never a value."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from webhook.configuration.model import Configuration
from webhook.modes import Mode
from webhook.scanner.evaluation import UNREADABLE, Evaluator
from webhook.scanner.finding import Evaluation, FindingClass, ObjectId
from webhook.scanner.kinds import SCANNED_KINDS, counts
from webhook.snapshot import RuntimeClassRecord, Snapshot

Json = dict[str, Any]

_IMAGE = "registry.example/app@sha256:" + "a" * 64
_PASSWORD = "hunter2-Tr0ub4dor-correct"
_SNAPSHOT = Snapshot(
    namespaces={"shop": Mode.AUDIT},
    runtime_classes={"kata-qemu-snp": RuntimeClassRecord("kata-qemu-snp", "kata-qemu-snp")},
    now=datetime(2027, 1, 1, tzinfo=UTC),
)
_LAST_APPLIED = {
    "kubectl.kubernetes.io/last-applied-configuration": json.dumps(
        {"env": [{"name": "DB_PASSWORD", "value": _PASSWORD}]}
    )
}
_FIXED, _YOURS = FindingClass.FIXED_BY_INJECTION, FindingClass.YOURS_TO_CHANGE


def _container(**more: Any) -> Json:
    return {"name": "app", "image": _IMAGE, **more}


def _deployment(*containers: Json, **spec: Any) -> Json:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [*containers] or [_container()], **spec}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u-1"},
        "spec": {"template": template},
    }


def _service(*containers: Json, kind: str = "Service") -> Json:
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": kind,
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"template": {"spec": {"containers": [*containers]}}},
    }


def _evaluate(item: Json, configuration: Configuration | None = None, **more: Any) -> Evaluation:
    found = Evaluator(configuration or Configuration(), _SNAPSHOT).evaluate(item, **more)
    assert found is not None
    return found


def _rules(found: Evaluation, kind: FindingClass) -> set[str]:
    return {each.rule for each in found.findings if each.kind is kind}


def test_a_good_workload_is_ready_and_is_told_what_injection_will_do() -> None:
    found = _evaluate(_deployment())
    assert found.is_ready
    assert _rules(found, _FIXED) == {"placement/runtime-class", "placement/node-affinity", "secrets/init-container"}
    assert not _rules(found, _YOURS)
    assert (found.mode, found.target) == (Mode.AUDIT, Mode.ENFORCE)
    assert found.object == ObjectId("apps/v1", "Deployment", "shop", "web", "u-1")


def test_each_finding_names_the_line_in_the_object_that_its_author_wrote() -> None:
    """Injection puts a container first and removes variables, and each kind has its template elsewhere."""
    env = [{"name": "FROM_VAULT", "value": "vault:secret/db#user"}, {"name": "DB_PASSWORD", "value": _PASSWORD}]
    item = _deployment(_container(env=env, command=["app"]), hostNetwork=True)
    item["spec"]["template"]["metadata"]["annotations"] = {"morphisms.dev/inject": "true"}
    fields = {each.rule: each.field for each in _evaluate(item).denying}
    assert fields["secrets/plaintext-env"] == "spec.template.spec.containers[0].env[1]"
    assert fields["isolation/host-namespaces"] == "spec.template.spec.hostNetwork"
    service = {each.rule: each.field for each in _evaluate(_service(_container(env=env, command=["app"]))).denying}
    assert service["secrets/plaintext-env"] == "spec.template.spec.containers[0].env[1]"
    template = item["spec"].pop("template")
    cron = {
        **item,
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "spec": {"jobTemplate": {"spec": {"template": template}}},
    }
    of_cron = {each.rule: each.field for each in _evaluate(cron).denying}
    assert of_cron["secrets/plaintext-env"] == "spec.jobTemplate.spec.template.spec.containers[0].env[1]"
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": template["spec"],
    }
    assert {each.rule: each.field for each in _evaluate(pod).denying}["secrets/plaintext-env"] == (
        "spec.containers[0].env[1]"
    )


def test_a_finding_never_holds_the_secret_that_it_is_about() -> None:
    item = _deployment(_container(env=[{"name": "DB_PASSWORD", "value": _PASSWORD}], args=["--password", _PASSWORD]))
    item["metadata"]["annotations"] = _LAST_APPLIED
    found = _evaluate(item)
    assert {"secrets/plaintext-env", "secrets/last-applied"} <= _rules(found, _YOURS)
    assert _PASSWORD not in repr(found)


def test_what_is_kept_on_the_workload_alone_refuses_no_pod() -> None:
    """A Deployment's last-applied-configuration is no pod's: it is told, and enforce still admits the pods."""
    item = _deployment()
    item["metadata"]["annotations"] = _LAST_APPLIED
    found = _evaluate(item)
    assert _rules(found, _YOURS) == {"secrets/last-applied"}
    assert found.is_ready


def test_a_finding_says_what_admission_does_now_and_would_do() -> None:
    item = _deployment(hostNetwork=True)
    (now,) = _evaluate(item).denying
    assert (now.action_now, now.action) == ("record", "deny")
    (enforced,) = _evaluate(item, mode=Mode.ENFORCE).denying
    assert (enforced.action_now, enforced.action) == ("deny", "deny")
    (unlabelled,) = _evaluate(item, mode=Mode.ABSENT).denying
    assert unlabelled.action_now == "ignore"
    assert _evaluate(item, target=Mode.INJECT).is_ready
    assert _evaluate(item, target=Mode.ABSENT).exempt
    opted_out = _deployment()
    opted_out["spec"]["template"]["metadata"]["annotations"] = {"morphisms.dev/inject": "false"}
    assert _evaluate(opted_out, target=Mode.INJECT).exempt == "the pod opts out"
    assert not _evaluate(opted_out).exempt


@pytest.mark.parametrize("owner", ["Deployment/web", "CronJob/web", "StatefulSet/web"])
def test_an_exception_covers_the_workload_that_it_names_until_it_expires(owner: str) -> None:
    kind = owner.partition("/")[0]
    entry = {"namespace": "shop", "owner": owner, "rules": ["isolation/host-path"], "reason": "SEC-1"}
    configuration = Configuration.model_validate({"exceptions": [{**entry, "expires": "2027-01-31"}]})
    item = _deployment(volumes=[{"name": "host", "hostPath": {"path": "/"}}])
    item["kind"] = kind
    if kind == "CronJob":
        item |= {"apiVersion": "batch/v1", "spec": {"jobTemplate": {"spec": item["spec"]}}}
    found = _evaluate(item, configuration)
    assert found.is_ready
    assert [(each.rule, each.denies) for each in found.excepted] == [("isolation/host-path", False)]
    later = replace(_SNAPSHOT, now=datetime(2027, 2, 1, tzinfo=UTC))
    expired = Evaluator(configuration, later).evaluate(item)
    assert expired is not None
    assert [each.rule for each in expired.denying] == ["isolation/host-path"]
    other = _evaluate({**item, "metadata": {"name": "other", "namespace": "shop"}}, configuration)
    assert [each.rule for each in other.denying] == ["isolation/host-path"]


def test_a_stateful_set_with_knatives_labels_is_refused_and_a_replica_set_is_not() -> None:
    """Knative's Deployments make such pods; who else does would pass as a Service's."""
    item = _deployment()
    item["spec"]["template"]["metadata"]["labels"] = {"serving.knative.dev/revision": "web-00001"}
    assert _evaluate(item).is_ready
    denying = _evaluate({**item, "kind": "StatefulSet"}).denying
    assert [each.rule for each in denying] == ["isolation/knative-labels"]


def test_a_running_pod_is_judged_as_it_would_be_made_again() -> None:
    """The scheduler wrote the node's name, and enforce refuses one only in a pod that is created with it."""
    pod = {**_deployment()["spec"]["template"], "apiVersion": "v1", "kind": "Pod"}
    pod |= {"metadata": {"name": "web-0", "namespace": "shop"}, "spec": {**pod["spec"], "nodeName": "plain-0"}}
    assert _evaluate(pod).is_ready


def test_an_object_that_cannot_be_read_is_not_called_ready() -> None:
    for spec in ({}, {"template": {"spec": {"containers": "all"}}}, {"template": 5}):
        found = _evaluate({**_deployment(), "spec": spec})
        assert not found.is_ready
        assert [(each.rule, each.kind) for each in found.findings] == [(UNREADABLE, FindingClass.NOT_EVALUATED)]
    assert Evaluator(Configuration(), _SNAPSHOT).evaluate({"apiVersion": "v1", "kind": "Secret"}) is None


def _owned(kind: str, version: str, by: tuple[str, str] | None = None, **more: Any) -> Json:
    owners = [] if by is None else [{"apiVersion": by[0], "kind": by[1], "name": "o", "controller": True}]
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "n", "ownerReferences": owners}, **more}


def test_each_workload_counts_once() -> None:
    serving = "serving.knative.dev/v1"
    assert counts(_owned("Service", serving))
    assert counts(_owned("Configuration", serving))
    assert not counts(_owned("Configuration", serving, (serving, "Service")))
    assert not counts(_owned("Deployment", "apps/v1", (serving, "Revision")))
    assert not counts(_owned("ReplicaSet", "apps/v1", ("apps/v1", "Deployment")))
    assert not counts(_owned("Pod", "v1", ("v1", "ReplicationController")))
    assert counts(_owned("Pod", "v1", ("argoproj.io/v1alpha1", "Rollout")))
    assert not counts(_owned("Pod", "v1", status={"phase": "Succeeded"}))
    reserve = _owned("Revision", serving)
    reserve["metadata"]["labels"] = {"serving.knative.dev/routingState": "reserve"}
    assert not counts(reserve)


def test_every_kind_that_makes_pods_is_listed() -> None:
    listed = {(kind.api_version, kind.kind) for kind in SCANNED_KINDS}
    assert ("v1", "ReplicationController") in listed
    evaluator = Evaluator(Configuration(), _SNAPSHOT)
    for version, kind in listed:
        assert evaluator.evaluate({"apiVersion": version, "kind": kind, "metadata": {}}) is not None
