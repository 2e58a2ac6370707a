"""webhook.rewrite.patch: operations, the equal result, and the unchanged original."""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch
import pytest

from webhook.rewrite.patch import Patch, pointer


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("spec",), "/spec"),
        (("spec", "containers", 0, "env", 12), "/spec/containers/0/env/12"),
        (("metadata", "annotations", "a/b~c"), "/metadata/annotations/a~1b~0c"),
        (("a", "~1"), "/a/~01"),
        (("a", ""), "/a/"),
    ],
)
def test_json_pointers_are_escaped(path: tuple[str | int, ...], text: str) -> None:
    assert pointer(path) == text


def test_applying_the_operations_gives_the_result() -> None:
    original: dict[str, Any] = {"list": [1, 2, 3], "deep": {"a": {"b": 1}}, "untouched": {"x": []}}
    before = copy.deepcopy(original)
    patch = Patch(original)
    patch.add(("list", 3), 4)
    patch.add(("list", 0), 0)
    patch.remove(("list", 2))
    patch.replace(("deep", "a", "b"), 2)
    patch.add(("deep", "a", "c/d"), {"new": []})
    patch.add(("deep", "a", "c/d", "new", 0), "in what was added")
    assert patch.operations == [
        {"op": "add", "path": "/list/3", "value": 4},
        {"op": "add", "path": "/list/0", "value": 0},
        {"op": "remove", "path": "/list/2"},
        {"op": "replace", "path": "/deep/a/b", "value": 2},
        {"op": "add", "path": "/deep/a/c~1d", "value": {"new": []}},
        {"op": "add", "path": "/deep/a/c~1d/new/0", "value": "in what was added"},
    ]
    assert patch.result == {
        "list": [0, 1, 3, 4],
        "deep": {"a": {"b": 2, "c/d": {"new": ["in what was added"]}}},
        "untouched": {"x": []},
    }
    assert original == before
    assert jsonpatch.apply_patch(before, patch.operations) == patch.result


def test_unchanged_parts_are_shared_with_the_original() -> None:
    original = {"spec": {"a": {}}, "metadata": {}}
    patch = Patch(original)
    patch.add(("metadata", "name"), "x")
    assert patch.result["spec"] is original["spec"]


def test_a_shared_value_is_added_without_being_changed_later() -> None:
    constant = {"items": [1]}
    patch = Patch({})
    patch.add(("one",), constant)
    patch.add(("one", "items", 1), 2)
    assert constant == {"items": [1]}
    assert patch.operations[0]["value"] == {"items": [1]}


def test_without_operations_the_result_is_the_original() -> None:
    assert Patch({"a": 1}).result == {"a": 1}
    assert Patch({"a": 1}).operations == []
