"""The page of rules: it is what the rules say, and each of its examples is decided as it claims."""

from __future__ import annotations

import pytest

from tests.support.paths import ROOT
from tools.rule_examples import DOCS, decided, examples
from tools.rules_page import PAGE, introduction, page
from webhook.rules import BY_ID
from webhook.scanner.finding import link_of

_EXAMPLES = examples()


def test_the_page_is_what_the_rules_say() -> None:
    assert (DOCS / PAGE).read_text() == page(introduction()), "run make schema"
    assert _EXAMPLES.keys() == BY_ID.keys()


@pytest.mark.parametrize("rule", BY_ID)
def test_the_link_of_a_finding_leads_to_its_rule(rule: str) -> None:
    name, _, anchor = link_of(rule).partition("#")
    headings = [line[4:] for line in (ROOT / name).read_text().splitlines() if line.startswith("### ")]
    assert anchor in [heading.replace("/", "") for heading in headings]


@pytest.mark.parametrize("rule", BY_ID)
def test_what_the_page_calls_bad_is_denied_by_its_rule_in_enforce(rule: str) -> None:
    decision = decided(_EXAMPLES[rule], "bad", as_written=True)
    assert rule in {violation.rule.id for violation in decision.violations}
    assert not decision.allowed


@pytest.mark.parametrize("rule", BY_ID)
def test_what_the_page_calls_good_is_admitted_in_enforce(rule: str) -> None:
    decision = decided(_EXAMPLES[rule], "good", as_written=False)
    assert decision.allowed, decision.denial
    assert not decision.violations
