"""What convert does not change keeps its bytes: comments, order, quotes, indentation, anchors, line endings, JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.commands.convert import convert_documents
from cli.conversion.source import rewritten
from server.yaml.kubernetes import parse_documents
from tests.cli.convert.test_convert_properties import ANNOTATIONS, ENV, service
from webhook.configuration.model import Configuration


def converted(text: str) -> tuple[str, int]:
    """The converted text, and how many documents lost their layout."""
    documents = parse_documents(text.encode(), "input")
    objects, _ = convert_documents(documents, Configuration())
    result, anew = rewritten(text, documents, objects)
    assert [document.object for document in parse_documents(result.encode(), "output")] == objects
    return result, len(anew)


BLOCK = """\
# héad ☃ comment
apiVersion: v1   # why v1
kind: Pod

metadata:
    name: 'shop'
    annotations:    # foreign
        # the switch
        vault.hashicorp.com/agent-inject: 'true'   # on
        other: "kept"  # kept too
        # once
        vault.hashicorp.com/agent-pre-populate-only: "true"
        vault.hashicorp.com/agent-inject-template-db: |
            {{ with secret "secret/data/db" }}x={{ .Data.data.p }}{{ end }}

        # the last one
        vault.hashicorp.com/role: shop

    # behind
spec:
    containers:
    -   image: a
        name: app
"""
BLOCK_AFTER = """\
# héad ☃ comment
apiVersion: v1   # why v1
kind: Pod

metadata:
    name: 'shop'
    annotations:    # foreign
        # the switch
        morphisms.dev/inject: "true"
        morphisms.dev/agent: init
        morphisms.dev/secret-db: secret/db
        morphisms.dev/template-db: |
          x={{{p}}}
        morphisms.dev/vault-role: shop
        other: "kept"  # kept too
        # once

        # the last one

    # behind
spec:
    containers:
    -   image: a
        name: app
"""
ENVIRONMENT = """\
kind: Pod
apiVersion: v1
spec:
  containers:
  - name: app
    command: [/app]
    env: # all of them
    - name: A
      value: vault:secret/data/db#a  # plain
    - {name: B, value: 'vault:secret/data/db#b'}
    - name: C
      value: |
        url: ${vault:secret/data/db#c}
          and ${vault:secret/data/db#d}
        end
    - name: D
      value: "x\\ty ${vault:secret/data/db#e}"
"""
ENVIRONMENT_AFTER = """\
kind: Pod
apiVersion: v1
spec:
  containers:
  - name: app
    command: [/app]
    env: # all of them
    - name: A
      value: vault:secret/db#a  # plain
    - {name: B, value: 'vault:secret/db#b'}
    - name: C
      value: |
        url: ${vault:secret/db#c}
          and ${vault:secret/db#d}
        end
    - name: D
      value: "x\\ty ${vault:secret/db#e}"
metadata:
  annotations:
    morphisms.dev/inject: "true"
"""
FLOW = """\
{apiVersion: v1, kind: Pod, metadata: {name: a, annotations: {vault.security.banzaicloud.io/vault-addr: x,
  vault.security.banzaicloud.io/vault-role: app}}, spec: {containers: []}}  # flow
"""
FLOW_AFTER = """\
{apiVersion: v1, kind: Pod, metadata: {name: a, annotations: {vault.security.banzaicloud.io/vault-addr: x,
  morphisms.dev/vault-role: "app"}}, spec: {containers: []}}  # flow
"""
SHARED_ANCHOR = """\
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Pod
  metadata:
    name: a
    annotations: &agent  # for both
      vault.hashicorp.com/agent-inject: "false"
      kept: x
- apiVersion: v1
  kind: Pod
  metadata: {name: b, annotations: *agent}
  spec: {containers: []}
- apiVersion: v1
  kind: Pod
  metadata: {name: c, annotations: *agent}
  spec: {containers: []}
"""
EMPTIED = """\
apiVersion: v1
kind: Pod
metadata:
  annotations:  # none
    vault.security.banzaicloud.io/vault-path: kubernetes
  name: a
spec: {containers: []}
"""
EMPTIED_AFTER = """\
apiVersion: v1
kind: Pod
metadata:
  annotations: {}  # none
  name: a
spec: {containers: []}
"""
CASES = {
    "block": (BLOCK, BLOCK_AFTER),
    "environment": (ENVIRONMENT, ENVIRONMENT_AFTER),
    "flow": (FLOW, FLOW_AFTER),
    "emptied": (EMPTIED, EMPTIED_AFTER),
    "no newline at the end": (EMPTIED.rstrip("\n"), EMPTIED_AFTER.rstrip("\n")),
    "several documents": (
        f"# one\n---\n{EMPTIED}---\n# nothing\n---\n{FLOW}...\n",
        f"# one\n---\n{EMPTIED_AFTER}---\n# nothing\n---\n{FLOW_AFTER}...\n",
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_only_the_lines_that_change_change(name: str, newline: str) -> None:
    before, after = (text.replace("\n", newline) for text in CASES[name])
    assert converted(before) == (after, 0)


def test_a_text_that_needs_no_change_keeps_its_bytes() -> None:
    text = "\n# c\n---\n\n" + BLOCK.replace("vault.hashicorp.com", "example.com") + "\n...\n# end\n"
    assert converted(text) == (text, 0)


def test_an_anchor_stays_where_each_use_changes_alike_and_is_written_out_where_not() -> None:
    text = SHARED_ANCHOR.replace("kind: Pod\n  metadata:\n    name: a", "kind: Widget\n  metadata:\n    name: a")
    result, anew = converted(text)
    assert (anew, "for both" in result) == (1, False)
    alike = SHARED_ANCHOR.replace("      kept: x\n", "      kept: x\n  spec: {containers: []}\n")
    result, anew = converted(alike)
    assert (anew, result.count("*agent")) == (0, 2)
    assert 'annotations: &agent  # for both\n      morphisms.dev/inject: "false"\n      kept: x\n' in result


@pytest.mark.parametrize("merge", ["<<: *base", "<<: [*base]"])
def test_merged_annotations_are_converted_and_what_they_came_from_stays(merge: str) -> None:
    text = f"""\
apiVersion: apps/v1
kind: Deployment
x-base: &base {{vault.hashicorp.com/agent-inject: "false", plain: z}}
spec:
  template:
    metadata:
      annotations:
        {merge}
        vault.hashicorp.com/role: a
    spec: {{containers: []}}
"""
    result, _ = converted(text)
    (document,) = parse_documents(result.encode(), "output")
    annotations = document.object["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {"plain": "z", "morphisms.dev/inject": "false", "morphisms.dev/vault-role": "a"}


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json_stays_json_also_several_objects_one_after_the_other(indent: Any) -> None:
    first = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "\U0001f600"}}
    annotations = {"vault.security.banzaicloud.io/vault-role": "app", "other": "x"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"annotations": annotations}, "spec": {"containers": []}}
    kept = json.dumps(first)
    assert "\\ud83d" in kept
    text = kept + json.dumps(pod, indent=indent) + "\n"
    result, anew = converted(text)
    assert anew == 0
    assert result.startswith(kept + "{")
    pod["metadata"] = {"annotations": {"other": "x", "morphisms.dev/vault-role": "app"}}
    assert result == kept + json.dumps(pod, indent=indent) + "\n"


STYLES = {
    "block": lambda value: yaml.safe_dump(value, sort_keys=False, allow_unicode=True),
    "flow": lambda value: yaml.safe_dump(value, sort_keys=False, default_flow_style=True, width=60),
    "quoted": lambda value: yaml.safe_dump(value, sort_keys=False, default_style='"'),
    "json": lambda value: json.dumps(value, indent=2),
}


@pytest.mark.parametrize("style", STYLES)
@settings(max_examples=60, deadline=None)
@given(ANNOTATIONS, ANNOTATIONS, ENV, st.booleans())
def test_the_text_says_what_the_conversion_says_whatever_the_style(
    style: str, own: dict[str, str], template: dict[str, str], env: Any, twice: bool
) -> None:
    text = STYLES[style](service(own, template, env))
    if style != "json" and twice:
        text = f"# first\n{text}---\n# second\n{text}"
    result, anew = converted(text)
    assert anew == 0
    assert result.count("# ") >= text.count("# ") or style == "quoted"
