"""Attacks on who somebody is: mirror pods, Knative's labels, dry runs, tokens."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cluster.attacks import (
    DRY,
    GATED,
    KNATIVE_LABELS,
    SECRET,
    UNSCHEDULABLE,
    allowed,
    binding,
    developer,
    is_confidential,
    make_pod,
    mallory,
    reasons,
    try_patch,
    try_pod,
)
from tests.cluster.client import Answer, Client, Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.knative import Knative, make_service
from tests.cluster.namespace import Namespace
from tests.support.until import until

pytestmark = pytest.mark.usefixtures("morphisms")
Make = Callable[..., Namespace]
_KNATIVE = "system:serviceaccount:knative-serving:controller"
_SERVING = "serving.knative.dev/v1"
_GUARD = {"knative-labels.morphisms.dev"}


@pytest.fixture
def here(namespace: Make) -> Namespace:
    return namespace("enforce")


# Static pods, and those who say that theirs is one.


def _mirror(cluster: ControlPlane, node: str, **spec: object) -> Object:
    pod = make_pod(
        f"static-{node}", annotations={"kubernetes.io/config.mirror": "x", "kubernetes.io/config.source": "file"}
    )
    uid = cluster.admin.get(f"/api/v1/nodes/{node}")["metadata"]["uid"]
    owner = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid, "controller": True}
    pod["metadata"]["ownerReferences"] = [owner]
    pod["spec"] |= {"nodeName": node, **spec}
    return pod


def test_c21_mirror_pod_of_somebody_else(cluster: ControlPlane, here: Namespace) -> None:
    pod = _mirror(cluster, "plain-0")
    for client in (developer(cluster), mallory(cluster), cluster.admin):
        assert reasons(try_pod(client, here, pod)) == {"placement/node-name"}
    assert not is_confidential(allowed(try_pod(cluster.node("plain-0"), here, pod))), "it shows what runs already"


def test_c21_pods_that_a_kubelet_makes_up(cluster: ControlPlane, here: Namespace) -> None:
    """NodeRestriction keeps a kubelet to mirrors of its own, without anything of the API server's in them."""
    kubelet = cluster.node("plain-0")
    elsewhere = _mirror(cluster, "snp-0")
    ordinary = _mirror(cluster, "plain-0")
    del ordinary["metadata"]["annotations"]
    with_account = _mirror(cluster, "plain-0", serviceAccountName="default")
    secret = {"name": "s", "secret": {"secretName": "db"}}
    with_secret = _mirror(cluster, "plain-0", volumes=[secret])
    for pod, why in (
        (elsewhere, "spec.nodeName set to itself"),
        (ordinary, "can only create mirror pods"),
        (with_account, "may not reference service accounts"),
        (with_secret, "may not reference secrets"),
    ):
        answer = try_pod(kubelet, here, pod)
        assert (answer.status, why in answer.message) == (403, True), answer.message
    forged = _mirror(cluster, "plain-0")
    forged["metadata"]["labels"] = KNATIVE_LABELS
    assert reasons(try_pod(kubelet, here, forged)) == _GUARD
    allowed(try_pod(kubelet, here, _mirror(cluster, "plain-0")))


# Knative's labels, which say whose pod it is.


@pytest.mark.parametrize("mode", ["enforce", "inject", "audit", None])
def test_c22_pod_with_forged_labels(cluster: ControlPlane, namespace: Make, mode: str | None) -> None:
    """Directly, in each mode; owned by somebody who does not exist, or not."""
    here, asks = namespace(mode), {"morphisms.dev/inject": "true"}
    forged = make_pod(annotations=asks, labels=KNATIVE_LABELS)
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "payments-00001-deployment", "controller": True}
    owned = make_pod(annotations=asks, labels=KNATIVE_LABELS)
    owned["metadata"]["ownerReferences"] = [{**owner, "uid": "00000000-0000-4000-8000-000000000000"}]
    for pod in (forged, owned):
        refusal = reasons(try_pod(developer(cluster), here, pod))
        assert refusal in (_GUARD, {"isolation/knative-labels"})  # one of both answers first
    owned["metadata"]["labels"] = {"team": "payments"}
    assert is_confidential(allowed(try_pod(developer(cluster), here, owned)))


@pytest.mark.parametrize("mode", ["inject", None])
def test_c22_labels_that_are_put_on_later(cluster: ControlPlane, namespace: Make, mode: str | None) -> None:
    here = namespace(mode)
    developer(cluster).create(here.pods(), make_pod("mine", annotations={"morphisms.dev/inject": "true"}, **GATED))
    for path, client in ((here.pods("mine"), developer(cluster)), (here.pods("mine/status"), mallory(cluster))):
        assert reasons(try_patch(client, path, {"metadata": {"labels": KNATIVE_LABELS}})) == _GUARD
        allowed(try_patch(client, path, {"metadata": {"labels": {"team": "payments"}}}))


_KINDS = ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "CronJob", "ReplicationController"]


@pytest.mark.parametrize("kind", _KINDS)
def test_c22_forged_labels_by_way_of_a_controller(cluster: ControlPlane, here: Namespace, kind: str) -> None:
    def create(client: Client, labels: dict[str, str]) -> Answer:
        path, item = _workload(here, kind, labels)
        return client.request("POST", path, item, query=DRY)

    assert reasons(create(developer(cluster), KNATIVE_LABELS)) == _GUARD
    allowed(create(developer(cluster), {"team": "payments"}))


def _workload(here: Namespace, kind: str, labels: dict[str, str]) -> tuple[str, Object]:
    app = {"app": "x"}
    spec: Object = {"template": {"metadata": {"labels": labels | app}, "spec": make_pod()["spec"]}}
    group = "v1" if kind == "ReplicationController" else "batch/v1" if kind in ("Job", "CronJob") else "apps/v1"
    if group == "batch/v1":
        spec["template"]["spec"]["restartPolicy"] = "Never"
    else:
        spec["selector"] = app if group == "v1" else {"matchLabels": app}
    if kind == "CronJob":
        spec = {"schedule": "* * * * *", "jobTemplate": {"spec": spec}}
    item = {"apiVersion": group, "kind": kind, "metadata": {"name": "forged"}, "spec": spec}
    return here.path(f"{kind.lower()}s", group=group), item


def test_c22_somebody_elses_name(cluster: ControlPlane, here: Namespace) -> None:
    """To be the ReplicaSet controller takes the right to impersonate it, which nobody in a namespace has."""
    pod = make_pod(labels=KNATIVE_LABELS)
    for controller in ("kube-system:replicaset-controller", "knative-serving:controller"):
        name = f"system:serviceaccount:{controller}"
        done = developer(cluster).kubectl(
            "create", "--validate=false", "--as", name, "-n", here.name, "-f", "-", input=pod, check=False
        )
        assert done.code != 0
        assert "cannot impersonate" in done.err


@pytest.fixture
def payments(cluster: ControlPlane, knative: Knative, here: Namespace) -> Object:
    """A Knative Service that somebody would like to be."""
    developer(cluster).create(here.services(), make_service("payments", command=["/app/payments"]))
    # The API server serves a resource a moment after its definition.
    until(lambda: cluster.admin.request("GET", here.revisions()).status == 200)
    return cluster.admin.get(here.services("payments"))


def test_c22_knative_objects_that_say_they_are_a_services(
    cluster: ControlPlane, here: Namespace, payments: Object
) -> None:
    """Knative hands these labels on to the pods. That the owner exists is all that it asks for."""
    spec = payments["spec"]["template"]
    owner = {"apiVersion": _SERVING, "kind": "Service", "name": "payments", "uid": payments["metadata"]["uid"]}

    def create(kind: str, metadata: Object, spec: Object) -> Answer:
        item = {"apiVersion": _SERVING, "kind": kind, "metadata": {"name": "mine", **metadata}, "spec": spec}
        path = here.path(f"{kind.lower()}s", group=_SERVING)
        return developer(cluster).request("POST", path, item, query=DRY)

    labelled = {"labels": KNATIVE_LABELS, "ownerReferences": [owner]}
    template = {"template": {"metadata": {"labels": KNATIVE_LABELS}, "spec": spec["spec"]}}
    assert reasons(create("Configuration", labelled, {"template": spec})) == _GUARD
    assert reasons(create("Configuration", {}, template)) == _GUARD
    assert reasons(create("Revision", labelled, spec["spec"])) == _GUARD
    allowed(create("Configuration", {"labels": {"team": "payments"}}, {"template": spec}))
    # A Service's own template may say so: Knative overwrites it with the Service's name.
    allowed(create("Service", {}, template))
    # Knative itself still does what is refused to others.
    pods = cluster.admin.until(here.pods(), lambda found: found)
    assert pods[0]["metadata"]["labels"]["serving.knative.dev/service"] == "payments"
    assert is_confidential(pods[0])


def test_c22_labels_of_knatives_objects_that_change(cluster: ControlPlane, here: Namespace, payments: Object) -> None:
    revisions = cluster.admin.until(here.revisions(), lambda found: found)
    configuration = here.path("configurations", "payments", group=_SERVING)
    for path in (here.revisions(revisions[0]["metadata"]["name"]), configuration):
        for value in ("orders", None):
            change = {"metadata": {"labels": {"serving.knative.dev/service": value}}}
            assert reasons(try_patch(developer(cluster), path, change)) == _GUARD
        allowed(try_patch(developer(cluster), path, {"metadata": {"labels": {"team": "payments"}}}))


def test_c22_container_that_takes_the_name_of_knatives(
    cluster: ControlPlane, here: Namespace, payments: Object
) -> None:
    """The rules leave queue-proxy alone in Knative's pods, and Knative lets nobody else have the name there."""
    tagged = {"name": "queue-proxy", "image": "dev.local/mine:latest"}
    bare = make_pod(containers=[make_pod()["spec"]["containers"][0], tagged])
    assert reasons(try_pod(developer(cluster), here, bare)) == {"images/digest"}
    service = make_service("mine", command=["/app"])
    service["spec"]["template"]["spec"]["containers"][0]["name"] = "queue-proxy"
    answer = developer(cluster).request("POST", here.services(), service, query=DRY)
    assert (answer.status, "is a reserved container name" in answer.message) == (400, True), answer.message


# Dry runs.


def test_c45_dry_run(cluster: ControlPlane, here: Namespace) -> None:
    """Knative tries a Service's containers out as a bare pod: let through for its controller, and kept by nobody."""
    bare = make_pod(container={"image": "dev.local/app:latest"}, nodeName="plain-0")
    knative = cluster.user(_KNATIVE, "system:masters")
    assert not is_confidential(allowed(try_pod(knative, here, bare)))
    assert "placement/node-name" in reasons(try_pod(developer(cluster), here, bare))
    assert reasons(knative.request("POST", here.pods(), bare)) & {
        "placement/node-name",
        "injection-present.morphisms.dev",
    }
    assert cluster.admin.items(here.pods()) == []


# Tokens.


def test_c34_token_for_the_verifier(cluster: ControlPlane, here: Namespace) -> None:
    """The role `edit` may ask for tokens that are bound to anybody's pod; those for the verifier are a kubelet's."""
    uid = developer(cluster).create(here.pods(), make_pod("victim", annotations=SECRET, **UNSCHEDULABLE))["metadata"][
        "uid"
    ]
    path = here.path("serviceaccounts", "default/token")
    bound = {"apiVersion": "v1", "kind": "Pod", "name": "victim", "uid": uid}

    def request(client: Client, *audiences: str) -> Answer:
        spec = {"audiences": list(audiences), "boundObjectRef": bound, "expirationSeconds": 600}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return client.request("POST", path, body)

    cluster.admin.create(here.pods("victim/binding"), binding("victim", "snp-0"))
    for client in (developer(cluster), mallory(cluster)):
        for audiences in (["morphisms-verifier"], ["shop", "morphisms-verifier"]):
            assert reasons(request(client, *audiences)) == {"verifier-token.morphisms.dev"}
        allowed(request(client, "shop"))
    assert request(cluster.node("snp-1"), "morphisms-verifier").status == 403
    until(lambda: request(cluster.node("snp-0"), "morphisms-verifier").status == 201)


def test_c34_token_for_the_verifier_as_a_volume(cluster: ControlPlane, here: Namespace) -> None:
    def with_token(audience: str) -> Object:
        source = {"serviceAccountToken": {"audience": audience, "path": "token"}}
        return make_pod(volumes=[{"name": "mine", "projected": {"sources": [source]}}])

    assert reasons(try_pod(developer(cluster), here, with_token("morphisms-verifier"))) == {"secrets/volumes"}
    allowed(try_pod(developer(cluster), here, with_token("shop")))
