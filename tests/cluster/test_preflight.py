"""`morphisms preflight` on the real control plane: enforce admits what it calls ready, and denies what it does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster.client import ApiError, Client, Object
from tests.cluster.commands import PLAINTEXT, Run, create, make_deployment, runner
from tests.cluster.controlplane import ControlPlane
from tests.cluster.installation import Installation
from tests.cluster.namespace import Namespace
from tests.support.done import Done
from tests.support.until import until

Make = Callable[..., Namespace]

_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_REFERENCE = {"env": [{"name": "DB_PASSWORD", "value": "vault:secret/shop/db#password"}], "command": ["/app"]}


@pytest.fixture
def run(cluster: ControlPlane, morphisms: Installation, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(cluster, capsys)


def lines_of(done: Done) -> list[Object]:
    """The lines of a run with -o json."""
    assert done.out, done.err
    found: list[Object] = json.loads(done.out)["lines"]
    return found


def failed(done: Done, check: str = "") -> list[str]:
    """The texts of the failed lines."""
    return [each["text"] for each in lines_of(done) if each["state"] == "failed" and check in ("", each["check"])]


def _person_makes(here: Namespace, deployment: Object) -> None:
    template = deployment["spec"]["template"]
    metadata = {"generateName": "x-", **template["metadata"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    here.admin.create(here.pods(), pod)


def test_following_the_advice_to_the_letter_ends_in_an_enforced_namespace_where_nothing_breaks(
    run: Run, namespace: Make
) -> None:
    here = namespace("audit")
    plaintext = make_deployment(here, "plaintext", PLAINTEXT)
    host = make_deployment(here, "host", hostNetwork=True)
    create(here, make_deployment(here, "good"), plaintext, host)
    before = run("preflight", here.name, "-o", "json")
    assert before.code == 1
    said = {tuple(text.partition("] ")[0].split(": [")) for text in failed(before, "workload")}
    assert said == {
        ("Deployment/plaintext", "secrets/plaintext-env"),
        ("Deployment/host", "isolation/host-namespaces"),
    }
    assert all(each["link"] for each in lines_of(before) if each["state"] == "failed")

    # What it calls not ready, enforce denies, with the same rule.
    other = namespace("enforce")
    for deployment, rule in ((plaintext, "secrets/plaintext-env"), (host, "isolation/host-namespaces")):
        with pytest.raises(ApiError, match=rule):
            _person_makes(other, deployment)

    for each in (make_deployment(here, "plaintext", _REFERENCE), make_deployment(here, "host")):
        here.admin.replace(here.path("deployments", each["metadata"]["name"], group="apps/v1"), each)
    after = run("preflight", here.name, "--allow-unevaluated", "-o", "json")
    assert (after.code, failed(after), json.loads(after.out)["go"]) == (0, [], True), after.out
    assert run("preflight", here.name).code == 1  # what only the cluster reaches is not known

    here.label("enforce")
    old = {each["metadata"]["uid"] for each in here.admin.items(here.pods())}
    for each in here.admin.items(here.pods()):
        here.admin.delete(here.pods(each["metadata"]["name"]))

    def replaced(items: list[Object]) -> bool:
        new = {each["metadata"]["labels"]["app"] for each in items if each["metadata"]["uid"] not in old}
        return new == {"good", "plaintext", "host"}

    here.admin.until(here.pods(), replaced)


@pytest.mark.parametrize(
    ("resource", "kind", "spec", "says"),
    [
        (
            "limitranges",
            "LimitRange",
            {"limits": [{"type": "Container", "min": {"memory": "1Gi"}}]},
            "minimum memory usage per Container is 1Gi",
        ),
        ("resourcequotas", "ResourceQuota", {"hard": {"requests.memory": "1Mi"}}, "exceeded quota"),
    ],
)
def test_a_limit_range_and_a_quota_judge_the_pod_as_it_will_be_injected(
    run: Run, namespace: Make, resource: str, kind: str, spec: Object, says: str
) -> None:
    here = namespace("audit")
    room = {"requests": {"memory": "1Gi"}, "limits": {"memory": "1Gi"}}
    create(here, make_deployment(here, "good", {"resources": room}))
    assert failed(run("preflight", here.name, "-o", "json")) == []
    made = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "x", "namespace": here.name}, "spec": spec}
    here.admin.create(here.path(resource), made)

    def told() -> bool:
        texts = failed(run("preflight", here.name, "-o", "json"), "api-server")
        return any("Deployment/good" in each and says in each for each in texts)

    until(told)  # the API server judges by a copy of its own


def test_pod_security_judges_the_injected_pod(run: Run, namespace: Make) -> None:
    here = namespace("audit", **{"pod-security.kubernetes.io/enforce": "restricted"})
    restricted = {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
    }
    create(here, make_deployment(here, "good", restricted), make_deployment(here, "root"))
    [text] = failed(run("preflight", here.name, "-o", "json"))
    assert text.startswith("Deployment/root: the API server refuses the injected pod: ")
    assert "violates PodSecurity" in text


def test_a_missing_runtime_class_and_missing_nodes_are_named(
    run: Run, namespace: Make, tmp_path_factory: pytest.TempPathFactory
) -> None:
    here = namespace("audit")
    file = tmp_path_factory.mktemp("other") / "webhook.yaml"
    profile = (
        "{name: other, isolation: pod-vm, runtimeClasses: [absent], nodeSelector: [{key: none, operator: Exists}]}"
    )
    file.write_text(f"version: 1\ndefaultProfile: other\nprofiles: [{profile}]\n")
    texts = failed(run("preflight", here.name, "--config", str(file), "-o", "json"))
    assert any(each.startswith("RuntimeClass absent of profile other does not exist") for each in texts)
    assert "no node suits profile other, which requires none" in texts


@pytest.fixture
def auditor(cluster: ControlPlane) -> Iterator[Client]:
    """A user with the rights that docs/rollout.md names for reading, and none to create pods."""
    rules = [
        {
            "apiGroups": ["", "apps", "batch", "node.k8s.io", "serving.knative.dev"],
            "resources": [
                "namespaces",
                "nodes",
                "pods",
                "replicationcontrollers",
                "deployments",
                "replicasets",
                "statefulsets",
                "daemonsets",
                "jobs",
                "cronjobs",
                "runtimeclasses",
                "services",
                "configurations",
                "revisions",
                "configmaps",
            ],
            "verbs": ["get", "list"],
        },
    ]
    name = {"metadata": {"name": "test-auditor"}}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "test-auditor"}
    subjects = [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "auditor"}]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", **name, "rules": rules}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        **name,
        "roleRef": reference,
        "subjects": subjects,
    }
    cluster.admin.create(f"{_RBAC}/clusterroles", role)
    cluster.admin.create(f"{_RBAC}/clusterrolebindings", binding)
    user = cluster.user("auditor")
    until(lambda: user.can("list", "nodes"))
    yield user
    cluster.admin.delete(f"{_RBAC}/clusterrolebindings/test-auditor")
    cluster.admin.delete(f"{_RBAC}/clusterroles/test-auditor")


def test_a_user_who_only_reads_learns_what_was_not_tried_out(run: Run, namespace: Make, auditor: Client) -> None:
    here = namespace("audit")
    create(here, make_deployment(here, "good"))
    found = lines_of(run("preflight", here.name, "-o", "json", user=auditor))
    [line] = [each for each in found if each["check"] == "api-server"]
    assert line["state"] == "not-evaluated"
    assert "may not create pods here" in line["text"]
    assert any(each["text"].startswith("1 of 1 workloads comply") for each in found)
    assert run("audit", "-n", here.name, user=auditor).code == 0


def test_cluster_name_and_issuer_are_compared_and_other_plugins_named(run: Run, namespace: Make) -> None:
    here = namespace("audit")
    found = lines_of(run("preflight", here.name, "-o", "json"))
    assert any(each["check"] == "cluster-name" and each["state"] == "not-evaluated" for each in found)
    assert any(each["check"] == "templates" and each["state"] == "ok" for each in found)
    named = " ".join(each["text"] for each in found if each["check"] == "other-plugins")
    assert "morphisms" not in named


@pytest.mark.parametrize(
    ("namespace_name", "code", "says"),
    [("kube-system", 1, "admission never looks at namespace kube-system"), ("no-such-one", 2, "does not exist")],
)
def test_a_namespace_that_cannot_be_switched(run: Run, namespace_name: str, code: int, says: str) -> None:
    done: Any = run("preflight", namespace_name, "--allow-unevaluated")
    assert (done.code, says in done.out + done.err) == (code, True)
