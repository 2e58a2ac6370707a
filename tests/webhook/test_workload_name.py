"""Log lines and audit annotations name a pod's workload, whatever its author wrote, and nothing but names."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.paths import REVIEWS
from webhook.configuration.model import Configuration
from webhook.decide import decide
from webhook.request import Request, User
from webhook.review import read_review
from webhook.workload_name import WorkloadName, workload_name

POD = ("", "v1", "Pod")
JUNK = st.recursive(st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=4)


def request(metadata: Any, name: str = "", kind: tuple[str, str, str] = POD) -> Request:
    object_ = {"metadata": metadata, "spec": {"containers": []}}
    return Request("u", "/mutate/pod", kind, ("", "v1", "pods"), "", "CREATE", name, "shop", User("u"), object_)


def owner(kind: Any, name: Any, controller: Any = True) -> dict[str, Any]:
    return {"apiVersion": "apps/v1", "kind": kind, "name": name, "controller": controller, "uid": "x"}


@pytest.mark.parametrize(
    ("metadata", "expected", "shown"),
    [
        ({"name": "web-0", "generateName": "web-"}, WorkloadName("web-0"), "Pod/web-0"),
        ({"generateName": "web-"}, WorkloadName("", "web-"), "Pod/web-*"),
        (
            {"generateName": "web-5d9f-", "ownerReferences": [owner("ReplicaSet", "web-5d9f")]},
            WorkloadName("", "web-5d9f-", "ReplicaSet/web-5d9f"),
            "ReplicaSet/web-5d9f",
        ),
        (
            {"name": "a", "ownerReferences": [owner("Old", "o", False), owner("Job", "j")]},
            WorkloadName("a", "", "Job/j"),
            "Job/j",
        ),
        ({"name": "a", "ownerReferences": [owner("Job", "hunter2 is it")]}, WorkloadName("a"), "Pod/a"),
        ({"name": "a", "ownerReferences": [owner("postgres://u:hunter2@h", "j")]}, WorkloadName("a"), "Pod/a"),
        ({"generateName": "password=hunter2"}, WorkloadName(), ""),
        ({"name": "x" * 254}, WorkloadName(), ""),
        (None, WorkloadName(), ""),
    ],
)
def test_a_pod_is_named_by_its_owner_its_name_or_its_prefix(metadata: Any, expected: WorkloadName, shown: str) -> None:
    found = workload_name(request(metadata))
    assert (found, str(found)) == (expected, shown)


def test_other_kinds_have_their_names_in_the_request() -> None:
    assert workload_name(request({"name": "a"}, kind=("serving.knative.dev", "v1", "Service"))) == WorkloadName()


@given(
    st.dictionaries(st.sampled_from(["name", "generateName", "ownerReferences"]), JUNK)
    | st.builds(lambda kind, name: {"ownerReferences": [owner(kind, name)]}, JUNK, JUNK),
    st.text(),
)
def test_whatever_an_author_writes_only_bounded_names_come_out(metadata: Any, name: str) -> None:
    shown = str(workload_name(request(metadata, name)))
    assert re.fullmatch(r"|[A-Za-z][A-Za-z0-9]{0,62}/[A-Za-z0-9][A-Za-z0-9.-]{0,252}\*?", shown)


@pytest.mark.parametrize("path", ["/mutate/pod", "/validate/pod"])
def test_every_decision_about_a_recorded_pod_names_its_workload(path: str) -> None:
    seen = 0
    for file in sorted(REVIEWS.glob("pods-create-*.json")):
        body = file.read_bytes()
        decision = decide(read_review(body, path), Configuration(), None)
        owners = json.loads(body)["request"]["object"]["metadata"].get("ownerReferences")
        if owners:
            assert decision.audit["workload"] == f"{owners[0]['kind']}/{owners[0]['name']}"
            seen += 1
    assert seen > 10
