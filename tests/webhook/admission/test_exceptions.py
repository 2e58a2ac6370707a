"""Exceptions: which pods they cover, what an attacker cannot make them cover, and when they end."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.paths import REVIEWS
from webhook.admission.exceptions import deployment_of_revision
from webhook.configuration.model import Configuration
from webhook.decide import decide
from webhook.decision import Decision
from webhook.modes import Mode
from webhook.review import read_review, write_review
from webhook.snapshot import RuntimeClassRecord, Snapshot

Json = dict[str, Any]

NOW = datetime(2027, 1, 15, tzinfo=UTC)
ENDS = datetime(2027, 2, 1, tzinfo=UTC)
RULES = ("secrets/plaintext-env", "secrets/kubernetes-secret-env")
_KNATIVE_POD = "pods-create-payments-by-replicaset-controller"
_SERVICE = "services-create-payments-by-dev"
_CLASSES = {"kata-qemu-snp": RuntimeClassRecord("kata-qemu-snp", "kata-qemu-snp")}
_CONTROLLERS = "system:serviceaccount:kube-system:"


def configuration(*rules: str, **workload: str) -> Configuration:
    entry = {
        "namespace": "default",
        "rules": list(rules or RULES),
        "reason": "SEC-123",
        "expires": "2027-02-01",
        **(workload or {"service": "payments"}),
    }
    return Configuration.model_validate({"exceptions": [entry]})


def _snapshot(mode: Mode, now: datetime | None = NOW) -> Snapshot:
    return Snapshot({"default": mode, "jobs": mode, "other": mode}, {}, _CLASSES, now=now)


def _review(name: str) -> Json:
    review: Json = json.loads((REVIEWS / f"{name}.json").read_text())
    return review


def _decided(
    review: Json, path: str, used: Configuration, mode: Mode = Mode.ENFORCE, now: datetime | None = NOW
) -> Decision:
    return decide(read_review(json.dumps(review).encode(), path), used, _snapshot(mode, now))


def created(review: Json, used: Configuration, mode: Mode = Mode.ENFORCE, now: datetime | None = NOW) -> Decision:
    """The answer to the pod's creation: mutated, then validated, as the API server calls."""
    review = copy.deepcopy(review)
    mutated = _decided(review, "/mutate/pod", used, mode, now)
    assert mutated.allowed, mutated.denial
    if mutated.result is not None:
        review["request"]["object"] = mutated.result
    return _decided(review, "/validate/pod", used, mode, now)


def _pod(name: str = _KNATIVE_POD, **changes: Any) -> Json:
    """A recorded creation of a pod that violates two rules which an exception may cover."""
    review = _review(name)
    pod = review["request"]["object"]
    pod["spec"]["containers"][0]["env"] = [
        {"name": "DB_PASSWORD", "value": "correct-horse-battery"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "token"}}},
    ]
    for container in (*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())):
        container["image"] = "registry.example/app@sha256:" + "a" * 64
    return review


def _rules(decision: Decision) -> set[str]:
    return {violation.rule.id for violation in decision.violations}


def test_a_services_pods_are_admitted_while_its_exception_lasts_and_denied_after() -> None:
    assert _rules(created(_pod(), Configuration())) == set(RULES)
    decision = created(_pod(), configuration())
    assert decision.allowed
    assert _rules(decision) == set()
    assert {each.violation.rule.id for each in decision.covered} == set(RULES)
    assert decision.audit["excepted"] == ",".join(RULES)
    assert decision.audit["excepted-until"] == "2027-02-01T00:00:00Z"
    last = "[secrets/plaintext-env] an exception covers this until 2027-02-01T00:00:00Z: SEC-123"
    assert last in decision.warnings
    assert created(_pod(), configuration(), now=ENDS - timedelta(seconds=1)).allowed
    assert _rules(created(_pod(), configuration(), now=ENDS)) == set(RULES)


def test_nothing_is_covered_where_the_time_is_not_known() -> None:
    assert _rules(created(_pod(), configuration(), now=None)) == set(RULES)


def test_an_exception_covers_the_rules_that_it_names_and_no_other() -> None:
    decision = created(_pod(), configuration("secrets/plaintext-env"))
    assert _rules(decision) == {"secrets/kubernetes-secret-env"}
    assert not decision.allowed
    assert decision.audit["excepted"] == "secrets/plaintext-env"


def test_audit_does_not_count_what_is_excepted_as_a_change_to_make() -> None:
    assert created(_pod(), Configuration(), Mode.AUDIT).audit["must-change"] == ",".join(RULES)
    decision = created(_pod(), configuration(), Mode.AUDIT)
    assert decision.audit["ready"] == "true"
    assert "must-change" not in decision.audit
    assert "must-change" not in _decided(_pod(), "/mutate/pod", configuration(), Mode.AUDIT).audit


@pytest.mark.parametrize(
    ("recording", "namespace", "owner"),
    [
        (_KNATIVE_POD, "default", "ReplicaSet/payments-00001-deployment-5455455bfd"),
        (_KNATIVE_POD, "default", "Deployment/payments-00001-deployment"),
        ("pods-create-web-by-replicaset-controller", "default", "Deployment/web"),
        ("pods-create-agent-by-daemon-set-controller", "default", "DaemonSet/agent"),
        ("pods-create-nightly-by-job-controller", "jobs", "CronJob/nightly"),
        ("pods-create-batch-by-job-controller", "jobs", "Job/batch"),
    ],
)
@pytest.mark.parametrize("together", [False, True], ids=["own-account", "kube-controller-manager"])
def test_each_workloads_pods_are_covered(recording: str, namespace: str, owner: str, *, together: bool) -> None:
    review = _pod(recording)
    review["request"]["namespace"] = namespace
    pod = review["request"]["object"]
    for member in ("affinity", "tolerations", "hostNetwork", "hostPID", "nodeName"):
        pod["spec"].pop(member, None)
    pod["spec"]["volumes"] = [each for each in pod["spec"].get("volumes", ()) if "hostPath" not in each]
    if together:
        review["request"]["userInfo"]["username"] = "system:kube-controller-manager"
    entry = configuration(owner=owner).model_dump(mode="json")["exceptions"][0] | {"namespace": namespace}
    used = Configuration.model_validate({"exceptions": [entry]})
    assert {each.violation.rule.id for each in created(review, used).covered} == set(RULES)


def _by_its_author(review: Json) -> None:
    review["request"]["userInfo"] = {"username": "dev@example.com", "groups": ["system:authenticated"]}


def _by_another_controller(review: Json) -> None:
    review["request"]["userInfo"]["username"] = _CONTROLLERS + "daemon-set-controller"


def _by_an_operators_account(review: Json) -> None:
    review["request"]["userInfo"]["username"] = "system:serviceaccount:argo:argo-rollouts"


def _without_an_owner(review: Json) -> None:
    del review["request"]["object"]["metadata"]["ownerReferences"]


def _with_an_owner_that_does_not_control(review: Json) -> None:
    review["request"]["object"]["metadata"]["ownerReferences"][0]["controller"] = False


def _with_an_owner_of_another_group(review: Json) -> None:
    review["request"]["object"]["metadata"]["ownerReferences"][0]["apiVersion"] = "evil.example/v1"


def _of_a_replica_set_of_another_name(review: Json) -> None:
    review["request"]["object"]["metadata"]["ownerReferences"][0]["name"] = "web-5455455bfd"


def _with_another_hash(review: Json) -> None:
    review["request"]["object"]["metadata"]["labels"]["pod-template-hash"] = "deployment-5455455bfd"


def _of_another_revision(review: Json) -> None:
    review["request"]["object"]["metadata"]["labels"]["serving.knative.dev/revision"] = "web-00001"


def _of_another_service(review: Json) -> None:
    review["request"]["object"]["metadata"]["labels"]["serving.knative.dev/service"] = "web"


def _in_another_namespace(review: Json) -> None:
    review["request"]["namespace"] = "other"


_CLAIMS: list[Callable[[Json], None]] = [
    _by_its_author,
    _by_another_controller,
    _by_an_operators_account,
    _without_an_owner,
    _with_an_owner_that_does_not_control,
    _with_an_owner_of_another_group,
    _of_a_replica_set_of_another_name,
    _with_another_hash,
    _of_another_revision,
    _of_another_service,
    _in_another_namespace,
]


@pytest.mark.parametrize("claim", _CLAIMS, ids=lambda each: each.__name__.lstrip("_"))
def test_a_pod_that_only_claims_to_be_the_services_is_denied(claim: Callable[[Json], None]) -> None:
    review = _pod()
    claim(review)
    decision = created(review, configuration())
    assert not decision.allowed
    assert set(RULES) <= _rules(decision)
    assert decision.covered == ()


def test_a_running_pod_does_not_gain_a_violation_by_its_exception() -> None:
    """Whoever updates a pod is not its controller, and can write its ownerReferences."""
    clean = _pod()
    clean["request"]["object"]["spec"]["containers"][0]["env"] = []
    old = _decided(clean, "/mutate/pod", configuration()).result
    review = copy.deepcopy(clean)
    review["request"] |= {"operation": "UPDATE", "oldObject": old, "object": copy.deepcopy(old)}
    for group in ("containers",):
        review["request"]["object"]["spec"][group][0]["env"] = _pod()["request"]["object"]["spec"]["containers"][0][
            "env"
        ]
    decision = _decided(review, "/validate/pod", configuration())
    assert not decision.allowed
    assert set(RULES) <= _rules(decision)


def test_a_service_can_be_applied_while_its_exception_lasts() -> None:
    rules = (*RULES, "secrets/last-applied")
    review = _review(_SERVICE)
    assert not _decided(review, "/validate/service", Configuration()).allowed
    decision = _decided(review, "/validate/service", configuration(*rules))
    assert decision.allowed, decision.denial
    assert {each.violation.rule.id for each in decision.covered} == set(rules)
    assert any("an exception covers this until 2027-02-01" in line for line in decision.warnings)
    assert not _decided(review, "/validate/service", configuration(*rules), now=ENDS).allowed


@pytest.mark.parametrize("kind", ["Configuration", "Revision"])
def test_a_configuration_or_revision_by_people_only_claims_to_be_the_services(kind: str) -> None:
    name = {
        "Configuration": "configurations-create-payments-by-controller",
        "Revision": "revisions-create-payments-00001-by-controller",
    }[kind]
    review = _review(name)
    by_knative = _decided(review, "/validate/service", configuration())
    assert by_knative.allowed
    assert by_knative.covered
    _by_its_author(review)
    decision = _decided(review, "/validate/service", configuration())
    assert not decision.allowed
    assert decision.covered == ()


def test_no_value_of_the_pod_is_in_what_the_exception_writes() -> None:
    decision = created(_pod(), configuration())
    assert b"correct-horse" not in write_review("1", decision)


@pytest.mark.parametrize(
    ("revision", "deployment"),
    [
        ("payments-00001", "payments-00001-deployment"),
        ("a" * 52, "a" * 52 + "-deployment"),
        # What kmeta.ChildName makes of 53 letters a; computed with knative.dev/pkg.
        ("a" * 53, "a" * 20 + "e9e7e260dce84ffa6e0e7eb5fd9d37fc" + "-deployment"),
    ],
)
def test_the_deployment_of_a_revision_has_the_name_that_knative_gives_it(revision: str, deployment: str) -> None:
    assert deployment_of_revision(revision) == deployment


def test_a_decision_is_the_same_with_and_without_exceptions_of_others() -> None:
    used = configuration(owner="DaemonSet/agent")
    assert write_review("1", created(_pod(), used)) == write_review("1", created(_pod(), Configuration()))


def test_the_time_is_part_of_the_snapshot() -> None:
    snapshot = _snapshot(Mode.ENFORCE)
    assert replace(snapshot, now=ENDS).now == ENDS


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet", "Job"])
def test_another_workload_does_not_bring_knatives_labels_by_the_controllers_common_user(kind: str) -> None:
    """Without accounts of their own all controllers are one user, and authors may write a ControllerRevision."""
    review = _pod()
    review["request"]["userInfo"]["username"] = "system:kube-controller-manager"
    clean = copy.deepcopy(review)
    clean["request"]["object"]["spec"]["containers"][0]["env"] = []
    assert created(clean, Configuration()).allowed
    version = "batch/v1" if kind == "Job" else "apps/v1"
    clean["request"]["object"]["metadata"]["ownerReferences"][0] |= {"apiVersion": version, "kind": kind}
    decision = created(clean, Configuration())
    assert not decision.allowed
    assert _rules(decision) == {"isolation/knative-labels"}
