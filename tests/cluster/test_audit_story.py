"""A live namespace goes through `audit`, `inject` and `enforce`, and all its pods are restarted in each.

In `audit` what is not ours stays as it is; in `inject` what another injector serves does; in `enforce` what complies is
admitted without one failure, while the configuration changes, and the rest is denied with its reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from tests.cluster.attacks import IMAGE
from tests.cluster.audit import creates
from tests.cluster.client import Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.installation import Installation
from tests.cluster.knative import make_service, pod_of
from tests.cluster.namespace import MODE_LABEL, Namespace
from tests.support.until import until

Make = Callable[..., Namespace]

pytestmark = pytest.mark.usefixtures("knative", "morphisms")

_BANK_VAULTS = {"vault.security.banzaicloud.io/vault-addr": "https://vault:8200"}
_VAULT_AGENT = {
    "vault.hashicorp.com/agent-inject": "true",
    "vault.hashicorp.com/role": "shop",
    "vault.hashicorp.com/agent-inject-secret-db": "secret/data/shop/db",
}
_COMMAND = {"command": ["/app"]}
# Nothing asks the Service for anything here, and Knative would scale it to zero.
_STAYS = {"autoscaling.knative.dev/min-scale": "1"}


def _env(**variables: str) -> Object:
    return {"env": [{"name": name, "value": value} for name, value in variables.items()]}


# Name -> annotations, members of the container.
_OTHERS: dict[str, tuple[Mapping[str, str], Object]] = {
    "ordinary": ({}, _env(LOG_LEVEL="info")),
    "plaintext": ({}, _env(DB_PASSWORD="hunter2-hunter2-Xx9")),
    "operator": ({}, _env(VAULT_IMAGE="vault:1.6.0", VAULT_HOSTPORT="vault:8200", VAULT_REPOSITORY="vault:5000/image")),
    "bank-vaults": (_BANK_VAULTS, _COMMAND | _env(P="vault:secret/data/shop/db#password")),
    "bank-vaults-inline": (_BANK_VAULTS, _COMMAND | _env(P="a:${vault:secret/data/shop/db#password}@db")),
    "bank-vaults-bare": ({}, _COMMAND | _env(P="vault:secret/data/shop/db#password")),
    "bank-vaults-bare-kv1": ({}, _COMMAND | _env(P="vault:kv/shop/db#password")),
    "bank-vaults-no-command": ({}, _env(P="vault:secret/shop/db#password")),
    "bank-vaults-template": ({}, _env(P="vault:secret/data/shop/db#${.user}:${.password}")),
    "bank-vaults-writes": ({}, _env(P=">>vault:secret/data/shop/db#password#{}")),
    "bank-vaults-transit": ({}, _env(P="vault:v1:8SDd3WHDOjf7mq69CyCqYjBXAiQQAVZRkFM13ok4/")),
    "vault-agent": (_VAULT_AGENT, {}),
    "opted-out": ({"morphisms.dev/inject": "false"}, _COMMAND | _env(P="vault:secret/shop/db#password")),
    "text": ({"morphisms.dev/literal-env": "P"}, _env(P="vault:~/db#password")),
    "mistyped": ({"morphisms.dev/injct": "true"}, {}),
}
_OURS: dict[str, tuple[Mapping[str, str], Object]] = {
    "told-to": ({"morphisms.dev/inject": "true"}, {}),
    "file": ({"morphisms.dev/secret-db": "secret/shop/db#password"}, {}),
    "annotated": ({"morphisms.dev/agent": "init"}, _COMMAND | _env(P="vault:secret/shop/db#password")),
}


def _deployment(here: Namespace, name: str, annotations: Mapping[str, str], container: Object) -> Object:
    labels = {"app": name}
    template = {
        "metadata": {"labels": labels, "annotations": dict(annotations)},
        "spec": {"containers": [{"name": "app", "image": IMAGE, **container}]},
    }
    metadata = {"name": name, "namespace": here.name}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def _pods(here: Namespace, names: set[str], besides: set[str]) -> dict[str, Object]:
    """A pod for each Deployment, by its name; none whose uid is in `besides`."""

    def there(items: list[Object]) -> dict[str, Object] | None:
        new = [item for item in items if item["metadata"]["uid"] not in besides]
        found = {item["metadata"]["labels"].get("app"): item for item in new}
        return {name: found[name] for name in names} if names <= found.keys() else None

    return here.admin.until(here.pods(), there)


def _said(pod: Object) -> str:
    """What admission may change of a pod, without the names that differ from pod to pod."""
    spec = {key: value for key, value in pod["spec"].items() if key != "nodeName"}
    text = json.dumps([pod["metadata"].get("annotations"), spec], sort_keys=True)
    for volume in pod["spec"].get("volumes", ()):
        if volume["name"].startswith("kube-api-access-"):
            text = text.replace(volume["name"], "kube-api-access")
    return text


# In `inject` a pod is injected unless another injector serves it, it cannot be injected, or it opts out.
_LEFT_IN_INJECT = {
    "bank-vaults",
    "bank-vaults-inline",
    "bank-vaults-bare",
    "bank-vaults-bare-kv1",
    "bank-vaults-no-command",
    "bank-vaults-template",
    "bank-vaults-writes",
    "vault-agent",
    "opted-out",
    "mistyped",
}
# In `enforce`: what is denied, and a part of the message that says why. `plaintext` has an exception.
_DENIED = {
    "bank-vaults": "[secrets/foreign-injector]",
    "bank-vaults-inline": "[secrets/foreign-injector]",
    "bank-vaults-writes": "[secrets/foreign-injector]",
    "vault-agent": "[secrets/foreign-injector]",
    "bank-vaults-bare": "leave out data/: write secret/shop/db#password",
    "bank-vaults-bare-kv1": "[secrets/leased]",
    "bank-vaults-no-command": "[secrets/references] container app gets secrets as env and has no command",
    "bank-vaults-template": "[secrets/references]",
    "mistyped": "[secrets/annotations]",
    # A ciphertext looks random.
    "bank-vaults-transit": "[secrets/plaintext-env]",
}


def _denied_creates(cluster: ControlPlane, here: Namespace, since: int) -> dict[str, str]:
    """By the Deployment's name: the last message of those creations of pods that failed."""
    cluster.audit.until_now(cluster.admin)
    found = {}
    for event in cluster.audit.events(since):
        status = event.get("responseStatus") or {}
        if creates(event, "pods", here.name) and status.get("code", 0) >= 400:
            found[event["requestObject"]["metadata"]["labels"]["app"]] = status.get("message", "")
    return found


def _restart(here: Namespace, pods: Iterable[Object]) -> set[str]:
    """Delete the pods; their uids."""
    for pod in pods:
        here.admin.delete(here.pods(pod["metadata"]["name"]), gracePeriodSeconds="0")
    return {pod["metadata"]["uid"] for pod in pods}


def _is_injected(pod: Object) -> bool:
    inits = [each["name"] for each in pod["spec"].get("initContainers", ())]
    return (pod["spec"].get("runtimeClassName"), inits) == ("kata-qemu-snp", ["morphisms-init"])


def test_a_live_namespace_goes_to_enforce_without_a_failed_admission_of_what_complies(
    cluster: ControlPlane, namespace: Make, morphisms: Installation
) -> None:
    here = namespace()
    workloads = [_deployment(here, name, *parts) for name, parts in {**_OTHERS, **_OURS}.items()]
    own = make_service("own", here, annotations=_STAYS, env={"P": "vault:~/db#password"}, command=["/app"])
    cluster.user("dev").apply(*workloads, own)
    service = pod_of(here, "own")
    assert "runtimeClassName" not in service["spec"]
    names = set(_OTHERS) | set(_OURS)
    before = _pods(here, names, set())

    done = cluster.admin.kubectl("label", "namespace", here.name, f"{MODE_LABEL}=audit")
    opting_in = {line for line in done.warnings if line.endswith(": opts in")}
    # `told-to` opts in where a namespace has no mode, too.
    assert opting_in == {
        f"[mode] {name}: opts in" for name in ("Revision/own-00001", "Deployment/file", "Deployment/annotated")
    }
    here.wait_until_seen()
    mark = cluster.audit.mark()
    old = _restart(here, [*before.values(), service])
    after = _pods(here, names, old)
    assert {name for name in _OTHERS if _said(after[name]) != _said(before[name])} == set()
    service = pod_of(here, "own", besides=old)
    assert {name for name in _OURS if not _is_injected(after[name])} == set()
    assert _is_injected(service)
    assert _denied_creates(cluster, here, mark) == {}

    here.label("inject")
    old |= _restart(here, [*after.values(), service])
    after, service = _pods(here, names, old), pod_of(here, "own", besides=old)
    assert {name for name in names if not _is_injected(after[name])} == _LEFT_IN_INJECT
    assert {name for name in _LEFT_IN_INJECT if _said(after[name]) != _said(before[name])} == set()
    assert _is_injected(service)
    assert _denied_creates(cluster, here, mark) == {}

    ends = datetime.now(UTC) + timedelta(days=30)
    exception = {
        "namespace": here.name,
        "owner": "Deployment/plaintext",
        "rules": ["secrets/plaintext-env"],
        "reason": "SEC-123",
        "expires": f"{ends:%Y-%m-%dT%H:%M:%SZ}",
    }
    settings = morphisms.configuration()
    try:
        morphisms.configure({**settings, "exceptions": [exception]})
        done = cluster.admin.kubectl("label", "namespace", here.name, f"{MODE_LABEL}=enforce", "--overwrite")
        here.wait_until_seen()
        assert f"[mode] {len(_DENIED)} of {len(names) + 1} workloads would be refused" in done.warnings[0]
        # The configuration changes while every pod is created anew.
        changed = {**settings, "exceptions": [exception], "sidecar": {**settings["sidecar"], "deadlineSeconds": 61}}
        with ThreadPoolExecutor(1) as pool:
            configured = pool.submit(morphisms.configure, changed)
            old |= _restart(here, [*after.values(), service])
            after, service = _pods(here, names - set(_DENIED), old), pod_of(here, "own", besides=old)
            configured.result(300)
        old |= _restart(here, [*after.values(), service])
        after, service = _pods(here, names - set(_DENIED), old), pod_of(here, "own", besides=old)
    finally:
        morphisms.configure(settings)
    assert {name for name, pod in after.items() if not _is_injected(pod)} == set()
    assert _is_injected(service)
    until(lambda: _DENIED.keys() <= _denied_creates(cluster, here, mark).keys())
    denied = _denied_creates(cluster, here, mark)
    assert denied.keys() == _DENIED.keys()
    assert {name for name, part in _DENIED.items() if part not in denied[name]} == set()
