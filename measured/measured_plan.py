"""The plan that a document of ours pins in the environment of `morphisms-init`."""

from __future__ import annotations

from functools import lru_cache

from measured.measured_document import MeasuredDocument
from plan.codec import read_plan
from plan.document import EvidenceSource, PlanError
from plan.layout import CONTAINER, PLAN_VARIABLE


def data_hub_of(document: MeasuredDocument | None) -> EvidenceSource | None:
    """The guest's data hub as source of evidence, where the document was rendered for it."""
    if document is None:
        return None
    for container in document.data.get("containers") or ():
        try:
            if container["name"] == CONTAINER:
                return _data_hub(container["env"][PLAN_VARIABLE])
        except (KeyError, TypeError):
            return None
    return None


@lru_cache(maxsize=64)
def _data_hub(text: str) -> EvidenceSource | None:
    try:
        plan = read_plan(text)
    except PlanError:
        return None
    return plan.evidence[0] if plan.data_hub else None
