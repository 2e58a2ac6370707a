"""Namespaces without the mode label: what is made there is what would be made without us, byte for byte."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest

from tests.cluster.caught_up import wait_for_webhooks
from tests.cluster.client import Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.installation import Installation
from tests.cluster.knative import APP_IMAGE, ROUTING_STATE, Knative, make_service, pod_of, settled
from tests.cluster.namespace import Namespace
from tests.cluster.policies import wait_for_policies
from tests.support.until import until

Make = Callable[..., Namespace]

_REGISTERED = (
    "mutatingwebhookconfigurations,validatingwebhookconfigurations,"
    "validatingadmissionpolicies,validatingadmissionpolicybindings"
)
_GROUPS = {
    "pods": "v1",
    "deployments": "apps/v1",
    "replicasets": "apps/v1",
    "jobs": "batch/v1",
    "services": "serving.knative.dev/v1",
    "configurations": "serving.knative.dev/v1",
    "revisions": "serving.knative.dev/v1",
    "routes": "serving.knative.dev/v1",
}


@pytest.fixture
def without_us(cluster: ControlPlane, morphisms: Installation, namespace: Make) -> Iterator[Namespace]:
    """A namespace, while nothing of ours is registered with the API server."""
    cluster.kubectl("delete", _REGISTERED, "--selector=app.kubernetes.io/name=morphisms")
    wait_for_webhooks(cluster.admin)
    wait_for_policies(cluster.admin)
    yield namespace()
    morphisms.install()
    morphisms.wait_until_answered()


def test_objects_in_an_unlabelled_namespace_are_the_same_with_and_without_us(
    cluster: ControlPlane, knative: Knative, morphisms: Installation, namespace: Make, without_us: Namespace
) -> None:
    bare = _made(cluster, without_us)
    morphisms.install()
    morphisms.wait_until_answered()
    here = namespace()
    mark = cluster.audit.mark()
    assert _made(cluster, here) == bare
    assert len(bare) >= 10
    # And this is why: the API server asked us about none of it, and no policy of ours spoke.
    cluster.audit.until_now(cluster.admin)
    asked = set()
    for event in cluster.audit.events(mark):
        if event.get("objectRef", {}).get("namespace") == here.name:
            asked |= {key for key, note in event.get("annotations", {}).items() if "morphisms" in key + note}
    assert asked == set()


def _made(cluster: ControlPlane, here: Namespace) -> dict[str, bytes]:
    """Everything that a developer's three workloads became, by kind and name, without what differs each time."""
    developer = cluster.user("dev")
    labels, spec = {"app": "bare"}, {"containers": [{"name": "app", "image": APP_IMAGE}]}
    template = {"metadata": {"labels": labels}, "spec": spec}
    job = {"metadata": {"labels": labels}, "spec": {**spec, "restartPolicy": "Never"}}
    developer.apply(
        make_service("web", here, env={"DB_PASSWORD": "hunter2-hunter2-Xx9"}),
        _object("batch/v1", "Job", here, "once", {"template": job}),
        _object(
            "apps/v1",
            "Deployment",
            here,
            "plain",
            {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
        ),
    )
    settled(here, "web")
    pod_of(here, "web")
    cluster.admin.until(here.pods(), lambda pods: len([pod for pod in pods if pod["spec"].get("nodeName")]) == 3)
    until(lambda: _is_finished(cluster, here))
    return dict(_masked(cluster, here))


def _is_finished(cluster: ControlPlane, here: Namespace) -> bool:
    """Whether the controllers have written all that they write on the objects besides their status."""
    items = {kind: cluster.admin.items(here.path(kind, group=group)) for kind, group in _GROUPS.items()}
    annotated = {"deployments": "deployment.kubernetes.io/revision"}
    annotated |= dict.fromkeys(("configurations", "revisions"), "serving.knative.dev/routes")
    return (
        all(
            note in (each["metadata"].get("annotations") or {})
            for kind, note in annotated.items()
            for each in items[kind]
        )
        and all(each["metadata"]["labels"].get(ROUTING_STATE) == "active" for each in items["revisions"])
        and all(each["metadata"].get("finalizers") for each in items["routes"])
    )


def _object(version: str, kind: str, here: Namespace, name: str, spec: Object) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": here.name}, "spec": spec}


def _masked(cluster: ControlPlane, here: Namespace) -> Iterator[tuple[str, bytes]]:
    items = {
        kind: sorted(cluster.admin.items(here.path(kind, group=group)), key=lambda item: str(item["metadata"]["name"]))
        for kind, group in _GROUPS.items()
    }
    names = [item["metadata"]["name"] for kind in ("pods", "replicasets") for item in items[kind]]
    random_parts = sorted({part for name in names for part in _RANDOM.findall(name)}, key=len, reverse=True)
    for kind, group in items.items():
        for number, item in enumerate(group):
            item.pop("status", None)  # how far its controller is, not what it is
            # They are in the order of the seconds in which they were made.
            item["metadata"]["managedFields"] = sorted(
                (entry for entry in item["metadata"]["managedFields"] if entry.get("subresource") != "status"),
                key=lambda entry: (entry["manager"], entry["operation"], entry.get("subresource", "")),
            )
            text = json.dumps(item).replace(here.name, "NAMESPACE")
            for part in random_parts:
                text = text.replace(part, "RANDOM")
            for pattern, mask in _DIFFERENT_EACH_TIME.items():
                text = re.sub(pattern, mask, text)
            yield f"{kind} {number}", text.encode()


# What controllers add to a name: the hash of a template, which holds uids, and five letters.
_RANDOM = re.compile(r"(?<=-)[bcdfghjklmnpqrstvwxz2456789]{5,10}(?=-|$)")
_DIFFERENT_EACH_TIME = {
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}": "UID",
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ": "TIME",
    r'"resourceVersion": "\d+"': '"resourceVersion": "N"',
    r'"nodeName": "[a-z0-9-]+"': '"nodeName": "NODE"',
    r"kube-api-access-[a-z0-9]{5}": "kube-api-access-RANDOM",
    r'"serving.knative.dev/deployment-hash": "[^"]+"': '"serving.knative.dev/deployment-hash": "HASH"',
}
