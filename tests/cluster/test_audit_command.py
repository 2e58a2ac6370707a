"""`morphisms audit` against the real control plane: what it says is what enforce does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from cli.main import main
from tests.cluster.attacks import IMAGE
from tests.cluster.client import Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.installation import Installation
from tests.cluster.namespace import Namespace

Make = Callable[..., Namespace]

_PASSWORD = "tr0ub4dor&3-Xx9"


@dataclass(frozen=True)
class Done:
    """One run of a command."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(cluster: ControlPlane, morphisms: Installation, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command as the cluster's administrator, or as another user."""

    def call(command: str, *options: str, user: Any = None) -> Done:
        capsys.readouterr()
        code = main([command, "--kubeconfig", str((user or cluster.admin).kubeconfig), *options])
        return Done(code, *capsys.readouterr())

    return call


def make_deployment(here: Namespace, name: str, container: Object | None = None, **spec: Any) -> Object:
    """A Deployment of one container, which its controller makes pods of."""
    labels = {"app": name}
    containers = [{"name": "app", "image": IMAGE, **(container or {})}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers, **spec}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": here.name},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }


def _mixed(here: Namespace) -> None:
    plaintext = {"env": [{"name": "DB_PASSWORD", "value": _PASSWORD}]}
    for each in (
        make_deployment(here, "good"),
        make_deployment(here, "plaintext", plaintext),
        make_deployment(here, "host", hostNetwork=True),
    ):
        here.admin.create(here.path("deployments", group="apps/v1"), each)


def test_it_names_each_finding_of_a_live_namespace_in_its_class(run: Run, namespace: Make) -> None:
    here = namespace("audit")
    _mixed(here)
    done = run("audit", "-n", here.name, "-o", "json")
    assert done.code == 1, done.err
    assert _PASSWORD not in done.out + done.err
    document = json.loads(done.out)
    assert document["notLookedAt"] == []
    assert [(each["name"], each["mode"], each["ready"]) for each in document["namespaces"]] == [
        (here.name, "audit", False)
    ]
    ready = {each["name"]: each["ready"] for each in document["workloads"] if each["kind"] == "Deployment"}
    assert ready == {"good": True, "plaintext": False, "host": False}
    found = {
        (each["name"], finding["rule"], finding["class"])
        for each in document["workloads"]
        for finding in each["findings"]
    }
    assert ("good", "placement/runtime-class", "fixed-by-injection") in found
    assert ("plaintext", "secrets/plaintext-env", "yours-to-change") in found
    assert ("host", "isolation/host-namespaces", "yours-to-change") in found
    assert {each["kind"] for each in document["workloads"]} == {"Deployment"}  # whose pods are not counted twice


def test_a_namespace_without_findings_is_clean(run: Run, namespace: Make) -> None:
    here = namespace("audit")
    here.admin.create(here.path("deployments", group="apps/v1"), make_deployment(here, "good"))
    done = run("audit", "-n", here.name)
    assert (done.code, "ready for enforce: 1 of 1 workloads" in done.out) == (0, True), done.out
    assert "not ready" not in done.out


def test_the_severity_that_fails_is_the_callers_to_choose(run: Run, namespace: Make) -> None:
    here = namespace("audit")
    plaintext = {"env": [{"name": "DB_PASSWORD", "value": _PASSWORD}]}
    here.admin.create(here.path("deployments", group="apps/v1"), make_deployment(here, "plaintext", plaintext))
    assert run("audit", "-n", here.name, "--fail-on", "critical").code == 0
    assert run("audit", "-n", here.name, "--fail-on", "high").code == 1


def test_a_user_who_may_not_look_is_told_so(run: Run, namespace: Make, cluster: ControlPlane) -> None:
    here = namespace("audit")
    here.admin.create(here.path("deployments", group="apps/v1"), make_deployment(here, "good"))
    done = run("audit", "-n", here.name, user=cluster.user("dev"))
    # A developer reads no ConfigMap of the system's namespace.
    assert (done.code, "give the file with --config" in done.err) == (2, True), done.err


def test_without_a_namespace_it_looks_at_those_that_have_a_mode(run: Run, namespace: Make) -> None:
    labelled, other = namespace("audit"), namespace()
    for here in (labelled, other):
        here.admin.create(here.path("deployments", group="apps/v1"), make_deployment(here, "good"))
    names = {each["name"] for each in json.loads(run("audit", "-o", "json").out)["namespaces"]}
    assert labelled.name in names
    assert other.name not in names
    names = {each["name"] for each in json.loads(run("audit", "-A", "-o", "json").out)["namespaces"]}
    assert {labelled.name, other.name} <= names


@pytest.mark.parametrize(("form", "begins"), [("html", "<!doctype html>"), ("junit", "<?xml"), ("sarif", "{")])
def test_each_form_is_written(run: Run, namespace: Make, form: str, begins: str) -> None:
    here = namespace("audit")
    _mixed(here)
    done = run("audit", "-n", here.name, "-o", form)
    assert (done.code, done.out.startswith(begins)) == (1, True)
    assert _PASSWORD not in done.out


def test_a_namespace_that_does_not_exist_is_unusable_input(run: Run) -> None:
    done = run("audit", "-n", "no-such-namespace")
    assert (done.code, "does not exist" in done.err) == (2, True)
