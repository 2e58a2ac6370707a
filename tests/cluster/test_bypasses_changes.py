"""Attacks on a pod that was admitted: everything that can be changed about it, through every door."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cluster.attacks import (
    GATED,
    IMAGE,
    KNATIVE_LABELS,
    OTHER_IMAGE,
    SECRET,
    allowed,
    developer,
    is_confidential,
    make_pod,
    mallory,
    reasons,
    try_patch,
    try_pod,
)
from tests.cluster.client import APPLY_PATCH, STRATEGIC_PATCH, Answer, Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.namespace import Namespace
from tests.support.until import until

pytestmark = pytest.mark.usefixtures("morphisms")
_NOTE = {"example.org/note": "x"}
_INITDATA = "io.katacontainers.config.hypervisor.cc_init_data"


@pytest.fixture
def here(namespace: Callable[..., Namespace]) -> Namespace:
    return namespace("enforce")


@pytest.fixture
def pod(cluster: ControlPlane, here: Namespace) -> str:
    """The path of a confidential pod that no node has yet, so that all of it may still be changed."""
    developer(cluster).create(here.pods(), make_pod("victim", annotations=SECRET, **GATED))
    return here.pods("victim")


def test_c05_image_that_is_replaced(cluster: ControlPlane, pod: str) -> None:
    for group, name in (("containers", "app"), ("initContainers", "morphisms-init")):
        change = {"spec": {group: [{"name": name, "image": OTHER_IMAGE}]}}
        assert reasons(try_patch(developer(cluster), pod, change, STRATEGIC_PATCH)) == {"images/replaced"}
    same = {"spec": {"containers": [{"name": "app", "image": IMAGE}], "activeDeadlineSeconds": 3600}}
    allowed(try_patch(developer(cluster), pod, same, STRATEGIC_PATCH))


@pytest.mark.parametrize(
    ("annotations", "rules"),
    [
        ({"morphisms.dev/status": "{}"}, {"isolation/annotation-change"}),
        ({"morphisms.dev/status": None}, {"isolation/annotation-change"}),
        ({"morphisms.dev/profile": "peer-pod"}, {"isolation/annotation-change", "placement/profile"}),
        ({_INITDATA: ""}, {"isolation/annotation-change", "isolation/initdata"}),
    ],
    ids=["status", "no status", "profile", "initdata"],
)
def test_c08_annotations_that_change_later(
    cluster: ControlPlane, pod: str, annotations: Object, rules: set[str]
) -> None:
    change = {"metadata": {"annotations": annotations}}
    assert reasons(try_patch(developer(cluster), pod, change)) == rules
    # A write to the status can carry annotations as well.
    assert reasons(try_patch(mallory(cluster), f"{pod}/status", change)) == rules
    allowed(try_patch(developer(cluster), pod, {"metadata": {"annotations": _NOTE}}))


def test_c08_secret_that_is_named_or_given_up_later(cluster: ControlPlane, pod: str) -> None:
    for value in (None, "secret/other#key"):
        change = {"metadata": {"annotations": {"morphisms.dev/secret-db": value}}}
        assert "isolation/annotation-change" in reasons(try_patch(developer(cluster), pod, change))
    for freely in ({"finalizers": ["example.org/stay"]}, {"labels": {"team": "shop"}}):
        allowed(try_patch(developer(cluster), pod, {"metadata": freely}))


def test_c08_labels_that_say_whose_it_is(cluster: ControlPlane, pod: str) -> None:
    change = {"metadata": {"labels": KNATIVE_LABELS}}
    # One of both answers first.
    ours = {"isolation/knative-labels"}, {"knative-labels.morphisms.dev"}
    assert reasons(try_patch(developer(cluster), pod, change)) in ours
    assert reasons(try_patch(mallory(cluster), f"{pod}/status", change)) in ours
    allowed(try_patch(developer(cluster), pod, {"metadata": {"labels": _NOTE}}))


def test_c08_changes_by_server_side_apply(cluster: ControlPlane, here: Namespace) -> None:
    """Who applied a pod owns its fields, and may give them up: what was injected from them stays required."""
    path, manifest = here.pods("applied"), make_pod("applied", annotations=SECRET, **GATED)

    def apply(change: Object) -> Answer:
        query = {"fieldManager": "dev", "force": "true"}
        return developer(cluster).request("PATCH", path, change, content_type=APPLY_PATCH, query=query)

    assert is_confidential(allowed(apply(manifest)))
    assert "isolation/annotation-change" in reasons(apply(make_pod("applied", **GATED)))
    evil: Object = {"initContainers": [{"name": "morphisms-init", "image": OTHER_IMAGE}]}
    assert reasons(apply(make_pod("applied", annotations=SECRET, **GATED, **evil))) == {"images/replaced"}
    assert is_confidential(allowed(apply(manifest))), "the unchanged manifest"


def test_c09_ephemeral_container(
    cluster: ControlPlane, here: Namespace, pod: str, namespace: Callable[..., Namespace]
) -> None:
    debug = {"spec": {"ephemeralContainers": [{"name": "debug", "image": IMAGE, "targetContainerName": "app"}]}}
    subresource = f"{pod}/ephemeralcontainers"
    rules = reasons(try_patch(mallory(cluster), subresource, debug, STRATEGIC_PATCH))
    assert rules == {"isolation/ephemeral-containers"}
    mount = {"volumeMounts": [{"name": "morphisms-secrets", "mountPath": "/stolen"}]}
    thief = {"spec": {"ephemeralContainers": [{"name": "debug", "image": IMAGE, **mount}]}}
    rules = reasons(try_patch(mallory(cluster), subresource, thief, STRATEGIC_PATCH))
    assert rules == {"isolation/ephemeral-containers", "isolation/foreign-mounts"}
    elsewhere = namespace()
    developer(cluster).create(elsewhere.pods(), make_pod("plain", **GATED))
    path = f"{elsewhere.pods('plain')}/ephemeralcontainers"
    allowed(try_patch(mallory(cluster), path, debug, STRATEGIC_PATCH))


def test_c09_ephemeral_container_that_takes_secrets_where_it_is_only_recorded(
    cluster: ControlPlane, namespace: Callable[..., Namespace]
) -> None:
    here = namespace("inject")
    developer(cluster).create(here.pods(), make_pod("asks", annotations=SECRET, **GATED))
    path = f"{here.pods('asks')}/ephemeralcontainers"
    debug: Object = {"name": "debug", "image": IMAGE}
    recorded = try_patch(mallory(cluster), path, {"spec": {"ephemeralContainers": [debug]}}, STRATEGIC_PATCH)
    allowed(recorded)
    assert any("isolation/ephemeral-containers" in warning for warning in recorded.warnings)
    thief = {**debug, "volumeMounts": [{"name": "morphisms-secrets", "mountPath": "/stolen"}]}
    refused = try_patch(mallory(cluster), path, {"spec": {"ephemeralContainers": [thief]}}, STRATEGIC_PATCH)
    assert "isolation/foreign-mounts" in reasons(refused)


def test_c10_resize_changes_resources_and_nothing_else(cluster: ControlPlane, pod: str) -> None:
    labels = {"metadata": {"labels": KNATIVE_LABELS, "annotations": {"morphisms.dev/status": "{}"}}}
    image = {"spec": {"containers": [{"name": "app", "image": OTHER_IMAGE, "resources": {"limits": {"cpu": "1"}}}]}}
    before = cluster.admin.get(pod)
    for change in (labels, image):
        answer = mallory(cluster).request("PATCH", f"{pod}/resize", change, content_type=STRATEGIC_PATCH)
        assert answer.status in (200, 422)
    after = cluster.admin.get(pod)
    assert after["metadata"].get("labels") == before["metadata"].get("labels")
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"]
    assert [each["image"] for each in after["spec"]["containers"]] == [IMAGE]


def test_c37_annotation_for_the_hypervisor(cluster: ControlPlane, here: Namespace, pod: str) -> None:
    """Kata reads them when the sandbox is made: set after admission they would count as well."""
    kernel = {"io.katacontainers.config.hypervisor.kernel_params": "agent.debug_console"}
    at_once = try_pod(developer(cluster), here, make_pod(annotations=kernel))
    assert reasons(at_once) == {"isolation/hypervisor-annotations"}
    later = {"metadata": {"annotations": kernel}}
    assert reasons(try_patch(developer(cluster), pod, later)) == {"isolation/hypervisor-annotations"}
    assert reasons(try_patch(mallory(cluster), f"{pod}/status", later)) == {"isolation/hypervisor-annotations"}
    allowed(try_pod(developer(cluster), here, make_pod(annotations=_NOTE)))


@pytest.mark.parametrize("key", ["cdi.k8s.io/gpu", "devices.nri.io/container.app", "io.kubernetes.cri-o.Devices"])
def test_c37_annotation_for_the_container_runtime(cluster: ControlPlane, here: Namespace, pod: str, key: str) -> None:
    """It would hand the pod a device of its host."""
    device = {key: "vendor.example/device=all"}
    at_once = try_pod(developer(cluster), here, make_pod(annotations=device))
    assert reasons(at_once) == {"isolation/hypervisor-annotations"}
    later = {"metadata": {"annotations": device}}
    assert reasons(try_patch(developer(cluster), pod, later)) == {"isolation/hypervisor-annotations"}


def test_what_was_wrong_before_hinders_nobody(cluster: ControlPlane, namespace: Callable[..., Namespace]) -> None:
    """A pod from before the namespace was enforced can be labelled, given finalizers and deleted; not made worse."""
    here = namespace()
    old = make_pod("old", container={"image": "dev.local/app:latest", "securityContext": {"privileged": True}}, **GATED)
    developer(cluster).create(here.pods(), old)
    here.label("enforce")
    path = here.pods("old")
    worse = {"spec": {"containers": [{"name": "app", "image": "dev.local/worse:latest"}]}}

    def refused() -> bool:
        return try_patch(developer(cluster), path, worse, STRATEGIC_PATCH).status == 403

    until(refused)
    assert reasons(try_patch(developer(cluster), path, worse, STRATEGIC_PATCH)) == {"images/replaced"}
    allowed(try_patch(developer(cluster), path, {"metadata": {"finalizers": ["example.org/stay"], "labels": _NOTE}}))
    allowed(developer(cluster).request("DELETE", path))
