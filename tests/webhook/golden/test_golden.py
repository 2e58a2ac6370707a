"""Every recorded review has its expected answer as a reviewed file; a new case is a new file, no code."""

from __future__ import annotations

import json
from pathlib import Path

import jsonpatch
import pytest

from tests.support.paths import REVIEWS
from tests.webhook.golden.golden import CASES, answer, decision_and_response, read_case, recorded
from webhook.configuration.model import Configuration
from webhook.decide import PATHS, decide
from webhook.modes import Mode
from webhook.review import read_review

_FILES = sorted(CASES.glob("*.yaml"))
_WRONG_KINDS = ("deployments-", "nodes-", "runtimeclasses-")
_CANARIES = ("hunter2", "p4ss", "tok-1")


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.stem)
def test_the_answer_is_the_reviewed_one(path: Path) -> None:
    case = read_case(path)
    assert case.answer, "run python -m tests.webhook.golden and review what it writes"
    assert answer(case) == case.answer
    assert recorded(case) == case.recorded


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.stem)
def test_the_response_says_every_violation_of_the_decision(path: Path) -> None:
    """Where a case leaves the messages out, the response still has to carry them, each beside its rule and field."""
    decision, response = decision_and_response(read_case(path))
    for each in decision.covered:
        assert each.violation.rule.id in response["auditAnnotations"]["excepted"]
    if not decision.violations:
        return
    causes = response.get("status", {}).get("details", {}).get("causes", [])
    violations = [
        {"reason": each.rule.id, "message": each.message, "field": each.field} for each in decision.violations
    ]
    assert causes == ([] if decision.allowed else violations)
    assert all(each.message and "\n" not in each.message for each in decision.violations)
    for warning in response.get("warnings", ()):
        evaluated = (*decision.violations, *(each.violation for each in decision.covered))
        assert warning.startswith(("[annotations] ", *(f"[{each.rule.id}] " for each in evaluated)))


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.stem)
def test_no_canary_is_in_a_response(path: Path) -> None:
    _, response = decision_and_response(read_case(path))
    text = json.dumps(response)
    assert not [canary for canary in _CANARIES if canary in text]


@pytest.mark.parametrize("review", sorted(REVIEWS.glob("*.json")), ids=lambda path: path.stem)
@pytest.mark.parametrize("path", ["/mutate/pod", "/mutate/service"])
@pytest.mark.parametrize("mode", [Mode.INJECT, Mode.ENFORCE])
def test_a_decision_carries_the_object_that_its_operations_make(review: Path, path: str, mode: Mode) -> None:
    request = read_review(review.read_bytes(), path)
    before = json.loads(review.read_text())["request"].get("object")
    decision = decide(request, Configuration(), None, offline_mode=mode)
    expected = jsonpatch.apply_patch(before, list(decision.operations)) if decision.operations else None
    assert decision.result == expected
    assert request.object == before


def test_every_recorded_review_has_a_case() -> None:
    recorded = {path.name for path in REVIEWS.glob("*.json") if not path.name.startswith(_WRONG_KINDS)}
    assert recorded == recorded & {read_case(path).review for path in _FILES}


@pytest.mark.parametrize("review", sorted(REVIEWS.glob("*.json")), ids=lambda path: path.stem)
@pytest.mark.parametrize("path", PATHS)
def test_a_wrong_kind_is_refused_cleanly(review: Path, path: str) -> None:
    request = read_review(review.read_bytes(), path)
    if request.kind in PATHS[path].kinds:
        return
    decision = decide(request, Configuration(), None)
    assert decision.denial is not None
    assert decision.denial.code == 400
    assert decision.denial.message.startswith(f"{path} accepts ")
