"""Container templates outlive a configuration: what one replica injects, another one accepts if it knows the template.

Replica A has one configuration and replica B another; only what morphisms-init looks like differs between the two.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from tests.webhook.properties import rfc6902
from tests.webhook.properties.pods import careful_pods
from tests.webhook.properties.worlds import CLUSTERS, WORLDS, World, modes, review
from webhook.configuration.accepted_templates import AcceptedTemplates
from webhook.configuration.container_template import ContainerTemplate
from webhook.configuration.model import Configuration
from webhook.decide import decide
from webhook.decision import Decision
from webhook.modes import Mode
from webhook.review import read_review

Json = dict[str, Any]
_STATUS = "morphisms.dev/status"

# What an operator changes without changing what a pod has to comply with.
_CHANGES: dict[str, Json] = {
    "image": {"sidecar": {"image": "registry.example/other@sha256:" + "b" * 64}},
    "deadline": {"sidecar": {"deadlineSeconds": 61}},
    "period": {"sidecar": {"rereadSeconds": 60}},
    "resources": {"sidecar": {"resources": {"requests": {"cpu": "20m"}, "limits": {"cpu": "1", "memory": "256Mi"}}}},
    "user": {"sidecar": {"runAsUser": 4711}},
    "volumes": {"sidecar": {"secretsSizeLimit": "17Mi", "runSizeLimit": "5Mi"}},
    "verifier": {"verifier": {"url": "https://other.example", "role": "other"}},
    "audience": {"verifier": {"audience": "other-verifier"}},
    "vault": {"vault": {"url": "https://vault.other:8200", "namespace": "elsewhere"}},
    "prefix": {"vault": {"prefix": "secret/elsewhere"}},
    "cluster": {"cluster": "renamed"},
    "former injector": {"sidecar": {"injector": 1}},
    "injector before the hook": {"sidecar": {"injector": 2}},
    "no hook": {"sidecar": {"postStartExec": False}},
}

changes = st.sampled_from(sorted(_CHANGES))
# The oracle's worlds but the one whose own sections the changes would replace.
worlds = st.sampled_from([world for world in WORLDS if world.name != "strict"])


def changed(configuration: Configuration, what: str) -> Configuration:
    """The configuration after an operator's change."""
    return Configuration.model_validate(configuration.model_dump(mode="json", exclude_defaults=True) | _CHANGES[what])


def known(*templates: ContainerTemplate, current: ContainerTemplate | None = None) -> AcceptedTemplates:
    """What replicas know that have read these; the first is rendered, unless another is named."""
    first = templates[0] if current is None else current
    return AcceptedTemplates({each.digest: each for each in templates}, first.digest)


def ask(
    pod: Json, path: str, configuration: Configuration, templates: AcceptedTemplates | None, mode: Mode
) -> Decision:
    """The decision of a replica that has this configuration and knows these templates."""
    request = read_review(review(pod, path), path)
    return decide(request, configuration, CLUSTERS[mode].with_templates(templates))


def injected(pod: Json, configuration: Configuration, templates: AcceptedTemplates, mode: Mode) -> Json:
    """The pod as that replica rewrites it; only pods that it then admits, with morphisms-init."""
    decision = ask(pod, "/mutate/pod", configuration, templates, mode)
    assume(decision.outcome == "mutated")
    after: Json = rfc6902.apply(pod, decision.operations)
    assume(any(each["name"] == "morphisms-init" for each in after["spec"].get("initContainers") or ()))
    assume(ask(after, "/validate/pod", configuration, templates, mode).allowed)
    return after


@given(careful_pods(), worlds, changes, modes, st.booleans())
def test_what_a_replica_injects_by_the_old_template_one_with_the_new_configuration_admits(
    pod: Json, world: World, what: str, mode: Mode, swapped: bool
) -> None:
    old, new = world.configuration, changed(world.configuration, what)
    if swapped:  # a rollback
        old, new = new, old
    after = injected(pod, old, known(old.container_template), mode)
    both = known(new.container_template, old.container_template)
    for configuration in (old, new):  # its own file says nothing about what it admits
        assert ask(after, "/validate/pod", configuration, both, mode).allowed
        again = ask(after, "/mutate/pod", configuration, both, mode)
        assert again.allowed
        assert list(again.operations) == [], "an accepted template's injection stays as it is"


@given(careful_pods(), worlds, changes, modes)
def test_a_replica_that_does_not_know_the_template_says_so(pod: Json, world: World, what: str, mode: Mode) -> None:
    old, new = world.configuration, changed(world.configuration, what)
    after = injected(pod, new, known(new.container_template), mode)
    assume(after != injected(pod, old, known(old.container_template), mode))
    assume(_container(after) != _container(injected(pod, old, known(old.container_template), mode)))
    decision = ask(after, "/validate/pod", old, known(old.container_template), mode)
    (reason,) = {str(each) for each in decision.violations if each.rule.id == "secrets/init-container"}
    assert f"container template sha256:{new.container_template.digest[:12]}…" in reason
    assert "does not know" in reason
    if mode is Mode.ENFORCE:
        assert not decision.allowed


@given(careful_pods(), worlds, changes, modes, st.data())
def test_the_status_is_only_a_hint(pod: Json, world: World, what: str, mode: Mode, data: st.DataObject) -> None:
    """Neither a lying status makes a foreign container accepted, nor does one make an accepted one refused."""
    old, new = world.configuration, changed(world.configuration, what)
    after = injected(pod, old, known(old.container_template), mode)
    other = data.draw(st.sampled_from([new.container_template.digest, "0" * 64, "", None]))
    status = json.dumps({"injector": 2, "template": None if other is None else f"sha256:{other}"})
    after["metadata"]["annotations"][_STATUS] = data.draw(st.sampled_from([status, "{", "[]", "9" * 5000]))
    both = known(new.container_template, old.container_template)
    assert ask(after, "/validate/pod", new, both, mode).allowed
    tampered = copy.deepcopy(after)
    _container(tampered)["image"] = "registry.example/evil"
    tampered["metadata"]["annotations"][_STATUS] = json.dumps(
        {"injector": 2, "template": f"sha256:{old.container_template.digest}"}
    )
    found = ask(tampered, "/validate/pod", new, both, mode).violations
    assert "secrets/init-container" in {each.rule.id for each in found}


@given(careful_pods(), worlds, changes, modes)
def test_new_pods_get_the_marked_template_whatever_the_replicas_own_file_says(
    pod: Json, world: World, what: str, mode: Mode
) -> None:
    old, new = world.configuration, changed(world.configuration, what)
    both = known(new.container_template, old.container_template)
    first, second = (ask(pod, "/mutate/pod", configuration, both, mode) for configuration in (old, new))
    assert first.outcome == second.outcome
    results = [rfc6902.apply(pod, each.operations) for each in (first, second)]
    for result in results:
        (result["metadata"].get("annotations") or {}).pop(_STATUS, None)  # it names the configuration too
    assert results[0] == results[1]


@given(careful_pods(), worlds, modes)
def test_without_a_mark_a_pod_is_injected_as_the_release_before_did(pod: Json, world: World, mode: Mode) -> None:
    unmarked = AcceptedTemplates()
    configuration = world.configuration
    former = configuration.former_container_template
    assert former.injector == 1
    by_own_file = ask(pod, "/mutate/pod", configuration, unmarked, mode)
    by_template = ask(pod, "/mutate/pod", configuration, known(former), mode)
    assert list(by_own_file.operations) == list(by_template.operations)
    if by_own_file.outcome == "mutated":
        after = rfc6902.apply(pod, by_own_file.operations)
        verdict = ask(after, "/validate/pod", configuration, unmarked, mode)
        assert verdict.allowed or mode is Mode.ENFORCE
        assert [str(each) for each in verdict.violations if each.rule.id == "secrets/init-container"] == []


def _container(pod: Json) -> Json:
    (found,) = (each for each in pod["spec"]["initContainers"] if each["name"] == "morphisms-init")
    return found  # type: ignore[no-any-return]
