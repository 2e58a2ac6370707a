"""Laws of Services: annotations are copied into the template, and alone create no Revision; updates count whole."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.webhook.properties import rfc6902
from tests.webhook.properties.services import as_stored, services
from tests.webhook.properties.worlds import CLUSTERS, NAMESPACE, WORLDS
from webhook.decide import decide
from webhook.decision import Decision
from webhook.modes import Mode
from webhook.request import Request, User

Json = dict[str, Any]
_PREFIX = "morphisms.dev/"


def _ask(service: Json, old: Json | None = None) -> tuple[Json, Decision]:
    request = Request(
        uid="u",
        path="/mutate/service",
        kind=("serving.knative.dev", "v1", "Service"),
        resource=("serving.knative.dev", "v1", "services"),
        subresource="",
        operation="CREATE" if old is None else "UPDATE",
        name="payments",
        namespace=NAMESPACE,
        user=User("dev"),
        object=service,
        old_object=old,
    )
    decision = decide(request, WORLDS[0].configuration, CLUSTERS[Mode.INJECT])
    assert decision.allowed
    return rfc6902.apply(service, decision.operations), decision


def _ours(item: Json) -> dict[str, str]:
    annotations = (item.get("metadata") or {}).get("annotations") or {}
    return {key: value for key, value in annotations.items() if key.startswith(_PREFIX)}


def _template(service: Json) -> Json:
    return service["spec"]["template"]  # type: ignore[no-any-return]


@given(services())
def test_creation_copies_every_annotation_that_the_template_lacks(service: Json) -> None:
    after, _ = _ask(service)
    wanted = {key: value for key, value in _ours(service).items() if key != "morphisms.dev/status"}
    assert _ours(_template(after)) == {**wanted, **_ours(_template(service))}


@given(services(), st.booleans())
def test_a_second_call_changes_nothing(service: Json, created: bool) -> None:
    old = None if created else as_stored(service)
    after, _ = _ask(service, old)
    assert _ask(after, old)[1].operations == ()


@given(services(), services())
def test_a_second_call_for_an_update_changes_nothing(service: Json, old: Json) -> None:
    stored = as_stored(old)
    after, _ = _ask(service, stored)
    assert _ask(after, stored)[1].operations == ()


@given(services())
def test_replacing_by_the_unchanged_manifest_creates_no_revision(service: Json) -> None:
    stored = as_stored(_ask(service)[0])
    after, decision = _ask(service, stored)
    assert _ours(_template(after)) == _ours(_template(stored))
    assert decision.warnings == ()


@given(services())
def test_a_service_older_than_the_webhook_keeps_its_revision(service: Json) -> None:
    stored = as_stored(service)
    after, decision = _ask(service, stored)
    assert after == service
    late = _ours(service).keys() - {"morphisms.dev/status"} - _ours(_template(service)).keys()
    assert len(decision.warnings) >= len(late)


@given(services(), services())
def test_annotations_are_copied_only_with_another_change_of_the_template(service: Json, old: Json) -> None:
    stored = as_stored(_ask(old)[0])
    after, _ = _ask(service, stored)
    before, now = _ours(_template(stored)), _ours(_template(after))
    added = {key for key in now if now[key] != before.get(key)}
    if added:
        assert _differs(_template(service), _template(stored))


def _differs(new: Any, old: Any) -> bool:
    """Whether the manifest's template says anything that the stored one does not."""
    if new in (None, {}, []):
        return False
    if isinstance(new, dict) and isinstance(old, dict):
        return any(_differs(value, old.get(key)) for key, value in new.items())
    if isinstance(new, list) and isinstance(old, list):
        return len(new) != len(old) or any(map(_differs, new, old))
    return bool(new != old)


@given(services(), services())
def test_only_our_annotations_in_the_template_change(service: Json, old: Json) -> None:
    before = copy.deepcopy(service)
    after, _ = _ask(service, as_stored(old))
    assert service == before
    assert _without_ours(after) == _without_ours(service)


def _without_ours(service: Json) -> Json:
    service = json.loads(json.dumps(service))
    metadata = _template(service).pop("metadata", None) or {}
    annotations = metadata.pop("annotations", None) or {}
    others = {key: value for key, value in annotations.items() if not key.startswith(_PREFIX)}
    return {**service, "template metadata": [metadata, others]}


@given(services())
def test_a_changed_image_copies_the_annotations(service: Json) -> None:
    stored = as_stored(service)
    assume(_ours(service))
    service["spec"]["template"]["spec"]["containers"][0]["image"] = "app:3"
    after, decision = _ask(service, stored)
    assert _ours(service).keys() - {"morphisms.dev/status"} <= _ours(_template(after)).keys()
    assert decision.warnings == ()


def _validated(service: Json, old: Json | None) -> Decision:
    kind = ("serving.knative.dev", "v1", "Service")
    operation = "CREATE" if old is None else "UPDATE"
    request = Request("u", "/validate/service", kind, kind, "", operation, "payments", NAMESPACE, User("dev"), service)
    request = dataclasses.replace(request, old_object=old)
    return decide(request, WORLDS[0].configuration, CLUSTERS[Mode.ENFORCE])


_DIGEST = "app@sha256:" + "0" * 64
_REFERENCE = {"name": "DB_PASSWORD", "value": "vault:secret/shop/db#password"}
_members: dict[str, st.SearchStrategy[Any]] = {
    "command": st.just(["/app"]),
    "args": st.just(["-v"]),
    "env": st.sampled_from([[], [_REFERENCE], [{"name": "DB_PASSWORD", "value": "hunter2"}]]),
    "securityContext": st.just({"runAsUser": 1000}),
    "resources": st.sampled_from([{"limits": {"cpu": "1"}}, {"limits": {"cpu": "1000m"}}]),
}


@st.composite
def _single(draw: Any) -> Json:
    container = {"image": _DIGEST, **draw(st.fixed_dictionaries({}, optional=_members))}
    metadata = {"annotations": draw(st.sampled_from([{}, {"morphisms.dev/secret-a": "secret/a#b"}]))}
    spec = {"containers": [container], **draw(st.fixed_dictionaries({}, optional={"serviceAccountName": st.just("a")}))}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "payments", "namespace": NAMESPACE},
        "spec": {"template": {"metadata": metadata, "spec": spec}},
    }


def _canonical(template: Json) -> str:
    return json.dumps(template, sort_keys=True).replace("1000m", "1").replace('"env": [], ', "")


@given(_single(), _single())
def test_an_update_that_changes_or_removes_anything_is_evaluated_as_its_creation_would_be(new: Json, old: Json) -> None:
    """Both have Knative's defaults here, so what only the old one has was taken away by its author."""
    service, stored = as_stored(new), as_stored(old)
    updated, created = _validated(service, stored), _validated(service, None)
    if _canonical(_template(service)) == _canonical(_template(stored)):
        assert updated.allowed
    else:
        assert updated.allowed == created.allowed


def test_removing_the_command_beside_a_reference_is_refused() -> None:
    """https://github.com/knative/serving/issues/5453: what counts as a changed Revision."""

    def service(**members: Any) -> Json:
        container = {"image": _DIGEST, "env": [_REFERENCE], **members}
        return as_stored(
            {
                "apiVersion": "serving.knative.dev/v1",
                "kind": "Service",
                "metadata": {"name": "payments", "namespace": NAMESPACE},
                "spec": {"template": {"spec": {"containers": [container]}}},
            }
        )

    with_command, without = service(command=["/app"]), service()
    assert not _validated(without, None).allowed
    assert not _validated(without, with_command).allowed
    assert _validated(without, without).allowed
    assert _validated(with_command, without).allowed


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"creationTimestamp": None}),
        ({"creationTimestamp": None, "annotations": None}, {"annotations": {}}),
        ({"labels": {"app": "a"}}, {"labels": {"app": "a"}, "annotations": {}, "creationTimestamp": None}),
        (None, {"creationTimestamp": None}),
    ],
)
def test_a_member_that_says_nothing_does_not_deny_an_old_template(before: Json | None, after: Json | None) -> None:
    """Go programs such as kn write `creationTimestamp: null`; the traffic of an old Service stays changeable."""
    container = {"image": _DIGEST, "env": [{"name": "DB_PASSWORD", "value": "correct-horse-battery"}]}

    def service(metadata: Json | None) -> Json:
        template = {"metadata": metadata, "spec": {"containers": [container]}}
        return {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Service",
            "metadata": {"name": "payments", "namespace": NAMESPACE},
            "spec": {"template": template},
        }

    assert not _validated(service(after), None).allowed
    assert _validated(service(after), service(before)).allowed
    assert not _validated(service({"labels": {"app": "b"}}), service(before)).allowed
