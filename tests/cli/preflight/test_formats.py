"""A preflight as a pipeline keeps it: SARIF, JUnit and one HTML file, each with the same verdict."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

import pytest

from cli.preflight.formats import html, junit, sarif
from cli.preflight.lines import Line, State
from tests.cli.audit.found import IMAGE, PASSWORD, deployment
from tests.cli.live.conftest import Run
from tests.cli.live.conftest import run as run
from tests.cli.live.stand_in import ready

HOSTILE = "<img src=x onerror=document.title='owned'>\x00\x1b"
LINES = (
    Line("workload", State.FAILED, f"Deployment/{HOSTILE}: change it", "docs/rules.md#a", "secrets/plaintext-env"),
    Line("workload", State.OK, "1 of 2 workloads comply", "docs/rules.md"),
    Line("vault", State.NOT_EVALUATED, "whether pods reach Vault", "docs/operations.md"),
    Line("other-plugins", State.NOTE, "not looked at: x", "docs/rollout.md"),
)


def test_sarif_has_a_result_for_each_line_that_decides_by_its_rule() -> None:
    found = json.loads(sarif(LINES, "shop"))["runs"][0]
    assert [(each["ruleId"], each["level"]) for each in found["results"]] == [
        ("secrets/plaintext-env", "error"),
        ("preflight/vault", "warning"),
    ]
    rule = found["tool"]["driver"]["rules"][found["results"][0]["ruleIndex"]]
    assert rule["id"] == "secrets/plaintext-env"
    assert "docs/rules.md#a" in found["results"][0]["message"]["text"]
    [note] = found["invocations"][0]["toolExecutionNotifications"]
    assert note["message"]["text"] == "not looked at: x"


@pytest.mark.parametrize(("allowed", "tag", "count"), [(False, "error", "errors"), (True, "skipped", "skipped")])
def test_junit_fails_what_failed_and_allows_what_is_allowed(allowed: bool, tag: str, count: str) -> None:
    root = ElementTree.fromstring(junit(LINES, "shop", allow_unevaluated=allowed))
    suites = {suite.get("name"): suite for suite in root}
    assert list(suites) == ["workload", "vault"]
    assert (suites["workload"].get("tests"), suites["workload"].get("failures")) == ("2", "1")
    assert [case.find("failure") is not None for case in suites["workload"]] == [True, False]
    [case] = suites["vault"]
    assert (case.find(tag) is not None, suites["vault"].get(count)) == (True, "1")


def test_the_page_is_whole_and_takes_no_name_for_markup() -> None:
    page = html(LINES, HOSTILE, "enforce", datetime(2027, 1, 1, tzinfo=UTC), go=False)
    assert "<img" not in page
    assert "&lt;img src=x" in page
    assert page.count("<tr data-state=") == len(LINES)
    assert '<span class="bad">no-go</span>: 1 failed, 1 not evaluated' in page
    assert "http" not in page.partition("</head>")[2]


@pytest.mark.parametrize(("form", "begins"), [("sarif", "{"), ("junit", "<?xml"), ("html", "<!doctype html>")])
def test_each_form_is_written_alone_with_the_verdict_beside_it(run: Run, form: str, begins: str) -> None:
    cluster = ready()
    plaintext: dict[str, Any] = {"image": IMAGE, "env": [{"name": "DB_PASSWORD", "value": PASSWORD}]}
    cluster.add("shop", "audit", deployment("shop", "web", plaintext))
    done = run(cluster, "preflight", "shop", "-o", form)
    assert (done.code, done.out.startswith(begins)) == (1, True)
    assert "secrets/plaintext-env" in done.out
    if form == "sarif":
        assert json.loads(done.out)["runs"][0]["results"][0]["ruleId"] == "secrets/plaintext-env"
    assert done.err.startswith("no-go: namespace shop to enforce: 1 failed, 4 not evaluated")
