"""`morphisms graduate` on the real control plane, with the rights that docs/rollout.md names and a real scanner."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
import yaml

from tests.cluster.client import ApiError, Client, Object
from tests.cluster.commands import PLAINTEXT, create, make_deployment, rolled_out, runner
from tests.cluster.controlplane import ControlPlane
from tests.cluster.installation import Installation
from tests.cluster.namespace import MODE_LABEL, Namespace
from tests.cluster.scanner import Scanner, reporting
from tests.docs.test_rollout import block
from tests.support.done import Done
from tests.support.until import until

Make = Callable[..., Namespace]
_REFERENCE = {"env": [{"name": "DB_PASSWORD", "value": "vault:secret/shop/db#password"}], "command": ["/app"]}


@pytest.fixture
def platform(cluster: ControlPlane) -> Iterator[Client]:
    """A user with the page's rights and no others."""
    role = yaml.safe_load(block("These are all rights that it needs, and without `patch` those of preflight:"))
    subjects = [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "platform"}]
    binding = {
        "apiVersion": role["apiVersion"],
        "kind": "ClusterRoleBinding",
        "metadata": role["metadata"],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role["metadata"]["name"]},
        "subjects": subjects,
    }
    cluster.admin.apply(role, binding)
    user = cluster.user("platform")
    until(lambda: user.can("patch", "namespaces"))
    yield user
    cluster.kubectl("delete", "-f", "-", input=[role, binding])


@pytest.fixture
def scanner(cluster: ControlPlane, morphisms: Installation) -> Iterator[Scanner]:
    """One replica that looks every second."""
    with reporting(cluster, "scanner-graduate") as running:
        yield running


def _mode(here: Namespace) -> str:
    found: Object = here.admin.get(f"/api/v1/namespaces/{here.name}")
    return str(found["metadata"]["labels"].get(MODE_LABEL))


def _anew(here: Namespace, *names: str) -> list[Object]:
    """Delete the pods, and wait for those that are made in their place."""
    old = {each["metadata"]["uid"] for each in here.admin.items(here.pods())}
    for each in here.admin.items(here.pods()):
        here.admin.delete(here.pods(each["metadata"]["name"]), gracePeriodSeconds="0")

    def new(items: list[Object]) -> list[Object]:
        found = [each for each in items if each["metadata"]["uid"] not in old]
        return found if {each["metadata"]["labels"]["app"] for each in found} == set(names) else []

    return here.admin.until(here.pods(), new)


@pytest.mark.usefixtures("scanner")
def test_a_namespace_goes_from_audit_to_enforce_once_its_workloads_comply(
    cluster: ControlPlane, namespace: Make, platform: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    here = namespace("audit")
    create(here, make_deployment(here, "good"), make_deployment(here, "bad", PLAINTEXT))
    call = runner(cluster, capsys)

    def run(*options: str) -> Done:
        return call("graduate", here.name, "--allow-unevaluated", *options, user=platform)

    # The scanner sees that one workload is not ready, and the label stays.
    until(lambda: "the report is not clean: 1 of 2 workloads" in run("--clean-for", "0").out)
    assert (run("--clean-for", "0").code, _mode(here)) == (1, "audit")

    here.admin.replace(here.deployments("bad"), make_deployment(here, "bad", _REFERENCE))
    rolled_out(here, {"good", "bad"})
    until(lambda: run("--clean-for", "0", "--dry-run").code == 0)
    assert _mode(here) == "audit"
    done = run()
    assert (done.code, "and not yet for 1 day" in done.out) == (1, True), done.out
    done = run("--clean-for", "0", "--to", "inject", "-o", "json")
    assert (done.code, _mode(here)) == (0, "inject"), done.out
    assert [each["outcome"] for each in json.loads(done.out)["steps"]] == ["taken"]
    # Of what the page's rights allow, only the probes' lines are unknown.
    unknown = {each["check"] for each in json.loads(done.out)["steps"][0]["lines"] if each["state"] == "not-evaluated"}
    assert unknown == {"verifier", "vault", "cluster-name", "key-set"}
    here.wait_until_seen()
    pods = _anew(here, "good", "bad")
    assert {each["spec"]["runtimeClassName"] for each in pods} == {"kata-qemu-snp"}

    # A workload that came since then is refused by the command, whatever the report says.
    create(here, make_deployment(here, "late", hostNetwork=True))
    done = run("--clean-for", "0")
    assert (done.code, _mode(here)) == (1, "inject")
    assert "Deployment/late: [isolation/host-namespaces]" in done.out

    here.admin.delete(here.deployments("late"))
    until(lambda: run("--clean-for", "0").code == 0)
    assert _mode(here) == "enforce"
    here.wait_until_seen()
    _anew(here, "good", "bad")
    spec = make_deployment(here, "x", PLAINTEXT)["spec"]["template"]["spec"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
    with pytest.raises(ApiError, match="secrets/plaintext-env"):
        here.admin.create(here.pods(), pod)
    assert run("--clean-for", "0").code == 0
    assert run("--to", "audit").code == 2
    assert _mode(here) == "enforce"
