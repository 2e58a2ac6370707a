"""webhook.admission.mutate_service: examples of when annotations are copied into the template."""

from __future__ import annotations

from typing import Any

import pytest

from webhook.admission.mutate_service import changes, decide
from webhook.configuration.model import Configuration
from webhook.decision import Decision
from webhook.modes import Mode
from webhook.request import Request, User

Json = dict[str, Any]
IMAGE = "registry.example/app:1"


def _service(on_service: Json | None = None, on_template: Json | None = None, image: str = IMAGE, **spec: Any) -> Json:
    return {
        "metadata": {"name": "payments", "annotations": _prefixed(on_service)},
        "spec": {
            "template": {
                "metadata": {"annotations": _prefixed(on_template)},
                "spec": {"containers": [{"image": image}], **spec},
            }
        },
    }


def _prefixed(annotations: Json | None) -> Json:
    return {f"morphisms.dev/{key}": value for key, value in (annotations or {}).items()}


def _decide(service: Json, old: Json | None = None) -> Decision:
    kind = ("serving.knative.dev", "v1", "Service")
    operation = "CREATE" if old is None else "UPDATE"
    request = Request("u", "/mutate/service", kind, kind, "", operation, "payments", "shop", User("dev"), service, old)
    return decide(request, Configuration(), None, Mode.INJECT)


def _copied(decision: Decision) -> Json:
    prefix = "/spec/template/metadata/annotations/morphisms.dev~1"
    found: Json = {}
    for operation in decision.operations:
        if operation["path"].startswith(prefix):
            found[operation["path"].removeprefix(prefix)] = operation["value"]
        else:
            assert operation["path"] in ("/spec/template/metadata/annotations", "/spec/template/metadata")
            annotations = operation["value"].get("annotations", operation["value"])
            found |= {key.removeprefix("morphisms.dev/"): value for key, value in annotations.items()}
    return found


def test_creation_copies_annotations_into_the_template() -> None:
    assert _copied(_decide(_service({"inject": "true", "secret-db": "~/db"}))) == {
        "inject": "true",
        "secret-db": "~/db",
    }


def test_the_templates_own_annotation_wins() -> None:
    assert _copied(_decide(_service({"inject": "true", "agent": "init"}, {"inject": "false"}))) == {"agent": "init"}


def test_status_is_never_copied() -> None:
    assert _decide(_service({"status": "x"})).outcome == "unchanged"


@pytest.mark.parametrize("metadata", [None, {}, {"annotations": None}, {"annotations": {}}])
def test_annotations_are_copied_into_a_template_without_annotations(metadata: Json | None) -> None:
    service = _service({"inject": "true"})
    service["spec"]["template"]["metadata"] = metadata
    assert _copied(_decide(service)) == {"inject": "true"}


def test_an_unchanged_manifest_gets_its_copies_back() -> None:
    service, old = _service({"inject": "true"}), _service({"inject": "true"}, {"inject": "true"})
    old["spec"]["template"]["spec"].update(timeoutSeconds=300, containerConcurrency=0)
    decision = _decide(service, old)
    assert _copied(decision) == {"inject": "true"}
    assert decision.warnings == ()


def test_a_new_annotation_alone_creates_no_revision_and_warns() -> None:
    decision = _decide(_service({"inject": "true"}), _service())
    assert decision.operations == ()
    assert decision.warnings == (
        "[annotations] morphisms.dev/inject on the Service's metadata applies from the next Revision"
        " after this change. Write it in spec.template.metadata.annotations to apply it now",
    )


def test_beside_a_removed_field_nothing_is_said_of_what_this_change_creates() -> None:
    """Before Knative's defaults are filled in, a removed field looks like a default: a Revision may well be made."""
    old = _service(args=None)
    old["spec"]["template"]["spec"]["containers"][0]["args"] = ["--verbose"]
    decision = _decide(_service({"inject": "true"}), old)
    assert decision.operations == ()
    assert len(decision.warnings) == 1
    assert "creates none" not in decision.warnings[0]
    assert "after this change" in decision.warnings[0]


def test_a_changed_annotation_alone_creates_no_revision_either() -> None:
    decision = _decide(_service({"profile": "b"}, {"profile": "a"}), _service({"profile": "a"}, {"profile": "a"}))
    assert decision.operations == ()
    assert len(decision.warnings) == 1


def test_a_changed_template_copies_every_annotation() -> None:
    old = _service({"profile": "a"}, {"profile": "a"})
    decision = _decide(
        _service({"profile": "b", "inject": "true"}, {"profile": "a"}, image="registry.example/app:2"), old
    )
    assert _copied(decision) == {"profile": "b", "inject": "true"}
    assert decision.warnings == ()


def test_an_annotation_that_the_author_wrote_in_the_template_is_not_taken_for_a_copy() -> None:
    old = _service({"profile": "a"}, {"profile": "mine"})
    assert _copied(_decide(_service({"profile": "b"}, {"profile": "mine"}, image="registry.example/app:2"), old)) == {}


@pytest.mark.parametrize(
    ("new", "old", "changed"),
    [
        ({}, {"timeoutSeconds": 300}, False),
        (None, {"a": 1}, False),
        ({"a": None}, {"a": 1}, False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": 2}, {"a": 1}, True),
        ({"a": 1}, None, True),
        ([1], [1, 2], True),
        ([1, 2], [1], True),
        ([], None, False),
        ([{"name": "a"}], [{"name": "a", "protocol": "TCP"}], False),
        ([{"name": "b"}], [{"name": "a"}], True),
        ({"a": {"b": 1}}, {"a": []}, True),
    ],
)
def test_members_that_the_manifest_omits_are_not_changes(new: Any, old: Any, changed: bool) -> None:
    assert changes(new, old) is changed


def test_a_deletion_is_skipped() -> None:
    kind = ("serving.knative.dev", "v1", "Service")
    request = Request("u", "/mutate/service", kind, kind, "", "DELETE", "x", "shop", User("dev"), None, _service())
    assert decide(request, Configuration(), None, Mode.INJECT).outcome == "skipped"
