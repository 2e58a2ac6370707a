"""Every rule is violated in some golden case, and its message is reviewed in exactly one."""

from __future__ import annotations

import pytest

from tests.webhook.golden.golden import CASES, answer, read_case
from webhook.rules import BY_ID

_CASES = [read_case(path) for path in sorted(CASES.glob("*.yaml"))]


@pytest.mark.parametrize("rule", BY_ID)
def test_one_case_holds_the_wording_of_the_rule(rule: str) -> None:
    worded = [case for case in _CASES if rule in case.wording]
    assert len(worded) == 1, "list the rule in `wording` of one golden case: " + str([case.name for case in worded])
    response = answer(worded[0])
    causes = response.get("status", {}).get("details", {}).get("causes", [])
    messages = [cause["message"] for cause in causes if cause["reason"] == rule]
    messages += [warning for warning in response.get("warnings", ()) if warning.startswith(f"[{rule}] ")]
    assert messages, f"{worded[0].name} does not violate {rule}"
    assert not [message for message in messages if message.endswith("…")]


def test_cases_list_rules_that_exist() -> None:
    assert {rule for case in _CASES for rule in case.wording} == set(BY_ID)
