"""What is published agrees with the code."""

from __future__ import annotations

import json

import pytest

from server.yaml.strict import schema
from tests.support.pages import PAGES
from tests.support.paths import ROOT
from tools.schema import DOCS, SCHEMAS


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_published_schema_is_the_types_own(name: str) -> None:
    assert (DOCS / name).read_text() == schema(SCHEMAS[name]), "run make schema"


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_page_links_the_published_schema(name: str) -> None:
    assert any(f"]({name})" in text for page, text in PAGES.items() if page.startswith("docs/"))


def test_every_key_of_the_configuration_is_described() -> None:
    document = json.loads((DOCS / "configuration.schema.json").read_text())
    objects = {"Configuration": document, **document["$defs"]}
    bare = [
        f"{name}.{key}"
        for name, each in objects.items()
        for key, value in each.get("properties", {}).items()
        if "description" not in value
    ]
    assert bare == []


def test_every_rule_is_in_its_own_file_and_documented() -> None:
    from webhook.rules import BY_ID

    rows = [line for line in (ROOT / "docs" / "rules.md").read_text().splitlines() if line.startswith("| `")]
    expected = []
    for rule in sorted(BY_ID.values(), key=lambda rule: rule.id):
        assert (ROOT / "webhook" / "rules" / f"{rule.id.replace('-', '_')}.py").is_file(), rule.id
        injection, cluster = (" yes " if needed else "  " for needed in (rule.needed_for_injection, rule.needs_cluster))
        expected.append(f"| `{rule.id}` | {rule.severity.value} | {rule.summary} |{injection}|{cluster}|")
    assert rows == expected
