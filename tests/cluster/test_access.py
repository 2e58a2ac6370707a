"""What the webhook's account may do, beside what it does: nothing unused, nothing missing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.cluster.audit import Event
from tests.cluster.client import JSON_PATCH, Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.installation import NAME, SYSTEM, Installation
from tests.cluster.knative import make_service, pod_of
from tests.cluster.namespace import Namespace
from tests.cluster.permissions import Use, covering, granted_to, uses
from tests.support.until import until

_ACCOUNT = f"system:serviceaccount:{SYSTEM}:{NAME}"
_SECRETS = f"/api/v1/namespaces/{SYSTEM}/secrets"
_CONFIG_MAPS = f"/api/v1/namespaces/{SYSTEM}/configmaps"
_LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases"

pytestmark = pytest.mark.usefixtures("knative")


@pytest.fixture
def hurried(morphisms: Installation) -> Iterator[Installation]:
    """One that does not give its certificates a minute to settle."""
    before = morphisms.configuration()
    morphisms.configure({**before, "certificates": {"settleSeconds": 1}})
    yield morphisms
    morphisms.configure(before)


def test_every_permission_is_used_and_none_is_missing(
    cluster: ControlPlane, hurried: Installation, namespace: Callable[..., Namespace]
) -> None:
    granted = set(granted_to(cluster, NAME))
    assert len(granted) > 10
    _everything_that_takes_a_permission(cluster, hurried, namespace("inject"))

    def unused() -> set[Use]:
        return granted - {covering(use, granted) for event in _events(cluster) for use in uses(event)}

    with contextlib.suppress(AssertionError):
        until(lambda: not unused())  # the log is a moment behind
    assert unused() == set(), "granted and not used"
    assert [event["requestURI"] for event in _events(cluster) if event["responseStatus"]["code"] == 403] == []


def _events(cluster: ControlPlane) -> list[Event]:
    return [event for event in cluster.audit.events() if event["user"]["username"] == _ACCOUNT]


def _everything_that_takes_a_permission(cluster: ControlPlane, morphisms: Installation, here: Namespace) -> None:
    """Besides what every start does."""
    admin = cluster.admin
    cluster.user("dev").apply(make_service("web", here))
    pod = pod_of(here, "web")
    # A binding to a node that suits no profile: is the pod one that has to be confined?
    target = {"apiVersion": "v1", "kind": "Node", "name": "plain-0"}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod["metadata"]["name"]}, "target": target}
    admin.request("POST", here.pods(f"{pod['metadata']['name']}/binding"), binding)
    # Tightening: which Revisions would fail?
    here.label("enforce")
    # What is kept is lost.
    lost = ((_SECRETS, "morphisms-webhook-tls"), (_SECRETS, "morphisms-webhook-ca"), (_LEASES, NAME))
    for path, name in (*lost, (_CONFIG_MAPS, f"{NAME}-templates")):
        old = admin.delete(f"{path}/{name}")["details"]["uid"]
        admin.until(path, partial(_is_anew, name, old))
    # What is trusted is changed.
    for kind in ("mutatingwebhookconfigurations", "validatingwebhookconfigurations"):
        path = f"/apis/admissionregistration.k8s.io/v1/{kind}"
        bundle = {"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}
        admin.patch(f"{path}/morphisms", [bundle], JSON_PATCH)
        admin.until(path, _is_whole)


def _is_anew(name: str, old: str, items: list[Object]) -> bool:
    fitting = (item for item in items if item["metadata"]["name"] == name and item["metadata"]["uid"] != old)
    return any(item.get("data") or item.get("spec") for item in fitting)


def _is_whole(items: list[Object]) -> bool:
    (ours,) = (item for item in items if item["metadata"]["name"] == "morphisms")
    return len({entry["clientConfig"].get("caBundle") for entry in ours["webhooks"]}) == 1
