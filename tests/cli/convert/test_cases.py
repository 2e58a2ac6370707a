"""Each file in `cases/` holds a manifest, its conversion and every message about it; a new case is a new file.

`mounts` replaces the configuration's KV mounts. `input` and `output` are YAML texts: the output is compared as text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chevron
import pytest
import yaml

from cli.commands.convert import convert_documents
from cli.conversion.convert import convert
from cli.conversion.source import rewritten
from cli.conversion.templates import pod_template
from server.yaml.kubernetes import parse_documents
from webhook.configuration.model import Configuration
from webhook.configuration.sections import Vault
from webhook.pod.annotations import own_annotations, parse_annotations
from webhook.pod.other_injectors import claimed_by
from webhook.pod.references import SecretPrefix

CASES = sorted((Path(__file__).parent / "cases").glob("*.yaml"))


def load(path: Path) -> tuple[dict[str, Any], Configuration]:
    case = yaml.safe_load(path.read_text())
    vault = Vault(mounts=case["mounts"]) if "mounts" in case else Vault()
    return case, Configuration(vault=vault)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_the_recorded_conversion(path: Path) -> None:
    case, configuration = load(path)
    documents = parse_documents(case["input"].encode(), "input")
    objects, messages = convert_documents(documents, configuration)
    text, anew = rewritten(case["input"], documents, objects)
    assert text == case["output"]
    assert anew == []
    assert [f"{'left' if message.left else 'note'}: {message}" for message in messages] == case.get("messages", [])


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_admission_accepts_the_result_and_no_other_injector_claims_it(path: Path) -> None:
    case, configuration = load(path)
    for document in parse_documents(case["input"].encode(), "input"):
        converted = convert(document.object, configuration)
        template = pod_template(converted.object)
        if template is None:
            continue
        own: dict[str, str] = {}
        for each in template.annotations:
            own = own_annotations(each) | own
        assert parse_annotations(own, SecretPrefix("secret/home/")).problems == ()
        if converted.complete:
            assert [name for each in template.annotations for name in claimed_by(each)] == []


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_converting_twice_changes_nothing_more(path: Path) -> None:
    case, configuration = load(path)
    documents = parse_documents(case["output"].encode(), "output")
    objects, _ = convert_documents(documents, configuration)
    assert objects == [document.object for document in documents]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_messages_repeat_no_value(path: Path) -> None:
    case, configuration = load(path)
    _, messages = convert_documents(parse_documents(case["input"].encode(), "input"), configuration)
    for word in case.get("never", ["hunter2", "secret/data"]):
        assert all(word not in str(message) for message in messages)


RENDERED = {
    'a={{ with secret "secret/data/db" }}{{ .Data.data.user }}:{{ .Data.data.password }}{{ end }}\n': "a=u<&>:p\n",
    '{{- with secret "secret/data/db" -}}\n  {"u": "{{ .Data.data.user }}"}\n{{- end }}': '{"u": "u<&>"}',
    '{{ with secret "secret/data/db" }}\nA={{ .Data.data.user -}}\n{{/* a note */ -}}\n B{{ end }}': "\nA=u<&>B",
}


@pytest.mark.parametrize("template", RENDERED)
def test_a_translated_template_prints_what_vault_agent_prints(template: str) -> None:
    """Expected texts follow text/template's rules for trim markers."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "annotations": {
                "vault.hashicorp.com/agent-inject": "true",
                "vault.hashicorp.com/agent-inject-template-db": template,
            }
        },
        "spec": {"containers": [{"name": "app"}]},
    }
    converted = convert(pod, Configuration())
    assert converted.complete
    text = converted.object["metadata"]["annotations"]["morphisms.dev/template-db"]
    assert chevron.render(text, {"user": "u<&>", "password": "p"}) == RENDERED[template]
