"""The report as text, JSON, SARIF and JUnit: what a person reads first, and what programs keep."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from cli.audit.formats import as_json, counts_against, junit, sarif, text
from tests.cli.audit.found import HOSTILE, PASSWORD, deployment, found
from webhook.rules.rule import Severity


def test_text_says_per_namespace_what_is_ready_and_per_workload_what_to_change() -> None:
    lines = text(found(), colour=False).splitlines()
    assert "bank (inject): ready for enforce: 1 of 1 workloads" in lines
    assert "shop (audit): not ready for enforce: 1 of 3 workloads" in lines
    [line] = [each for each in lines if "Deployment/plaintext: [secrets/plaintext-env]" in each]
    assert line.strip().endswith("(spec.template.spec.containers[0].env[0])")
    assert "yours to change" in line
    assert "  Deployment/good: fixed by injection: placement/runtime-class, placement/node-affinity" in "\n".join(lines)
    assert lines[-1].startswith("5 workloads in 3 namespaces, 1 of them ready for enforce; findings: ")


@pytest.mark.parametrize("written", [as_json(found()), sarif(found()), junit(found(), Severity.LOW)])
def test_no_form_holds_a_value(written: str) -> None:
    assert PASSWORD not in written
    assert text(found(), colour=True).isprintable() is False  # it has colours
    assert PASSWORD not in text(found(), colour=True)


def test_nothing_is_ready_when_something_could_not_be_looked_at() -> None:
    one = found(deployment("bank", "good"))
    assert one.is_ready("bank")
    one.not_read.append("pods: the API server answers 403 to a list")
    assert not one.is_ready("bank")
    assert "not looked at: pods: the API server answers 403 to a list" in text(one, colour=False)
    [case] = ElementTree.fromstring(junit(one, Severity.LOW)).findall("./testsuite[@name='not looked at']/testcase")
    assert case.find("error") is not None


def test_nothing_is_ready_without_nodes_and_runtime_classes() -> None:
    blind = found(deployment("bank", "good"), snapshot=None)
    assert not blind.is_ready("bank")
    assert any("not evaluated" in line for line in text(blind, colour=False).splitlines())


def test_json_has_each_workload_with_its_findings() -> None:
    document = json.loads(as_json(found()))
    assert (document["version"], document["target"]) == (1, "enforce")
    assert {each["name"]: each["ready"] for each in document["namespaces"]} == {
        "bank": True,
        "lab": False,
        "shop": False,
    }
    [node] = [each for each in document["workloads"] if each["name"] == "node"]
    [finding] = [each for each in node["findings"] if each["rule"] == "isolation/host-namespaces"]
    assert (finding["class"], finding["action"], finding["actionNow"]) == ("yours-to-change", "deny", "record")
    assert finding["link"] == "docs/rules.md#isolationhost-namespaces"


def test_sarif_has_a_result_per_finding_that_a_person_has_to_act_on() -> None:
    run = json.loads(sarif(found()))["runs"][0]
    assert "isolation/host-namespaces" in {each["ruleId"] for each in run["results"]}
    assert "placement/runtime-class" not in {each["ruleId"] for each in run["results"]}
    for each in run["results"]:
        assert run["tool"]["driver"]["rules"][each["ruleIndex"]]["id"] == each["ruleId"]


def test_junit_has_a_case_per_workload_and_fails_by_severity() -> None:
    root = ElementTree.fromstring(junit(found(), Severity.LOW))
    failed = {case.get("name") for case in root.iter("testcase") if case.find("failure") is not None}
    assert failed == {"plaintext", "node", HOSTILE}
    gravest = ElementTree.fromstring(junit(found(), Severity.CRITICAL))
    failed = {case.get("name") for case in gravest.iter("testcase") if case.find("failure") is not None}
    assert failed == {"node", HOSTILE}


def test_junit_of_a_name_that_xml_has_no_form_for_is_still_xml() -> None:
    name = "a\x00\x1b\ud800b"
    root = ElementTree.fromstring(junit(found(deployment("shop", name)), Severity.LOW))
    assert [case.get("name") for case in root.iter("testcase")] == ["a???b"]


def test_what_injection_fixes_never_counts_against_a_workload() -> None:
    assert not any(counts_against(each, Severity.LOW) for each in found(deployment("bank", "good")).findings)
