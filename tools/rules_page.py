"""docs/rules.md, from the rules themselves and docs/rule-examples.yaml. `make schema` writes it."""

from __future__ import annotations

import sys
import textwrap
from typing import Any

from tools.rule_examples import DOCS, decided, examples
from webhook.rules import BY_ID, HELD_BY_GUARD, why_not_excepted
from webhook.rules.rule import Rule

PAGE = "rules.md"
_WIDTH = 118
_MARK = "| id | severity |"
_LAID_OVER = {
    "update": "of an UPDATE of a running pod",
    "binding": "of a Binding",
    "class": "of the RuntimeClass",
    "connect": "of who calls `kubectl exec`",
}


def page(introduction: str) -> str:
    """The whole page below its introduction, which people write."""
    rules = sorted(BY_ID.values(), key=lambda rule: rule.id)
    known = examples()
    rows = [_row(rule) for rule in rules]
    head = [f"{_MARK} requirement | injection depends on it | needs the cluster |", "|---|---|---|---|---|"]
    sections = [_section(rule, known[rule.id]) for rule in rules]
    return "\n\n".join([introduction.rstrip(), "\n".join([*head, *rows]), *sections]) + "\n"


def introduction() -> str:
    """What the page has before its table."""
    return (DOCS / PAGE).read_text().partition(_MARK)[0]


def _row(rule: Rule[Any]) -> str:
    injection, cluster = (" yes " if needed else "  " for needed in (rule.needed_for_injection, rule.needs_cluster))
    return f"| `{rule.id}` | {rule.severity.value} | {rule.summary} |{injection}|{cluster}|"


def _section(rule: Rule[Any], example: dict[str, Any]) -> str:
    kind = _LAID_OVER.get(example.get("of", ""), "of a Pod or of a template of pods")
    return "\n\n".join(
        [
            f"### {rule.id}",
            _why(rule),
            f"Severity {rule.severity.value}. A part {kind} that violates the rule:",
            _yaml(example["bad"]),
            _wrapped(f"Mode `enforce` denies it: {_fix(rule, example)}."),
            "It admits this one:",
            _yaml(example["good"]),
            _wrapped(_exception(rule)),
        ]
    )


def _why(rule: Rule[Any]) -> str:
    paragraphs = (sys.modules[rule.check.__module__].__doc__ or "").strip().split("\n\n")
    return "\n\n".join(_wrapped(each) for each in paragraphs if not each.startswith("http"))


def _fix(rule: Rule[Any], example: dict[str, Any]) -> str:
    """The message of the denial, which says what to change."""
    found = decided(example, "bad", as_written=True).violations
    return next(each.message for each in found if each.rule is rule).replace("<", "\\<")


def _exception(rule: Rule[Any]) -> str:
    why = why_not_excepted(rule.id)
    if not why:
        return "An [exception](reference.md#exceptions) can cover it for one workload, until a date."
    held = (
        ""
        if rule.id in HELD_BY_GUARD or not rule.needed_for_injection
        else ", and in every mode it denies a pod that opts in"
    )
    return f"No exception covers it: {why}{held}."


def _yaml(text: str) -> str:
    return f"```yaml\n{text.rstrip()}\n```"


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(" ".join(text.split()), _WIDTH, break_on_hyphens=False, break_long_words=False))
