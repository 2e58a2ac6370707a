"""A namespace with Knative Services, Deployments and pods goes from `audit` to `enforce` by the printed advice."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import jsonpatch
import pytest

from tests.cluster.attacks import DRY, is_confidential, make_pod, reasons
from tests.cluster.client import Object
from tests.cluster.commands import PASSWORD, PLAINTEXT, Run, create, make_deployment, rolled_out, runner
from tests.cluster.controlplane import ControlPlane
from tests.cluster.installation import Installation
from tests.cluster.knative import Knative, from_zero, make_service, pod_of, revisions, settled
from tests.cluster.namespace import Namespace
from tests.cluster.scanner import Scanner, reporting
from tests.support.until import until
from webhook.scanner.reports.api import OPEN_REPORTS

Make = Callable[..., Namespace]

_RESOURCES = {
    "Service": ("services", "serving.knative.dev/v1"),
    "Revision": ("revisions", "serving.knative.dev/v1"),
    "Deployment": ("deployments", "apps/v1"),
    "Pod": ("pods", "v1"),
}
_SECRET, _HOST = "secrets/plaintext-env", "isolation/host-namespaces"
# What would fail under `enforce`: kind and name -> rule.
_FAILS = {
    ("Service", "web"): _SECRET,
    ("Revision", "web-00001"): _SECRET,
    ("Deployment", "plaintext"): _SECRET,
    ("Deployment", "host"): _HOST,
    ("Pod", "lone-bad"): _SECRET,
}
_READY = {("Service", "good"), ("Revision", "good-00001"), ("Deployment", "fine"), ("Pod", "lone")}
_APPS = {"fine", "plaintext", "host"}
_LONE = {"app": "lone"}
_FAILED = re.compile(r"^failed +workload +(\w+)/(\S+): \[(\S+)\] (.+) \((spec\S+)\) \[docs/\S+\]$", re.MULTILINE)
_ROLLING = re.compile(r"^not-evaluated workload +Deployment/(\S+): has pods of a former template", re.MULTILINE)
_IN_PLACE = re.compile(r"^note +workload +(\w+)/(\S+) cannot be changed: (.*`kubectl ([^`]+)`.*)$", re.M)


@pytest.fixture
def run(cluster: ControlPlane, morphisms: Installation, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(cluster, capsys)


@pytest.fixture
def scanner(cluster: ControlPlane, morphisms: Installation) -> Iterator[Scanner]:
    with reporting(cluster, "scanner-story") as running:
        yield running


def _mixed(here: Namespace) -> dict[tuple[str, str], Object]:
    """The manifests that can be tried elsewhere; all are created here."""
    services = [
        make_service("good", here, env={"LOG_LEVEL": "info"}),
        make_service("web", here, env={"DB_PASSWORD": PASSWORD}),
    ]
    for each in services:
        here.admin.create(here.services(), each)
    deployments = [make_deployment(here, "fine"), make_deployment(here, "plaintext", PLAINTEXT)]
    deployments.append(make_deployment(here, "host", hostNetwork=True))
    create(here, *deployments)
    pods = [make_pod("lone", labels=_LONE), make_pod("lone-bad", labels=_LONE, container=PLAINTEXT)]
    for each in pods:
        here.admin.create(here.pods(), each)
    for name in ("good", "web"):
        settled(here, name)
        pod_of(here, name)
    return {(each["kind"], each["metadata"]["name"]): each for each in (*services, *deployments, *pods)}


def _path(here: Namespace, kind: str, name: str = "") -> str:
    resource, group = _RESOURCES[kind]
    return here.path(resource, name, group=group)


def _change(message: str, field: str) -> list[Object]:
    """The JSON patch that a finding's message asks for, at the field that it names."""
    at = "/" + re.sub(r"\[(\d+)\]", r".\1", field).replace(".", "/")
    if message.startswith("remove "):
        assert message.startswith(f"remove {field.rpartition('.')[2]}:")
        return [{"op": "remove", "path": at}]
    assert "store it in Vault and use a reference (vault:PATH#KEY and a command)" in message
    container = at.partition("/env/")[0]
    return [
        {"op": "replace", "path": f"{at}/value", "value": "vault:secret/shop/db#password"},
        {"op": "add", "path": f"{container}/command", "value": ["/app"]},
    ]


def _follow(here: Namespace, said: str, made: dict[tuple[str, str], Object]) -> None:
    """Do what the lines say, and nothing else; `made` then holds pods as they were created anew."""
    in_place = {(kind, name): (text, command) for kind, name, text, command in _IN_PLACE.findall(said)}
    found = {(kind, name): _change(text, field) for kind, name, _, text, field in _FAILED.findall(said)}
    for (kind, name), change in found.items():
        if (kind, name) not in in_place:
            here.admin.patch(_path(here, kind, name), change, content_type="application/json-patch+json")
            if kind == "Service":
                here.admin.until(here.revisions(), lambda items: len(items) > 2)
                settled(here, name)
    for (kind, name), (text, command) in in_place.items():
        here.admin.kubectl(*command.split(), "--wait=false")
        if kind == "Pod":  # the kubelet's part
            here.admin.request("DELETE", here.pods(name), query={"gracePeriodSeconds": "0"})
        if "create it with the change" in text:
            made[kind, name] = jsonpatch.apply_patch(made[kind, name], found[kind, name])
            here.admin.create(_path(here, kind), made[kind, name])


def _denied(other: Namespace, manifest: Object) -> set[str]:
    """The rules for which an enforced namespace refuses it; of a Deployment: its next pod."""
    if manifest["kind"] == "Deployment":
        template = manifest["spec"]["template"]
        manifest = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {"name": "x", **template["metadata"]}}
    metadata = {**manifest["metadata"], "namespace": other.name}
    path = _path(other, manifest["kind"])
    return reasons(other.admin.request("POST", path, {**manifest, "metadata": metadata}, query=DRY))


def _failures(here: Namespace) -> list[str]:
    """What the cluster says of pods that could not be made."""
    events = here.admin.items(here.path("events"))
    deployments = here.admin.items(here.deployments())
    conditions = [each for item in deployments for each in item.get("status", {}).get("conditions", ())]
    return [each["message"] for each in events if each["reason"] == "FailedCreate"] + [
        each["message"] for each in conditions if each["type"] == "ReplicaFailure" and each["status"] == "True"
    ]


def _reported(here: Namespace) -> dict[tuple[str, str], set[str]]:
    """By workload: the rules that its report says fail."""
    answer = here.admin.request("GET", OPEN_REPORTS.path(here.name))
    return {
        (each["scope"]["kind"], each["scope"]["name"]): {
            result["rule"] for result in each["results"] if result["result"] == "fail"
        }
        for each in answer.body.get("items", ())
    }


@pytest.mark.usefixtures("scanner")
def test_by_the_printed_advice_alone_every_revision_deployment_and_pod_comes_back_under_enforce(
    run: Run, namespace: Make, knative: Knative
) -> None:
    here, other = namespace("audit"), namespace("enforce")
    made = _mixed(here)

    # `audit` has each finding in its class, and nothing else is looked at.
    document = json.loads(run("audit", "-n", here.name, "-o", "json").out)
    workloads = {(each["kind"], each["name"]): each for each in document["workloads"]}
    assert workloads.keys() == _FAILS.keys() | _READY
    assert {key for key, each in workloads.items() if each["ready"]} == _READY
    for key, each in workloads.items():
        rules = {finding["class"]: set[str]() for finding in each["findings"]}
        for finding in each["findings"]:
            rules[finding["class"]].add(finding["rule"])
        assert rules.pop("yours-to-change", set()) == ({_FAILS[key]} if key in _FAILS else set())
        assert rules.keys() == {"fixed-by-injection"}
        assert "placement/runtime-class" in rules["fixed-by-injection"]

    # The cluster has the same in its reports; a Revision's is its Service's.
    top = {key: {rule} for key, rule in _FAILS.items() if key[0] != "Revision"}
    until(lambda: {key: rules for key, rules in _reported(here).items() if rules} == top)

    # `preflight` says what would fail and why, and an enforced namespace refuses it for that.
    said = run("preflight", here.name, "--allow-unevaluated")
    assert said.code == 1
    assert {(kind, name): rule for kind, name, rule, _, _ in _FAILED.findall(said.out)} == _FAILS
    assert {key: _denied(other, made[key]) for key in _FAILS if key in made} == top

    _follow(here, said.out, made)
    during = run("preflight", here.name, "--allow-unevaluated").out
    assert set(_ROLLING.findall(during)) == {"plaintext", "host"}
    rolled_out(here, _APPS)
    after = run("preflight", here.name, "--allow-unevaluated")
    assert after.code == 0, after.out
    assert "failed  " not in after.out
    assert _ROLLING.findall(after.out) == []
    until(lambda: not any(_reported(here).values()))

    here.label("enforce")
    assert revisions(here) == ["good-00001", "web-00002"]
    pods = [from_zero(knative, here, revision) for revision in revisions(here)]
    old = {each["metadata"]["uid"] for each in here.admin.items(here.pods())}
    for each in here.admin.items(here.pods()):
        if each["metadata"]["labels"].get("app") in _APPS:
            here.admin.delete(here.pods(each["metadata"]["name"]), gracePeriodSeconds="0")

    def anew(items: list[Object]) -> list[Object]:
        new = [each for each in items if each["metadata"]["uid"] not in old]
        # A pod of Knative's may be among them: its autoscaler goes on.
        return new if {each["metadata"]["labels"].get("app") for each in new} >= _APPS else []

    pods += here.admin.until(here.pods(), anew)
    for name in ("lone", "lone-bad"):
        here.admin.delete(here.pods(name), gracePeriodSeconds="0")
        pods.append(here.admin.create(here.pods(), made["Pod", name]))
    assert [each["metadata"]["name"] for each in pods if not is_confidential(each)] == []
    assert _failures(here) == []
