"""Attacks on where a pod runs. Numbers are those of docs/bypasses.md; each harmless twin is let through."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.cluster.attacks import (
    DRY,
    GATED,
    KNATIVE_LABELS,
    UNSCHEDULABLE,
    allowed,
    binding,
    developer,
    garbage_collector,
    is_confidential,
    make_pod,
    mallory,
    reasons,
    try_patch,
    try_pod,
    until_refused,
)
from tests.cluster.client import JSON_PATCH, Answer, Client, Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.installation import Installation
from tests.cluster.namespace import Namespace
from tests.cluster.nodes import NODES, RUNTIME_CLASSES, SNP_LABEL, add_node
from tests.support.until import until

pytestmark = pytest.mark.usefixtures("morphisms")
Make = Callable[..., Namespace]
_TRUSTED_LABEL = "morphisms.node-restriction.kubernetes.io/snp"


@pytest.fixture
def enforced(namespace: Make) -> Namespace:
    return namespace("enforce")


def _pending(cluster: ControlPlane, here: Namespace) -> str:
    """A pod that waits for somebody to bind it."""
    cluster.admin.create(here.pods(), make_pod("pending", **UNSCHEDULABLE))
    return "pending"


# Who chooses the node.


def test_c01_preset_node_name(cluster: ControlPlane, enforced: Namespace) -> None:
    for node in ("plain-0", "snp-0", "there-is-none"):
        assert reasons(try_pod(developer(cluster), enforced, make_pod(nodeName=node))) == {"placement/node-name"}
    assert is_confidential(allowed(try_pod(developer(cluster), enforced, make_pod())))


def test_c01_preset_node_name_of_a_pod_that_asks_without_a_mode(cluster: ControlPlane, namespace: Make) -> None:
    here, asks = namespace(), {"morphisms.dev/inject": "true"}
    asking = make_pod(nodeName="plain-0", annotations=asks)
    assert reasons(try_pod(developer(cluster), here, asking)) == {"placement/node-name"}
    assert is_confidential(allowed(try_pod(developer(cluster), here, make_pod(annotations=asks))))
    assert not is_confidential(allowed(try_pod(developer(cluster), here, make_pod(nodeName="plain-0"))))


def test_c01_preset_node_name_by_way_of_a_deployment(cluster: ControlPlane, enforced: Namespace) -> None:
    """The ReplicaSet controller is refused as anybody is, and the reason stands in an event."""
    app = {"app": "preset"}

    def deploy(name: str, **spec: object) -> None:
        template = {"metadata": {"labels": app}, "spec": {**make_pod()["spec"], **spec}}
        developer(cluster).create(
            enforced.deployments(),
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name},
                "spec": {"selector": {"matchLabels": app}, "template": template},
            },
        )

    deploy("preset", nodeName="plain-0")
    event = cluster.admin.until(enforced.path("events"), _failed)
    assert "placement/node-name" in event["message"]
    assert cluster.admin.items(enforced.pods()) == []
    deploy("free")
    assert is_confidential(cluster.admin.until(enforced.pods(), lambda pods: pods[0] if pods else None))


def _failed(events: list[Object]) -> Object | None:
    return next((event for event in events if event["reason"] == "FailedCreate"), None)


def test_c02_binding_by_hand(cluster: ControlPlane, enforced: Namespace) -> None:
    name = _pending(cluster, enforced)
    for node in ("plain-0", "there-is-none"):
        answer = _bind(mallory(cluster), enforced, name, node)
        assert reasons(answer) == {"placement/binding-target"}
    allowed(_bind(mallory(cluster), enforced, name, "snp-0"))


@pytest.mark.parametrize(
    "metadata",
    [
        {"annotations": {"morphisms.dev/status": "{}"}},
        {"annotations": {"morphisms.dev/secret-db": "secret/other/db#password"}},
        {"annotations": {"io.katacontainers.config.hypervisor.kernel_params": "agent.debug_console"}},
    ],
    ids=["status", "secret", "kata"],
)
def test_c02_binding_that_overwrites_annotations(cluster: ControlPlane, enforced: Namespace, metadata: Object) -> None:
    name = _pending(cluster, enforced)
    for path in (enforced.pods(f"{name}/binding"), enforced.path("bindings")):
        answer = mallory(cluster).request("POST", path, binding(name, "snp-0", **metadata), query=DRY)
        assert reasons(answer) == {"isolation/binding-metadata"}
    allowed(_bind(mallory(cluster), enforced, name, "snp-0", annotations={"example.org/note": "x"}))


@pytest.mark.parametrize("mode", ["enforce", None])
def test_c02_binding_that_says_whose_pod_it_is(cluster: ControlPlane, namespace: Make, mode: str | None) -> None:
    here = namespace(mode)
    name = _pending(cluster, here)
    for path in (here.pods(f"{name}/binding"), here.path("bindings")):
        answer = mallory(cluster).request("POST", path, binding(name, "snp-0", labels=KNATIVE_LABELS), query=DRY)
        assert reasons(answer) == {"knative-labels.morphisms.dev"}
    allowed(_bind(mallory(cluster), here, name, "snp-0", labels={"topology.kubernetes.io/zone": "a"}))


def test_c03_legacy_binding(cluster: ControlPlane, enforced: Namespace) -> None:
    name = _pending(cluster, enforced)

    def bind(node: str) -> Answer:
        return mallory(cluster).request("POST", enforced.path("bindings"), binding(name, node), query=DRY)

    assert reasons(bind("plain-0")) == {"placement/binding-target"}
    allowed(bind("snp-0"))


def test_c03_binding_of_a_pod_that_asks_in_a_milder_mode(cluster: ControlPlane, namespace: Make) -> None:
    """There the pod itself decides, looked up by the name in the Binding: through both doors."""
    here = namespace("inject")
    for name, inject in (("asks", "true"), ("opted-out", "false")):
        cluster.admin.create(here.pods(), make_pod(name, annotations={"morphisms.dev/inject": inject}, **UNSCHEDULABLE))
    cases = (("asks", "plain-0", True), ("asks", "snp-0", False), ("opted-out", "plain-0", False))
    for path in ("pods/{}/binding", "bindings"):
        for name, node, refused in cases:
            target = here.path(path.format(name))
            answer = mallory(cluster).request("POST", target, binding(name, node), query=DRY)
            assert reasons(answer) == {"placement/binding-target"} if refused else answer.status == 201


def test_c04_scheduler_of_his_own(cluster: ControlPlane, enforced: Namespace) -> None:
    mine = make_pod(schedulerName="mine")
    assert reasons(try_pod(developer(cluster), enforced, mine)) == {"placement/scheduler"}
    allowed(try_pod(developer(cluster), enforced, make_pod(schedulerName="default-scheduler")))


# What the scheduler is told.


def test_c06_tolerations_and_selectors_that_are_added_later(cluster: ControlPlane, enforced: Namespace) -> None:
    tainted = {"key": "morphisms.node-restriction.kubernetes.io/kms", "operator": "Exists"}
    for toleration in (tainted, {"operator": "Exists"}):
        answer = try_pod(developer(cluster), enforced, make_pod(tolerations=[toleration]))
        assert reasons(answer) == {"placement/reserved-nodes"}
    path = _created(cluster, enforced, make_pod(**GATED))
    for toleration in (tainted, {"operator": "Exists"}):
        assert reasons(_add(cluster, path, "/spec/tolerations/-", toleration)) == {"placement/reserved-nodes"}
    allowed(_add(cluster, path, "/spec/tolerations/-", {"key": "example.org/gpu", "operator": "Exists"}))
    # A gated pod's selector may be narrowed, and what it had stays.
    narrowed = try_patch(developer(cluster), path, {"spec": {"nodeSelector": {"kubernetes.io/hostname": "plain-0"}}})
    assert allowed(narrowed)["spec"]["nodeSelector"][SNP_LABEL] == "true"
    assert is_confidential(narrowed.body)
    widened = try_patch(developer(cluster), path, [{"op": "remove", "path": "/spec/affinity"}], JSON_PATCH)
    assert widened.status == 422
    assert "nodeSelectorTerms" in widened.message


def test_c07_affinity_whose_terms_are_alternatives(cluster: ControlPlane, enforced: Namespace) -> None:
    terms: list[Object] = [
        {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "Exists"}]},
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["plain-0"]}]},
        {"matchExpressions": [{"key": SNP_LABEL, "operator": "Exists"}]},
    ]
    answer = try_pod(developer(cluster), enforced, make_pod(affinity=_affinity(terms)))
    assert is_confidential(allowed(answer)), "each term is confined"
    kept = answer.body["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert kept["nodeSelectorTerms"][1]["matchFields"] == terms[1]["matchFields"]
    # A preference or the affinity to other pods only chooses among these nodes, and stays as it was.
    prefer = {
        "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": terms[0]}]}
    }
    assert is_confidential(allowed(try_pod(developer(cluster), enforced, make_pod(affinity=prefer))))


def _affinity(terms: list[Object]) -> Object:
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


# RuntimeClasses.


@pytest.fixture
def classes(cluster: ControlPlane) -> Iterator[Callable[..., str]]:
    """Makes RuntimeClasses, and takes them away again."""
    made: list[str] = []

    def make(name: str, handler: str, **more: object) -> str:
        kind = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}}
        cluster.admin.create(RUNTIME_CLASSES, {**kind, "handler": handler, **more})
        made.append(name)
        return name

    yield make
    for name in set(made):
        cluster.admin.request("DELETE", f"{RUNTIME_CLASSES}/{name}")


@pytest.fixture
def remote(enforced: Namespace, morphisms: Installation) -> Iterator[Namespace]:
    """One whose pods may use the profile `peer-pod`, because the configuration lists it."""
    before = morphisms.configuration()
    morphisms.configure({**before, "namespaces": {enforced.name: {"profiles": ["peer-pod"]}}})
    yield enforced
    morphisms.configure(before)


def test_c11_runtime_class_made_anew_with_another_handler(
    cluster: ControlPlane, remote: Namespace, classes: Callable[..., str]
) -> None:
    """By somebody who may break glass: the guard does not hold him, the handler that is live at admission does."""
    path = f"{RUNTIME_CLASSES}/{classes('kata-remote', 'kata-remote')}"
    pod = make_pod(annotations={"morphisms.dev/profile": "peer-pod"})
    until(lambda: try_pod(developer(cluster), remote, pod).status == 201)
    assert reasons(mallory(cluster).request("DELETE", path, query=DRY)) == {"runtime-class-guard.morphisms.dev"}
    immutable = cluster.admin.request("PATCH", path, {"handler": "runc"}, content_type="application/merge-patch+json")
    assert immutable.status == 422, "the API server's own"
    cluster.admin.delete(path)
    classes("kata-remote", "runc")
    until_refused(developer(cluster), remote, pod, {"placement/runtime-handler"})


def test_c14_profile_that_the_namespace_is_not_listed_for(
    cluster: ControlPlane, enforced: Namespace, classes: Callable[..., str]
) -> None:
    """`peer-pod` needs no node: its class is that of peer pods without confidential VMs too."""
    classes("kata-remote", "kata-remote")
    pod = make_pod(
        annotations={"morphisms.dev/profile": "peer-pod"}, nodeSelector={"kubernetes.io/hostname": "plain-0"}
    )
    assert reasons(try_pod(developer(cluster), enforced, pod)) == {"placement/profile"}
    default = make_pod(annotations={"morphisms.dev/profile": "kata-snp"})
    assert is_confidential(allowed(try_pod(developer(cluster), enforced, default)))


def test_c11_runtime_class_swapped_without_the_verb(cluster: ControlPlane) -> None:
    path = f"{RUNTIME_CLASSES}/kata-qemu-snp"
    guard = {"runtime-class-guard.morphisms.dev"}
    assert reasons(mallory(cluster).request("DELETE", path, query=DRY)) == guard
    assert reasons(mallory(cluster).request("DELETE", RUNTIME_CLASSES, query=DRY)) == guard
    assert reasons(garbage_collector(cluster).request("DELETE", path, query=DRY)) == guard
    runc = {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": "kata-remote"},
        "handler": "runc",
    }
    assert reasons(mallory(cluster).request("POST", RUNTIME_CLASSES, runc, query=DRY)) == guard
    allowed(mallory(cluster).request("POST", RUNTIME_CLASSES, {**runc, "handler": "kata-remote"}, query=DRY))


def test_c12_runtime_class_whose_scheduling_is_taken_away(cluster: ControlPlane, enforced: Namespace) -> None:
    path = f"{RUNTIME_CLASSES}/kata-qemu-snp"
    for change in ({"scheduling": None}, {"scheduling": {"nodeSelector": {SNP_LABEL: None}}}):
        assert reasons(try_patch(mallory(cluster), path, change)) == {"runtime-class-guard.morphisms.dev"}
    for change in ({"metadata": {"annotations": {"example.org/note": "x"}}}, {"overhead": None}):
        allowed(try_patch(mallory(cluster), path, change))
    # Where it was done all the same, each pod's own affinity still confines it: is_confidential looks at nothing else.
    assert is_confidential(allowed(try_pod(developer(cluster), enforced, make_pod())))


def test_c13_overhead_and_another_class(
    cluster: ControlPlane, enforced: Namespace, classes: Callable[..., str]
) -> None:
    gvisor = classes("gvisor", "runsc", overhead={"podFixed": {"cpu": "1m"}})
    another = make_pod(runtimeClassName=gvisor)
    until_refused(developer(cluster), enforced, another, {"placement/runtime-class"})
    less = try_pod(developer(cluster), enforced, make_pod(runtimeClassName="kata-qemu-snp", overhead={"cpu": "1m"}))
    assert less.status == 403
    assert "Overhead doesn't match" in less.message
    allowed(try_pod(developer(cluster), enforced, make_pod(runtimeClassName="kata-qemu-snp")))


@pytest.mark.parametrize("name", ["kata-qemu-coco-dev", "kata-qemu-snp-debug", "kata-qemu", "xkata-qemu-snp"])
def test_c14_look_alike_class(
    cluster: ControlPlane, enforced: Namespace, classes: Callable[..., str], name: str
) -> None:
    """Named like one of ours, and even with a handler of ours."""
    pod = make_pod(runtimeClassName=classes(name, "kata-qemu-snp"))
    until_refused(developer(cluster), enforced, pod, {"placement/runtime-class"})


# What nodes say of themselves.


@pytest.fixture
def spoofing(cluster: ControlPlane) -> Iterator[str]:
    """A plain node whose kubelet is not to be trusted."""
    add_node(cluster.admin, "spoofing", unschedulable=True)
    yield "spoofing"
    cluster.admin.delete(f"{NODES}/spoofing")


def test_c19_node_label_that_a_kubelet_sets(
    cluster: ControlPlane, morphisms: Installation, namespace: Make, spoofing: str
) -> None:
    """The vendor's label is the kubelet's own to write. A trusted label beside it is not, nor is a taint."""
    believing, wary = namespace("enforce"), namespace("enforce")
    before = morphisms.configuration()
    morphisms.configure({**before, **_with_a_trusted_label(wary.name)})
    try:
        kubelet, path = cluster.node(spoofing), f"{NODES}/{spoofing}"
        bound = {here.name: _pending(cluster, here) for here in (believing, wary)}

        def bind(here: Namespace) -> Answer:
            return _bind(mallory(cluster), here, bound[here.name], spoofing)

        assert reasons(bind(believing)) == {"placement/binding-target"}
        kubelet.patch(path, {"metadata": {"labels": {SNP_LABEL: "true"}}})
        until(lambda: bind(believing).status == 201)
        assert reasons(bind(wary)) == {"placement/binding-target"}
        for label in (_TRUSTED_LABEL, "node-restriction.kubernetes.io/snp"):
            spoofed = try_patch(kubelet, path, {"metadata": {"labels": {label: "true"}}})
            assert (spoofed.status, "is not allowed to modify labels" in spoofed.message) == (403, True)
        taint = try_patch(kubelet, path, {"spec": {"taints": [{"key": "confidential", "effect": "NoSchedule"}]}})
        assert (taint.status, "is not allowed to modify taints" in taint.message) == (403, True)
        fresh = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "fresh", "labels": {_TRUSTED_LABEL: "true"}}}
        registered = cluster.node("fresh").request("POST", NODES, fresh, query=DRY)
        assert (registered.status, "is not allowed to set" in registered.message) == (403, True), registered.message
        fresh["metadata"] = {"name": "fresh", "labels": {SNP_LABEL: "true"}}
        allowed(cluster.node("fresh").request("POST", NODES, fresh, query=DRY))
        other = try_patch(kubelet, f"{NODES}/plain-0", {"metadata": {"labels": {SNP_LABEL: "true"}}})
        assert (other.status, "is not allowed to modify node" in other.message) == (403, True)
        cluster.admin.patch(path, {"metadata": {"labels": {_TRUSTED_LABEL: "true"}}})
        until(lambda: bind(wary).status == 201)
    finally:
        morphisms.configure(before)


def _with_a_trusted_label(namespace: str) -> Object:
    profile = {
        "name": "trusted",
        "isolation": "pod-vm",
        "runtimeClasses": ["kata-qemu-snp"],
        "handlers": ["kata-qemu-snp"],
        "nodeSelector": [{"key": SNP_LABEL, "operator": "In", "values": ["true"]}],
        "trustedLabel": _TRUSTED_LABEL,
        "evidence": [{"source": "coco-aa", "address": "http://127.0.0.1:8006"}],
    }
    return {"profiles": [profile], "namespaces": {namespace: {"profile": "trusted"}}}


def test_c23_daemon_set_that_is_meant_for_every_node(cluster: ControlPlane, enforced: Namespace) -> None:
    """Its controller gives each pod its node by a term of its own: those for plain nodes stay pending."""
    app = {"app": "everywhere"}
    template = {"metadata": {"labels": app}, "spec": make_pod()["spec"]}
    developer(cluster).create(
        enforced.path("daemonsets", group="apps/v1"),
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "everywhere"},
            "spec": {"selector": {"matchLabels": app}, "template": template},
        },
    )
    nodes = {"snp-0", "snp-1"}
    pods = cluster.admin.until(enforced.pods(), lambda pods: pods if nodes <= _nodes(pods) else None)
    assert _nodes(pods) <= {*nodes, None}
    assert all(map(is_confidential, pods))


def _nodes(pods: list[Object]) -> set[str | None]:
    return {pod["spec"].get("nodeName") for pod in pods}


def _bind(client: Client, here: Namespace, pod: str, node: str, **metadata: object) -> Answer:
    return client.request("POST", here.pods(f"{pod}/binding"), binding(pod, node, **metadata), query=DRY)


def _created(cluster: ControlPlane, here: Namespace, pod: Object) -> str:
    developer(cluster).create(here.pods(), pod)
    return here.pods(pod["metadata"]["name"])


def _add(cluster: ControlPlane, path: str, member: str, value: object) -> Answer:
    return try_patch(developer(cluster), path, [{"op": "add", "path": member, "value": value}], JSON_PATCH)
