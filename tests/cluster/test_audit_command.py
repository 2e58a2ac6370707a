"""`morphisms audit` against the real control plane: what it says is what enforce does."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.cluster.commands import PLAINTEXT, Run, create, make_deployment, runner
from tests.cluster.controlplane import ControlPlane
from tests.cluster.installation import Installation
from tests.cluster.namespace import Namespace

Make = Callable[..., Namespace]


@pytest.fixture
def run(cluster: ControlPlane, morphisms: Installation, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(cluster, capsys)


def _mixed(here: Namespace) -> None:
    plaintext, host = make_deployment(here, "plaintext", PLAINTEXT), make_deployment(here, "host", hostNetwork=True)
    create(here, make_deployment(here, "good"), plaintext, host)


def test_it_names_each_finding_of_a_live_namespace_in_its_class(run: Run, namespace: Make) -> None:
    here = namespace("audit")
    _mixed(here)
    done = run("audit", "-n", here.name, "-o", "json")
    assert done.code == 1, done.err
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
    create(here, make_deployment(here, "good"))
    done = run("audit", "-n", here.name)
    assert (done.code, "ready for enforce: 1 of 1 workloads" in done.out) == (0, True), done.out
    assert "not ready" not in done.out


def test_the_severity_that_fails_is_the_callers_to_choose(run: Run, namespace: Make) -> None:
    here = namespace("audit")
    create(here, make_deployment(here, "plaintext", PLAINTEXT))
    assert run("audit", "-n", here.name, "--fail-on", "critical").code == 0
    assert run("audit", "-n", here.name, "--fail-on", "high").code == 1


def test_a_user_who_may_not_look_is_told_so(run: Run, namespace: Make, cluster: ControlPlane) -> None:
    here = namespace("audit")
    create(here, make_deployment(here, "good"))
    done = run("audit", "-n", here.name, user=cluster.user("dev"))
    # A developer reads no ConfigMap of the system's namespace.
    assert (done.code, "give the file with --config" in done.err) == (2, True), done.err


def test_without_a_namespace_it_looks_at_those_that_have_a_mode(run: Run, namespace: Make) -> None:
    labelled, other = namespace("audit"), namespace()
    for here in (labelled, other):
        create(here, make_deployment(here, "good"))
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


def test_a_namespace_that_does_not_exist_is_unusable_input(run: Run) -> None:
    done = run("audit", "-n", "no-such-namespace")
    assert (done.code, "does not exist" in done.err) == (2, True)
