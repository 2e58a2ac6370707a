"""What the webhook's account may do, beside what it does: nothing unused, nothing missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.cluster.audit import Event
from tests.cluster.client import JSON_PATCH, Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.installation import NAME, SYSTEM, Installation
from tests.cluster.knative import make_service, pod_of
from tests.cluster.namespace import Namespace

_ACCOUNT = f"system:serviceaccount:{SYSTEM}:{NAME}"
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_SECRETS = f"/api/v1/namespaces/{SYSTEM}/secrets"
_CONFIG_MAPS = f"/api/v1/namespaces/{SYSTEM}/configmaps"
_LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases"

pytestmark = pytest.mark.usefixtures("knative")


class Use(NamedTuple):
    """One thing that may be done; `namespace` is empty for a cluster's role, `name` where any name will do."""

    namespace: str
    group: str
    resource: str
    verb: str
    name: str


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
    granted = set(_granted(cluster))
    assert len(granted) > 10
    _everything_that_takes_a_permission(cluster, hurried, namespace("inject"))
    events = [event for event in cluster.audit.events() if event["user"]["username"] == _ACCOUNT]
    assert [event["requestURI"] for event in events if event["responseStatus"]["code"] == 403] == []
    used = {_covering(use, granted) for event in events for use in _uses(event)}
    assert granted - used == set(), "granted and not used"


def _everything_that_takes_a_permission(cluster: ControlPlane, morphisms: Installation, here: Namespace) -> None:
    """Besides what every start does."""
    admin, mark = cluster.admin, cluster.audit.mark()
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
    cluster.audit.until(lambda event: event["user"]["username"] == _ACCOUNT and event["verb"] == "patch", mark)


def _is_anew(name: str, old: str, items: list[Object]) -> bool:
    fitting = (item for item in items if item["metadata"]["name"] == name and item["metadata"]["uid"] != old)
    return any(item.get("data") or item.get("spec") for item in fitting)


def _is_whole(items: list[Object]) -> bool:
    (ours,) = (item for item in items if item["metadata"]["name"] == "morphisms")
    return len({entry["clientConfig"].get("caBundle") for entry in ours["webhooks"]}) == 1


def _granted(cluster: ControlPlane) -> Iterator[Use]:
    """All that is bound to the account, each verb and name by itself."""
    for kind in ("clusterrolebindings", "rolebindings"):
        for binding in cluster.admin.items(f"{_RBAC}/{kind}"):
            subjects = [(s["kind"], s.get("namespace"), s["name"]) for s in binding.get("subjects", ())]
            if ("ServiceAccount", SYSTEM, NAME) not in subjects:
                continue
            namespace = binding["metadata"].get("namespace", "")
            role = binding["roleRef"]
            path = "clusterroles" if role["kind"] == "ClusterRole" else f"namespaces/{namespace}/roles"
            for rule in cluster.admin.get(f"{_RBAC}/{path}/{role['name']}")["rules"]:
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        for verb in rule["verbs"]:
                            for name in rule.get("resourceNames", [""]):
                                yield Use(namespace, group, resource, verb, name)


def _uses(event: Event) -> Iterator[Use]:
    """What a request took. Who applies or replaces what is not there needs `create` too."""
    target = event.get("objectRef")
    if target is None:
        return
    resource = "/".join(filter(None, (target["resource"], target.get("subresource"))))
    selected = parse_qs(urlsplit(event["requestURI"]).query).get("fieldSelector", [""])[0]
    name = target.get("name") or selected.removeprefix("metadata.name=")
    use = Use(target.get("namespace", ""), target.get("apiGroup", ""), resource, event["verb"], name)
    yield use
    if event["responseStatus"]["code"] == 201 and event["verb"] in ("patch", "update"):
        yield use._replace(verb="create")


def _covering(use: Use, granted: set[Use]) -> Use:
    """The narrowest permission that allows it."""
    for namespace in (use.namespace, ""):
        for name in (use.name, ""):
            found = use._replace(namespace=namespace, name=name)
            if found in granted:
                return found
    return use
