"""webhook.pod.mustache, compared with the library that the sidecar renders with."""

from __future__ import annotations

import pytest
from chevron.tokenizer import tokenize
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import SidecarError
from sidecar.publish.render import _rendered
from webhook.pod.mustache import template_problem

_SECRET = {"user": "app", "password": "hunter2", "hosts": ["a", "b"]}


@pytest.mark.parametrize(
    "template",
    [
        "",
        "no tags, { } and }} alone",
        "postgres://{{{user}}}:{{& password }}@db",
        "{{#hosts}}{{.}},{{/hosts}}{{^hosts}}none{{/ hosts }}",
        "{{! a comment }}{{user}}",
        "{{=<% %>=}}<% user %> {{ is text",
    ],
)
def test_a_template_that_renders_has_no_problem(template: str) -> None:
    assert template_problem(template) is None
    assert isinstance(_rendered(template, "db", _SECRET), str)


@pytest.mark.parametrize(
    ("template", "trouble"),
    [
        ("{{user", "a tag that is never closed"),
        ("{{user}", "a tag that is never closed"),
        ("a{{}}b", "a tag without a name"),
        ("{{#hosts}}x", "a section that is never closed"),
        ("{{^hosts}}x", "a section that is never closed"),
        ("x{{/hosts}}", "closes a section"),
        ("{{#hosts}}{{#user}}{{/hosts}}{{/user}}", "closes a section"),
        ("{{> other}}", "a partial"),
    ],
)
def test_a_template_that_the_sidecar_would_refuse_is_reported(template: str, trouble: str) -> None:
    assert trouble in (template_problem(template) or "")
    with pytest.raises(SidecarError):
        _rendered(template, "db", _SECRET)


def test_three_braces_closed_by_two_are_reported_because_they_would_render_nothing() -> None:
    assert template_problem("{{{user}}:x") == "has a tag of three braces that is closed by two"


@given(st.text(alphabet="{}#^/!&>a \n", max_size=24))
def test_the_library_can_parse_every_accepted_template(template: str) -> None:
    if template_problem(template) is None:
        list(tokenize(template))
