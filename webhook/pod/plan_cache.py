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


def plan_text(plan: Plan) -> str:
    """The canonical text; PlanError when it is too large."""
    text = _write(plan)
    _keep(text, plan)
    return text


_write = lru_cache(maxsize=_KEPT)(write_plan)


def plan_of(text: str) -> Plan | None:
    """The plan in the text; None when the text is not a plan."""
    plan = _by_text.get(text)
    if plan is None:
        try:
            plan = read_plan(text)
        except PlanError:
            return None
        _keep(text, plan)
    return plan


def _keep(text: str, plan: Plan) -> None:
    if text in _by_text or len(text) > _MAX_KEPT_LENGTH:
        return
    _by_text[text] = plan
    if len(_by_text) > _KEPT:
        _by_text.popitem(last=False)
