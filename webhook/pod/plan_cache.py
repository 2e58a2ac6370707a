"""Caches plans: the pods of one Revision carry the same plan, and a plan that was just written need not be parsed.

Plans hold references and addresses, no secrets, so a bounded number of them may stay in memory.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from typing import Final

from plan.codec import read_plan, write_plan
from plan.document import Plan, PlanError

_KEPT: Final = 512
_MAX_KEPT_LENGTH: Final = 8 * 1024
_by_text: OrderedDict[str, Plan] = OrderedDict()
# The last plan that was too long to be kept: the decision that wrote it reads it once more.
_too_long: list[tuple[str, Plan]] = []


def plan_text(plan: Plan) -> str:
    """The canonical text; PlanError when it is too large."""
    text = _write(plan)
    _keep(text, plan)
    return text


_write = lru_cache(maxsize=_KEPT)(write_plan)


def plan_of(text: str) -> Plan | None:
    """The plan in the text; None when the text is not a plan."""
    plan = _by_text.get(text)
    if plan is None and _too_long and _too_long[0][0] == text:
        plan = _too_long[0][1]
    if plan is None:
        try:
            plan = read_plan(text)
        except PlanError:
            return None
        _keep(text, plan)
    return plan


def _keep(text: str, plan: Plan) -> None:
    if len(text) > _MAX_KEPT_LENGTH:
        _too_long[:] = [(text, plan)]
        return
    if text in _by_text:
        return
    _by_text[text] = plan
    if len(_by_text) > _KEPT:
        _by_text.popitem(last=False)
