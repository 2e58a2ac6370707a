"""The ConfigMap with the container templates, whoever has written into it: refused entry by entry, never a crash."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webhook.configuration.accepted_templates import AcceptedTemplates
from webhook.configuration.model import Configuration
from webhook.configuration.templates_map import (
    MAX_ENTRY_BYTES,
    MAX_TEMPLATES,
    TemplatesMap,
    known_key,
    known_text,
    read_map,
    template_key,
)

_GOOD = Configuration().container_template
_NOW = datetime(2030, 1, 1, tzinfo=UTC)


def _entry(text: str) -> dict[str, str]:
    return {template_key(hashlib.sha256(text.encode()).hexdigest()): text}


def _with(**changes: Any) -> str:
    """The text of a template with other members, under its own right digest."""
    return json.dumps({**json.loads(_GOOD.text), **changes}, sort_keys=True, separators=(",", ":"))


def test_what_a_leader_writes_is_read() -> None:
    found = read_map({**_entry(_GOOD.text), "current": _GOOD.digest})
    assert found.problems == {}
    assert found.templates == AcceptedTemplates({_GOOD.digest: _GOOD}, _GOOD.digest)


def test_nothing_is_read_from_an_empty_one() -> None:
    assert read_map(None) == read_map({}) == TemplatesMap()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({template_key("0" * 64): _GOOD.text}, "is not the text that its digest names"),
        (_entry("{"), "is not JSON"),
        (_entry("[" * 50_000), "is not"),
        (_entry("null"), "version 1"),
        (_entry(_with(version=2)), "version 1"),
        (_entry(_with(rules={})), "is not a template: rules"),
        (_entry(_with(sidecar={"image": "evil"})), "is not a template: sidecar"),
        (_entry(_with(verifier={"url": "http://evil.example"})), "is not a template: verifier.url"),
        (_entry(_with(vault={"url": "https://evil.example"})), "is not in canonical form"),
        (_entry(f"{_GOOD.text} "), "is not in canonical form"),
        (_entry(json.dumps(json.loads(_GOOD.text))), "is not in canonical form"),
        (_entry(_GOOD.text.replace('"vault":', '"vault":{},"vault":')), "is not in canonical form"),
        (_entry("x" * (MAX_ENTRY_BYTES + 1)), "is larger than"),
        ({template_key("0" * 64): "\ud800"}, "is not"),
        ({"latest.json": _GOOD.text}, "is not a key"),
        ({f"{_GOOD.digest}.json.bak": _GOOD.text}, "is not a key"),
        ({"current": _GOOD.digest}, "names no template"),
        ({"current": "../../etc"}, "names no template"),
        ({"known.replica": "yes"}, "does not start with a time"),
        ({"known.replica": ""}, "does not start with a time"),
        ({template_key(_GOOD.digest): 7}, "is not text"),
        ("text", "is not a mapping"),
        ([], "is not a mapping"),
    ],
)
def test_what_a_stranger_writes_is_refused_and_named(data: Any, problem: str) -> None:
    found = read_map(data)
    assert found.templates.by_digest == {}
    assert found.templates.current is None
    (said,) = found.problems.values()
    assert problem in said
    assert "evil" not in said


def test_a_bad_entry_spoils_itself_only() -> None:
    found = read_map({**_entry("{"), **_entry(_GOOD.text), "current": _GOOD.digest, "note": "x"})
    assert list(found.templates.by_digest) == [_GOOD.digest]
    assert found.templates.current == _GOOD.digest
    assert len(found.problems) == 2


def test_the_marked_template_is_not_the_one_too_many() -> None:
    texts = [_with(cluster=f"c{number}") for number in range(MAX_TEMPLATES + 5)]
    data = {key: text for text in texts for key, text in _entry(text).items()}
    last = max(data).removesuffix(".json")
    found = read_map({**data, "current": last})
    assert len(found.templates.by_digest) == MAX_TEMPLATES
    assert found.templates.current == last
    assert len(found.problems) == 5


def test_a_revoked_template_is_known_and_not_accepted() -> None:
    found = read_map({**_entry(_GOOD.text), f"{_GOOD.digest}.revoked": "CVE-2026-0001", "current": _GOOD.digest})
    assert found.problems == {}
    assert found.templates.by_digest == {}
    assert found.templates.withdrawn == (_GOOD,)
    assert found.templates.rendered(Configuration()) is None


def test_what_a_replica_says_is_read_by_the_leader() -> None:
    templates = AcceptedTemplates({_GOOD.digest: _GOOD})
    found = read_map({known_key("replica-0"): known_text(templates, _NOW)})
    assert found.is_said_by("replica-0", templates)
    assert not found.is_said_by("replica-0", AcceptedTemplates())
    assert found.is_known_to("replica-0", _GOOD.digest)
    assert not found.is_known_to("replica-0", "0" * 64)
    assert not found.is_known_to("replica-1", _GOOD.digest)
    assert found.known["replica-0"].at == _NOW


_KEYS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["current", "immediate", "known.a", template_key(_GOOD.digest), f"{_GOOD.digest}.revoked"]),
    st.integers(),
)
_JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=20), st.lists)


@settings(deadline=None)
@given(st.one_of(_JSON, st.dictionaries(_KEYS, st.one_of(_JSON, st.sampled_from([_GOOD.text, _GOOD.digest, "true"])))))
def test_nothing_that_it_may_hold_breaks_a_replica(data: Any) -> None:
    found = read_map(data)
    assert set(found.templates.by_digest) <= {_GOOD.digest}
    found.templates.rendered(Configuration())
    found.templates.wanted(Configuration())
