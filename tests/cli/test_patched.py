"""Operations apply as RFC 6902 says, which an independent library knows too."""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.support.patched import patched

KEYS = st.sampled_from(["a", "b", "a/b", "m~n", "~1", "0"])
VALUES = st.recursive(
    st.integers(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An object and one operation that fits it."""
    item: dict[str, Any] = draw(st.dictionaries(KEYS, VALUES, min_size=1, max_size=3))
    here: Any = item
    path: list[str] = []
    while True:
        fitting = list(range(len(here))) if isinstance(here, list) else list(here)
        step = draw(st.sampled_from(fitting)) if fitting else None
        if step is None or not isinstance(here[step], dict | list) or draw(st.booleans()):
            break
        here = here[step]
        path.append(str(step))
    name = draw(st.sampled_from(["add", "replace", "remove"])) if fitting else "add"
    if name == "add":
        step = draw(st.integers(0, len(here)) if isinstance(here, list) else KEYS)
    pointer = "".join("/" + each.replace("~", "~0").replace("/", "~1") for each in [*path, str(step)])
    operation = {"op": name, "path": pointer}
    return item, [operation if name == "remove" else operation | {"value": draw(VALUES)}]


@given(cases())
def test_it_agrees_with_an_independent_applier(case: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    item, operations = case
    before = copy.deepcopy(item)
    assert patched(item, operations) == jsonpatch.apply_patch(item, operations)
    assert item == before


def test_the_patch_and_the_result_share_nothing() -> None:
    value: dict[str, Any] = {"deep": []}
    result = patched({}, [{"op": "add", "path": "/a", "value": value}])
    result["a"]["deep"].append(1)
    assert value == {"deep": []}


def test_an_operation_that_is_never_made_is_not_guessed() -> None:
    with pytest.raises(ValueError, match="operation move"):
        patched({"a": 1}, [{"op": "move", "from": "/a", "path": "/b"}])
