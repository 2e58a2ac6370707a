"""A live namespace is labelled `audit` and its pods are restarted: what is not ours stays as it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import pytest

from tests.cluster.attacks import IMAGE
from tests.cluster.client import Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.knative import make_service, pod_of
from tests.cluster.namespace import MODE_LABEL, Namespace

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


def test_labelling_a_live_namespace_audit_changes_nothing_that_is_not_ours(
    cluster: ControlPlane, namespace: Make
) -> None:
    here = namespace()
    workloads = [_deployment(here, name, *parts) for name, parts in {**_OTHERS, **_OURS}.items()]
    own = make_service("own", here, annotations=_STAYS, env={"P": "vault:~/db#password"}, command=["/app"])
    cluster.user("dev").apply(*workloads, own)
    service = pod_of(here, "own")
    assert "runtimeClassName" not in service["spec"]
    names = _OTHERS.keys() | _OURS.keys()
    before = _pods(here, names, set())
    old = {pod["metadata"]["uid"] for pod in (*before.values(), service)}

    done = cluster.admin.kubectl("label", "namespace", here.name, f"{MODE_LABEL}=audit")
    assert "[mode] own-00001: opts in" in done.warnings
    for pod in (*before.values(), service):
        cluster.admin.delete(here.pods(pod["metadata"]["name"]), gracePeriodSeconds="0")

    after = _pods(here, names, old)
    assert {name for name in _OTHERS if _said(after[name]) != _said(before[name])} == set()
    for name in _OURS:
        assert after[name]["spec"].get("runtimeClassName") == "kata-qemu-snp", name
    assert pod_of(here, "own", besides=old)["spec"]["runtimeClassName"] == "kata-qemu-snp"
