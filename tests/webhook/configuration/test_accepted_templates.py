"""Which container template is rendered, which one a configuration wants, and what a revocation reaches."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from tests.webhook.properties.rfc6902 import apply
from tests.webhook.properties.worlds import CLUSTERS, review
from webhook.configuration.accepted_templates import AcceptedTemplates
from webhook.configuration.container_template import ContainerTemplate
from webhook.configuration.model import Configuration
from webhook.decide import decide
from webhook.decision import Decision
from webhook.modes import Mode
from webhook.review import read_review
from webhook.snapshot import snapshot_of_objects

_OLD = Configuration.model_validate({"sidecar": {"image": "registry.example/sidecar:1"}})
_NEW = Configuration.model_validate({"sidecar": {"image": "registry.example/sidecar:2"}})
_NOTHING = AcceptedTemplates()


def _accepting(
    *templates: ContainerTemplate, current: str | None = None, revoked: ContainerTemplate | None = None
) -> AcceptedTemplates:
    withdrawn = () if revoked is None else (revoked,)
    return AcceptedTemplates(
        {each.digest: each for each in templates},
        current,
        frozenset(each.digest for each in withdrawn),
        withdrawn,
    )


def _pod(annotations: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "annotations": {"morphisms.dev/inject": "true", **(annotations or {})}},
        "spec": {"containers": [{"name": "app", "image": "registry.example/app@sha256:" + "0" * 64}]},
    }


def _ask(pod: dict[str, Any], path: str, configuration: Configuration, templates: AcceptedTemplates | None) -> Decision:
    return decide(read_review(review(pod, path), path), configuration, CLUSTERS[Mode.INJECT].with_templates(templates))


def test_a_template_is_addressed_by_its_canonical_text() -> None:
    template = _OLD.container_template
    content = json.loads(template.text)
    assert template.text == json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert template.digest == hashlib.sha256(template.text.encode()).hexdigest()
    assert ContainerTemplate.model_validate(content) == template
    assert content["sidecar"]["injector"] == 3


def test_rules_and_exceptions_are_no_part_of_it() -> None:
    stricter = _OLD.model_copy(update={"execGroups": ("ops",), "schedulers": ("other",), "snapshotMaxAgeSeconds": 600})
    assert stricter.container_template.digest == _OLD.container_template.digest


def test_a_new_webhook_alone_changes_nothing_that_the_sidecars_image_has_to_understand() -> None:
    """What a release without templates injects is rendered, and stays, until the file changes."""
    former = _OLD.former_container_template
    assert _NOTHING.rendered(_OLD) == former
    assert _NOTHING.wanted(_OLD) == former
    marked = _accepting(former, current=former.digest)
    assert marked.wanted(_OLD) is former
    assert marked.wanted(_NEW) == _NEW.container_template
    both = _accepting(former, _NEW.container_template, current=_NEW.container_template.digest)
    assert both.wanted(_OLD) is former, "a rollback of the configuration finds what the release before injects"
    newer = _OLD.container_template
    all_three = _accepting(newer, former, _NEW.container_template, current=_NEW.container_template.digest)
    assert all_three.wanted(_OLD) is former
    assert _accepting(newer, former, current=newer.digest).wanted(_OLD) is newer


def test_a_file_that_names_the_version_gets_it_at_once() -> None:
    named = Configuration.model_validate({"sidecar": {"image": "registry.example/sidecar:1", "injector": 2}})
    former = _OLD.former_container_template
    assert _accepting(former, current=former.digest).wanted(named).injector == 2
    assert _NOTHING.rendered(named) == named.container_template


def test_a_revoked_template_is_neither_rendered_nor_wanted_in_another_version() -> None:
    bad = _OLD.container_template
    withdrawn = _accepting(current=bad.digest, revoked=bad)
    assert withdrawn.rendered(_OLD) is None
    assert withdrawn.is_revoked(_OLD.former_container_template)
    unmarked = _accepting(revoked=bad)
    assert unmarked.rendered(_OLD) is None
    assert unmarked.rendered(_NEW) == _NEW.former_container_template


@pytest.mark.parametrize("current", [_OLD.container_template.digest, None])
def test_while_only_a_revoked_template_could_be_rendered_a_pod_that_opts_in_is_denied(current: str | None) -> None:
    templates = _accepting(current=current, revoked=_OLD.container_template)
    decision = _ask(_pod(), "/mutate/pod", _OLD, templates)
    assert decision.denial is not None
    assert "revoked" in decision.denial.message


def test_a_pod_that_a_revoked_template_injected_is_refused_by_name() -> None:
    bad = _OLD.container_template
    before = _accepting(bad, current=bad.digest)
    pod = apply(_pod(), _ask(_pod(), "/mutate/pod", _OLD, before).operations)
    assert _ask(pod, "/validate/pod", _OLD, before).allowed
    new = _NEW.container_template
    after = AcceptedTemplates({new.digest: new}, new.digest, frozenset({bad.digest}), (bad,))
    denial = _ask(pod, "/validate/pod", _OLD, after).denial
    assert denial is not None
    assert f"container template sha256:{bad.digest[:12]}…, which was revoked" in denial.message
    again = _ask(pod, "/mutate/pod", _OLD, after)
    assert apply(pod, again.operations)["spec"]["initContainers"][0]["image"] == "registry.example/sidecar:2"


def test_an_author_gets_no_token_for_another_accepted_templates_verifier() -> None:
    """The pod is injected by a template that names one verifier, and mounts a token for the other one's audience."""
    other = Configuration.model_validate({"verifier": {"audience": "other-verifier"}})
    templates = _accepting(_OLD.container_template, other.container_template, current=other.container_template.digest)
    pod = apply(_pod(), _ask(_pod(), "/mutate/pod", _OLD, templates).operations)
    assert _ask(pod, "/validate/pod", _OLD, templates).allowed
    source = {"serviceAccountToken": {"audience": "morphisms-verifier", "path": "token"}}
    pod["spec"]["volumes"].append({"name": "mine", "projected": {"sources": [source]}})
    found = {each.rule.id for each in _ask(pod, "/validate/pod", other, templates).violations}
    assert "secrets/volumes" in found


@pytest.mark.parametrize(
    ("value", "problem"),
    [("sha256:" + "0" * 64, "not rendered with it"), ("latest", "is not sha256:"), ("sha256:" + "A" * 64, "is not")],
)
def test_a_template_that_an_author_names_has_no_effect_and_is_warned_about(value: str, problem: str) -> None:
    pod = _pod({"morphisms.dev/template": value})
    plain = apply(_pod(), _ask(_pod(), "/mutate/pod", _OLD, None).operations)
    mutated = apply(pod, _ask(pod, "/mutate/pod", _OLD, None).operations)
    assert mutated["spec"] == plain["spec"]
    decision = _ask(mutated, "/validate/pod", _OLD, None)
    assert decision.allowed
    assert any("morphisms.dev/template" in line and problem in line for line in decision.warnings)
    assert value not in str(decision.warnings)


def test_a_snapshot_with_the_templates_gives_offline_what_the_replicas_give() -> None:
    new = _NEW.container_template
    data = {f"{new.digest}.json": new.text, "current": new.digest}
    objects = [
        {"kind": "Namespace", "metadata": {"name": "shop", "labels": {"morphisms.dev/mode": "inject"}}},
        {"kind": "RuntimeClass", "metadata": {"name": "kata-qemu-snp"}, "handler": "kata-qemu-snp"},
        {"kind": "ConfigMap", "metadata": {"name": "morphisms-webhook-templates"}, "data": data},
    ]
    request = read_review(review(_pod(), "/mutate/pod"), "/mutate/pod")
    pod = apply(_pod(), decide(request, _OLD, snapshot_of_objects(objects)).operations)
    assert pod["spec"]["initContainers"][0]["image"] == "registry.example/sidecar:2"


def test_a_template_of_this_release_reads_the_same_in_the_next() -> None:
    """A new field with a default of its own would change every former template's text, and so its digest."""
    content = json.loads(Configuration().container_template.text)
    assert {key: sorted(value) for key, value in content.items() if isinstance(value, dict)} == {
        "evidence": ["kata-snp"],
        "sidecar": [
            "deadlineSeconds",
            "fsGroup",
            "image",
            "imagePullPolicy",
            "imagePullSecrets",
            "injector",
            "resources",
            "runAsUser",
            "runSizeLimit",
            "secretsSizeLimit",
        ],
        "vault": ["ca", "mounts", "namespace", "prefix", "url"],
        "verifier": ["audience", "ca", "role", "url"],
    }
    assert sorted(content) == ["cluster", "evidence", "sidecar", "vault", "verifier", "version"]
