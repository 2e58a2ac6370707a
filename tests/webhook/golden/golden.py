"""Golden cases as data: one YAML file per case names a recorded review and holds the answer expected.

An answer is the response on the wire, with its patch decoded and whole. A rule's message is whole only in the one case
whose `wording` lists the rule; elsewhere `[RULE] …` stands for it, and a cause has its rule and field only. So a change
of wording changes one case. `recorded` holds the violations that admission let pass, which the wire gives no field for.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from measured.initdata import write_initdata
from measured.measured_document import write_document
from server.yaml.nodes import SafeLoader
from tests.support.paths import REVIEWS
from webhook.configuration.exceptions import read_time
from webhook.configuration.model import Configuration
from webhook.decide import decide, lookup
from webhook.decision import Decision
from webhook.modes import Mode
from webhook.review import read_review, write_review
from webhook.rules.rule import Violation
from webhook.snapshot import find_in_objects, snapshot_of_objects
from webhook.wellknown import INITDATA

_DIGEST = re.compile(r"[0-9a-f]{64}")
HERE = Path(__file__).parent
CASES = HERE / "cases"


@dataclass(frozen=True)
class Case:
    """`review` names a recorded review; `copy` copies within its request, by path.

    `request` sets in the request and `set` in its object, by path.

    `rendered`: the pod carries a document of our rules whose data is this, beside what every document says.

    `now` is the time of the decision. `wording` lists the rules whose messages `answer` holds whole.
    """

    name: str
    review: str
    path: str
    mode: str
    why: str
    set: dict[str, Any]
    copy: dict[str, str]
    request: dict[str, Any]
    configuration: dict[str, Any]
    objects: list[Any]
    now: str
    wording: frozenset[str] = frozenset()
    rendered: dict[str, Any] | None = None
    answer: dict[str, Any] = field(default_factory=dict)
    recorded: list[dict[str, str]] = field(default_factory=list)


def read_case(path: Path) -> Case:
    """The case in a file."""
    case = yaml.load(path.read_text(), SafeLoader)
    return Case(
        name=path.stem,
        review=case["review"],
        path=case["path"],
        mode=case["mode"],
        why=case.get("why", ""),
        set=case.get("set", {}),
        copy=case.get("copy", {}),
        request=case.get("request", {}),
        configuration=case.get("configuration", {}),
        objects=case.get("objects", []),
        now=case.get("now", "2027-01-01"),
        wording=frozenset(case.get("wording", ())),
        rendered=case.get("rendered"),
        answer=case.get("answer", {}),
        recorded=case.get("recorded", []),
    )


def decision_and_response(case: Case) -> tuple[Decision, dict[str, Any]]:
    """The webhook's decision, and the response that it sends, without the uid and with its patch decoded."""
    review = json.loads((REVIEWS / case.review).read_text())
    for target, source in case.copy.items():
        _set(review["request"], target.split("/"), _get(review["request"], source.split("/")))
    for dotted, value in case.request.items():
        _set(review["request"], dotted.split("/"), value)
    for dotted, value in case.set.items():
        _set(review["request"]["object"], dotted.split("/"), value)
    if case.rendered is not None:
        _set(
            review["request"]["object"],
            ["metadata", "annotations", INITDATA.replace("/", "|")],
            _document(case.rendered),
        )
    request = read_review(json.dumps(review).encode(), case.path)
    objects = [*yaml.load((HERE / "cluster.yaml").read_text(), SafeLoader)["items"], *case.objects]
    snapshot = snapshot_of_objects(objects)
    namespaces = {**snapshot.namespaces, request.namespace: Mode(case.mode)}
    snapshot = replace(snapshot, namespaces=namespaces, now=read_time(case.now))
    configuration = Configuration.model_validate(case.configuration)
    wanted = lookup(request, configuration, snapshot)
    if wanted is not None:
        snapshot = snapshot.with_fetched(find_in_objects(objects, wanted))
    decision = decide(request, configuration, snapshot)
    response: dict[str, Any] = json.loads(write_review(request.uid, decision))["response"]
    del response["uid"]
    if "patch" in response:
        response["patch"] = json.loads(base64.b64decode(response["patch"]))
        for operation in response["patch"]:
            _open_plan(operation.get("value"))
            # Any key added to the configuration changes its digest, and says nothing about the case.
            if operation["path"].endswith("morphisms.dev~1status"):
                operation["value"] = _DIGEST.sub("DIGEST", operation["value"])
            elif operation["path"] == "/metadata/annotations":
                operation["value"] = {key: _DIGEST.sub("DIGEST", text) for key, text in operation["value"].items()}
    return decision, response


def _document(data: dict[str, Any]) -> str:
    whole = {"version": 1, "containers": [], "images": {}, "automountsToken": True, "pod": {}, **data}
    return write_initdata(write_document(whole, {}))


def answer(case: Case) -> dict[str, Any]:
    """The response, without the messages of the rules that `wording` does not list."""
    decision, response = decision_and_response(case)
    hidden = [each for each in decision.violations if each.rule.id not in case.wording]
    hidden.sort(key=lambda violation: len(str(violation)), reverse=True)
    if "status" in response:
        status = response["status"]
        for violation in hidden:
            status["message"] = status["message"].replace(str(violation), _shortened(violation))
        for cause in status.get("details", {}).get("causes", ()):
            if cause["reason"] not in case.wording:
                del cause["message"]
    if "warnings" in response:
        response["warnings"] = [_without_wording(warning, hidden) for warning in response["warnings"]]
    return response


def recorded(case: Case) -> list[dict[str, str]]:
    """`{RULE: FIELD}` of each violation that does not deny the request."""
    decision, _ = decision_and_response(case)
    return [{each.rule.id: each.field} for each in decision.violations] if decision.allowed else []


def _without_wording(warning: str, hidden: list[Violation]) -> str:
    for violation in hidden:
        # A long warning ends in an ellipsis where it was cut.
        if str(violation) == warning or (warning.endswith("…") and str(violation).startswith(warning[:-1])):
            return _shortened(violation)
    return warning


def _shortened(violation: Violation) -> str:
    return f"[{violation.rule.id}] …"


def _get(item: Any, steps: list[str]) -> Any:
    for step in steps:
        item = item[int(step)] if isinstance(item, list) else item[step]
    return json.loads(json.dumps(item))


def _set(item: Any, steps: list[str], value: Any) -> None:
    for step in steps[:-1]:
        item = item[int(step)] if isinstance(item, list) else item.setdefault(step, {})
    last = steps[-1].replace("|", "/")
    if value is None:
        del item[int(last) if isinstance(item, list) else last]
    elif isinstance(item, list):
        item[int(last)] = value
    else:
        item[last] = value


def _open_plan(value: Any) -> None:
    """Show the plan in a patch as the object it is, so that a reader can review it."""
    if isinstance(value, list):
        for item in value:
            _open_plan(item)
    elif isinstance(value, dict):
        for item in value.values():
            _open_plan(item)
        if value.get("name") == "MORPHISMS_PLAN":
            value["value"] = json.loads(value["value"])
