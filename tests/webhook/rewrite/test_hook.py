"""The application may start while `morphisms-init` works if nothing of it runs, or counts as ready, too early."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from measured.initdata import write_initdata
from tests.webhook.properties.rfc6902 import apply
from tests.webhook.properties.worlds import CLUSTERS, review
from webhook.configuration.accepted_templates import AcceptedTemplates
from webhook.configuration.model import Configuration
from webhook.decide import decide
from webhook.decision import Decision
from webhook.modes import Mode
from webhook.review import read_review

Json = dict[str, Any]
_IMAGE = "registry.example/app@sha256:" + "0" * 64
_FOREIGN = write_initdata(b'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n"policy.rego" = "package agent_policy"\n')
_HOOK = {"postStart": {"exec": {"command": ["/usr/libexec/morphisms/exec", "--install"]}}}
_SHARED = Configuration.model_validate({"sidecar": {"image": "registry.example/sidecar:1"}})


def _container(name: str, secret: bool = True, **fields: Any) -> Json:
    env = [{"name": "A", "value": "vault:~/db#password" if secret else "1"}]
    return {"name": name, "image": _IMAGE, "command": ["/app"], "env": env, **fields}


def _service_pod(**annotations: str) -> Json:
    """Of a Service whose only container has a secret as a variable, as Knative makes it."""
    labels = {"serving.knative.dev/service": "payments", "serving.knative.dev/revision": "payments-00001"}
    containers = [_container("user-container"), {"name": "queue-proxy", "image": _IMAGE}]
    return {
        "metadata": {
            "name": "p",
            "labels": labels,
            "annotations": {
                f"morphisms.dev/{key}": value for key, value in ({"agent": "sidecar"} | annotations).items()
            },
        },
        "spec": {"containers": containers},
    }


def _with(change: Callable[[Json], object]) -> Json:
    pod = _service_pod()
    change(pod)
    return pod


def _ask(pod: Json, path: str, configuration: Configuration = _SHARED, *accepted: Configuration) -> Decision:
    templates = [each.container_template for each in (configuration, *accepted)]
    known = AcceptedTemplates({each.digest: each for each in templates}, templates[0].digest)
    return decide(read_review(review(pod, path), path), configuration, CLUSTERS[Mode.INJECT].with_templates(known))


def _injected(pod: Json, configuration: Configuration = _SHARED) -> Json:
    after: Json = apply(pod, _ask(pod, "/mutate/pod", configuration).operations)
    assert _ask(after, "/validate/pod", configuration).allowed
    assert list(_ask(after, "/mutate/pod", configuration).operations) == []
    return after


def _init(pod: Json) -> Json:
    found: Json
    (found,) = [each for each in pod["spec"]["initContainers"] if each["name"] == "morphisms-init"]
    return found


def _has_hook(pod: Json) -> bool:
    """The hook instead of the startup probe, never both, never neither."""
    container = _init(pod)
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert ("lifecycle" in container) != ("startupProbe" in container)
    return container.get("lifecycle") == _HOOK


BY_HOOK: dict[str, Json] = {
    "one container": _service_pod(),
    "several, all of them with secrets": _with(lambda pod: pod["spec"]["containers"].insert(0, _container("other"))),
    "all of them by env-from": _with(
        lambda pod: (
            pod["spec"]["containers"].__setitem__(0, _container("user-container", secret=False)),
            pod["metadata"]["annotations"].update({"morphisms.dev/env-from": "secret/shop/db"}),
        )
    ),
    "an init container that waits too": _with(lambda pod: pod["spec"].update(initContainers=[_container("migrate")])),
    "a probe by request, and a hook before its end": _with(
        lambda pod: pod["spec"]["containers"][0].update(
            livenessProbe={"httpGet": {"path": "/", "port": 8080}},
            lifecycle={"preStop": {"exec": {"command": ["/app", "down"]}}},
        )
    ),
    "a file beside the variable": _service_pod(**{"secret-tls": "~/tls"}),
}

BY_PROBE: dict[str, Json] = {
    "a container without secrets would run before the guest is attested": _with(
        lambda pod: pod["spec"]["containers"].insert(0, _container("other", secret=False))
    ),
    "a container that only reads files has nothing that waits": _with(
        lambda pod: (
            pod["spec"]["containers"].__setitem__(0, _container("user-container", secret=False)),
            pod["metadata"]["annotations"].update({"morphisms.dev/secret-db": "~/db"}),
        )
    ),
    "an init container without secrets": _with(
        lambda pod: pod["spec"].update(initContainers=[_container("migrate", secret=False)])
    ),
    "a proxy of a mesh": _with(
        lambda pod: pod["spec"].update(
            initContainers=[{"name": "istio-proxy", "image": _IMAGE, "restartPolicy": "Always"}]
        )
    ),
    "a proxy that another webhook added": _with(
        lambda pod: pod["spec"]["containers"].append({"name": "daprd", "image": _IMAGE})
    ),
    **{
        f"a command of the author's in its {name}": _with(
            lambda pod, name=name: pod["spec"]["containers"][0].update({name: {"exec": {"command": ["/app", "check"]}}})
        )
        for name in ("livenessProbe", "readinessProbe", "startupProbe")
    },
    "a command of the author's in its own hook": _with(
        lambda pod: pod["spec"]["containers"][0].update(lifecycle={"postStart": {"exec": {"command": ["/app", "up"]}}})
    ),
    "no secret at all": _with(
        lambda pod: (
            pod["spec"]["containers"].__setitem__(0, _container("user-container", secret=False)),
            pod["metadata"]["annotations"].update({"morphisms.dev/inject": "true"}),
        )
    ),
    "without queue-proxy the pod would be ready too early": _with(lambda pod: pod["spec"]["containers"].pop()),
    "a pod of no Service": _with(lambda pod: pod["metadata"].pop("labels")),
    "a policy in its initdata may refuse the hook": _with(
        lambda pod: pod["metadata"]["annotations"].update(
            {"io.katacontainers.config.hypervisor.cc_init_data": _FOREIGN}
        )
    ),
    "it is being rendered for such a policy": _service_pod(template="sha256:" + "0" * 64),
}


@pytest.mark.parametrize("pod", BY_HOOK.values(), ids=BY_HOOK)
def test_starts_early_when_every_container_waits_for_its_secrets(pod: Json) -> None:
    assert _has_hook(_injected(_qualified(pod)))


@pytest.mark.parametrize("pod", BY_PROBE.values(), ids=BY_PROBE)
def test_the_probe_holds_the_application_back_otherwise(pod: Json) -> None:
    after = apply(_qualified(pod), _ask(_qualified(pod), "/mutate/pod").operations)
    assert not _has_hook(after)


def _qualified(pod: Json) -> Json:
    """A path of its own prefix needs a Service."""
    if pod["metadata"].get("labels"):
        return pod
    pod = copy.deepcopy(pod)
    for container in pod["spec"]["containers"]:
        for variable in container.get("env") or []:
            variable["value"] = variable["value"].replace("~/", "secret/shop/")
    return pod


@pytest.mark.parametrize(
    "sidecar",
    [{"injector": 2}, {"injector": 1}, {"postStartExec": False}, {"injector": 3, "postStartExec": False}],
    ids=str,
)
def test_an_image_without_the_hook_and_guests_that_refuse_it_keep_the_probe(sidecar: Json) -> None:
    configuration = Configuration.model_validate({"sidecar": {"image": "registry.example/sidecar:1", **sidecar}})
    after = _injected(_service_pod(), configuration)
    assert not _has_hook(after)
    # What it has injected stays valid, and as it is, when newer replicas inject by hook; and the other way round.
    assert _ask(after, "/validate/pod", _SHARED, configuration).allowed
    assert list(_ask(after, "/mutate/pod", _SHARED, configuration).operations) == []
    hooked = _injected(_service_pod())
    assert _ask(hooked, "/validate/pod", configuration, _SHARED).allowed
    assert list(_ask(hooked, "/mutate/pod", configuration, _SHARED).operations) == []
    assert not _ask(hooked, "/validate/pod", configuration).allowed


def test_a_container_that_joins_later_brings_the_probe_back() -> None:
    """Another webhook adds a container after ours, and the API server asks ours again."""
    after = _injected(_service_pod())
    after["spec"]["containers"].append({"name": "daprd", "image": _IMAGE})
    refused = _ask(after, "/validate/pod")
    assert "secrets/init-container" in {each.rule.id for each in refused.violations}
    assert not refused.allowed
    again = apply(after, _ask(after, "/mutate/pod").operations)
    assert not _has_hook(again)
    assert _ask(again, "/validate/pod").allowed


TAMPERED: dict[str, Callable[[Json], object]] = {
    "another command": lambda init: init["lifecycle"]["postStart"]["exec"].update(command=["/bin/sh", "-c", "true"]),
    "another argument": lambda init: init["lifecycle"]["postStart"]["exec"]["command"].append("x"),
    "a request instead": lambda init: init.update(lifecycle={"postStart": {"httpGet": {"port": 80, "path": "/"}}}),
    "one before its end": lambda init: init["lifecycle"].update(preStop=_HOOK["postStart"]),
    "none at all": lambda init: init.pop("lifecycle"),
    "a startup probe too": lambda init: init.update(startupProbe={"httpGet": {"port": 15790, "path": "/startupz"}}),
}


@pytest.mark.parametrize("tampering", TAMPERED.values(), ids=TAMPERED)
def test_no_other_hook_runs_beside_the_pods_token(tampering: Callable[[Json], object]) -> None:
    after = _injected(_service_pod())
    tampering(_init(after))
    assert not _ask(after, "/validate/pod").allowed


def test_an_author_gets_no_early_start_for_a_container_that_does_not_wait() -> None:
    """The pod claims the hook, and one of its containers was unwrapped, or never was wrapped."""
    unwrapped = _injected(_service_pod())
    unwrapped["spec"]["containers"][0]["command"] = ["/app"]
    assert not _ask(unwrapped, "/validate/pod").allowed
    # A helper of the author's own, in the image, at the place where ours would be mounted.
    posing = _injected(_service_pod())
    command = ["/morphisms/run/exec", "own", "--", "/app"]
    posing["spec"]["containers"].append({"name": "own", "image": _IMAGE, "command": command})
    assert not _ask(posing, "/validate/pod").allowed


def test_a_debugging_container_changes_nothing() -> None:
    after = _injected(_service_pod())
    after["spec"]["ephemeralContainers"] = [{"name": "debug", "image": _IMAGE}]
    denied = _ask(after, "/validate/pod").violations
    assert "secrets/init-container" not in {each.rule.id for each in denied}
