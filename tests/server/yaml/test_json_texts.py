"""JSON is read as JSON, and several objects one after the other as several documents."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.files import UnusableInputError
from server.yaml.kubernetes import parse_documents

A = '{"apiVersion": "v1", "kind": "A", "x": 1}'
B = '{"apiVersion": "v1", "kind": "B"}'
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def kinds(text: str) -> list[tuple[str, int]]:
    return [(document.object["kind"], document.line) for document in parse_documents(text.encode(), "file.json")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{A}\n{B}\n", [("A", 1), ("B", 2)]),
        (f"{A}{B}", [("A", 1), ("B", 1)]),
        (f"\n {A}\t{B}\r\n", [("A", 2), ("B", 2)]),
        (f"\ufeff{A}\n\n{B}", [("A", 1), ("B", 3)]),
        (f"---\n{A}\n---\n{B}\n", [("A", 2), ("B", 4)]),
        (f"{A}\n{B}\n---\napiVersion: v1\nkind: C\n", [("A", 1), ("B", 2), ("C", 4)]),
        (f"apiVersion: v1\nkind: C\n---\n{A}\n", [("C", 1), ("A", 4)]),
        (f"null\n{A}\nnull\n{B}null", [("A", 2), ("B", 4)]),
        (f"{A}\n---\nnull\n---\napiVersion: v1\nkind: C\n", [("A", 1), ("C", 5)]),
        ("{apiVersion: v1, kind: Flow}\n", [("Flow", 1)]),
        ('{"apiVersion": "v1", "kind": "Flow",}\n', [("Flow", 1)]),
    ],
)
def test_objects_one_after_the_other_are_documents(text: str, expected: list[tuple[str, int]]) -> None:
    assert kinds(text) == expected


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine generates slowly
@given(st.lists(VALUES, min_size=1, max_size=3), st.sampled_from([None, 2, "\t"]), st.sampled_from(["", "\n", " "]))
def test_what_is_written_as_json_is_read_unchanged(values: list[Any], indent: Any, between: str) -> None:
    objects = [{"apiVersion": "v1", "kind": "X", "value": value} for value in values]
    text = between.join(json.dumps(each, indent=indent) for each in objects)
    assert [document.object for document in parse_documents(text.encode(), "file.json")] == objects


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (r'"\ud83d\ude00"', "\U0001f600"),
        (r'"\ud83dx"', "\ufffdx"),
        (r'"\/\u0041"', "/A"),
        ("1.0", 1),
        ("1e3", 1000),
        ("18446744073709551616", 18446744073709551616),
        ('"y"', "y"),
    ],
)
def test_values_are_what_go_reads(written: str, value: Any) -> None:
    text = f'{{"apiVersion": "v1", "kind": "X", "value": {written}}}'
    (document,) = parse_documents(text.encode(), "file.json")
    assert document.object["value"] == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'{A}\n{{"apiVersion": "v1", "kind": "X", "a": "hunter2", "a": 1}}', "file.json:2: key a given twice"),
        (f"{A}\n[1]", "file.json:2"),
        (f"{A}\n" + '{"a":' * 100_000, "file.json:2: nested deeper than 100"),
        ('{"a":' * 101 + "1" + "}" * 101, "file.json:1: too many values, or nested too deep"),
        (f"{A} hunter2", "file.json:1"),
    ],
)
def test_unusable_json_is_refused_with_its_place_and_without_its_values(text: str, message: str) -> None:
    with pytest.raises(UnusableInputError) as error:
        parse_documents(text.encode(), "file.json")
    assert str(error.value).startswith(message)
    assert "hunter2" not in str(error.value)
