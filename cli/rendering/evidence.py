"""A pod whose guest's data hub fetches the Vault token: the same plan with `coco-cdh` as its only source."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

from cli.rendering.refused import RefusedError
from measured.refusal import Refusal, objects
from plan.codec import read_plan, write_plan
from plan.document import DATA_HUB, EvidenceSource, PlanError
from plan.layout import CONTAINER, PLAN_VARIABLE

_ADDRESS: Final = "http://127.0.0.1:8006"


def with_data_hub(pod: Mapping[str, Any]) -> dict[str, Any]:
    """The injected pod with that plan. Raises RefusedError for a plan that cannot have it."""
    changed = deepcopy(dict(pod))
    for container in objects(changed["spec"].get("initContainers")):
        for variable in objects(container.get("env")):
            if container.get("name") == CONTAINER and variable.get("name") == PLAN_VARIABLE:
                variable["value"] = _rewritten(str(variable.get("value")))
                return changed
    raise RefusedError([Refusal("--evidence", f"is for pods that {CONTAINER} is injected into")])


def _rewritten(text: str) -> str:
    plan = read_plan(text)
    try:
        written = write_plan(plan._replace(evidence=(EvidenceSource(DATA_HUB, _ADDRESS),)))
        read_plan(written)
    except PlanError as error:
        raise RefusedError([Refusal("--evidence", f"cannot be {DATA_HUB}: {error}")]) from None
    return written
