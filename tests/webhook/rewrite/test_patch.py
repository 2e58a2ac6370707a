"""webhook.rewrite.patch: operations, the equal result, and the unchanged original."""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize(
    ("present", "missing", "operations"),
    [
        (None, [], []),
        ([1], [], []),
        (None, [1, 2], [{"op": "add", "path": "/spec/list", "value": [1, 2]}]),
        ([], [1], [{"op": "add", "path": "/spec/list", "value": [1]}]),
        (
            [0],
            [1, 2],
            [{"op": "add", "path": "/spec/list/1", "value": 1}, {"op": "add", "path": "/spec/list/2", "value": 2}],
        ),
    ],
)
def test_a_list_is_extended_or_added(present: list[int] | None, missing: list[int], operations: list[Any]) -> None:
    original: dict[str, Any] = {"spec": {} if present is None else {"list": present}}
    before = copy.deepcopy(original)
    patch = Patch(original)
    patch.extend(("spec", "list"), present, missing)
    assert patch.operations == operations
    assert patch.result == jsonpatch.apply_patch(before, operations)
    assert original == before


@pytest.mark.parametrize(
    ("metadata", "path", "value"),
    [
        (None, "/metadata", {"annotations": {"a/b": "x"}}),
        ({}, "/metadata/annotations", {"a/b": "x"}),
        ({"annotations": None}, "/metadata/annotations", {"a/b": "x"}),
        ({"annotations": {"a/b": "old"}}, "/metadata/annotations/a~1b", "x"),
    ],
)
@pytest.mark.parametrize("base", [(), ("spec", "template")])
def test_an_annotation_is_set_wherever_metadata_ends(
    base: tuple[str, ...], metadata: Any, path: str, value: Any
) -> None:
    holder = {} if metadata is None else {"metadata": metadata}
    original: dict[str, Any] = {"spec": {"template": holder}} if base else holder
    before = copy.deepcopy(original)
    patch = Patch(original)
    patch.annotate(base, "a/b", "x")
    assert patch.operations == [{"op": "add", "path": pointer(base) + path if base else path, "value": value}]
    assert patch.result == jsonpatch.apply_patch(before, patch.operations)
    assert original == before


KEYS = st.sampled_from(["a", "b", "a/b", "m~n", "~1", "0"])
VALUES = st.recursive(
    st.integers(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)


@given(st.data())
def test_the_result_is_the_one_of_an_independent_applier(data: st.DataObject) -> None:
    item: dict[str, Any] = data.draw(st.dictionaries(KEYS, VALUES, min_size=1, max_size=3))
    before = copy.deepcopy(item)
    patch = Patch(item)
    for _ in range(data.draw(st.integers(1, 4))):
        path: list[str | int] = []
        here: Any = patch.result
        while True:
            steps = list(range(len(here))) if isinstance(here, list) else list(here)
            step = data.draw(st.sampled_from(steps)) if steps else None
            if step is None or not isinstance(here[step], dict | list) or data.draw(st.booleans()):
                break
            here = here[step]
            path.append(step)
        operation = data.draw(st.sampled_from(["add", "replace", "remove"])) if steps else "add"
        if operation == "add":
            last = data.draw(st.integers(0, len(here)) if isinstance(here, list) else KEYS)
            patch.add((*path, last), data.draw(VALUES))
        elif operation == "replace":
            patch.replace((*path, step), data.draw(VALUES))
        else:
            patch.remove((*path, step))
    assert patch.result == jsonpatch.apply_patch(before, patch.operations)
    assert item == before
