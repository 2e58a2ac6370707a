"""Any ordinary Service: rendered, made by Knative, injected, run. Its guest admits it in every order, and no change."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.knative.pod import pod_of
from cli.proof.guest_requests import Host, Request, guest_requests
from cli.rendering.files import Inputs, read_images, read_inputs
from cli.rendering.rendering import Rendering, configuration_of, render
from cli.support.admission import Admission
from measured.measured_document import differences, document_of_annotation
from measured.pod import INITDATA_ANNOTATION
from tests.cli import rendering
from tests.support.policy_engine import Engine
from tests.webhook.properties.measured_services import Service, services
from webhook.request import User

CREATOR: Final = User("system:serviceaccount:kube-system:replicaset-controller", ("system:authenticated",))
FOREIGN: Final = f"registry.test/foreign@sha256:{'f' * 64}"
TOKEN: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
Pod = dict[str, Any]
Images = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Change:
    """A change of a pod, and the parts of the field that admission has to name."""

    field: tuple[str, ...]
    apply: Callable[[Pod], Any]


@pytest.fixture(scope="module")
def guest() -> Iterator[Engine]:
    with Engine("package agent_policy\n") as engine:
        yield engine


@cache
def inputs() -> Inputs:
    captured, trusted = yaml.safe_dump(rendering.cluster()).encode(), yaml.safe_dump(rendering.trust()).encode()
    return read_inputs("cluster.yaml", captured, "trust.yaml", trusted)


def rendered(service: Service, images: Images) -> tuple[Rendering, Pod]:
    """The rendering, and the pod of its Service once the API server, Knative and the webhook have made it."""
    result = render(copy.deepcopy(service), "shop", inputs(), read_images("images", json.dumps(images).encode()))
    admission = Admission(configuration_of(inputs()))
    pod, name = pod_of(admission.copied_down(result.source.result, "shop"), "shop", inputs().settings)
    _mount_token(pod["spec"])
    admitted = admission.pod(pod, "shop", CREATOR)
    assert admitted.denial is None, admitted.denial
    made = admitted.object
    made["metadata"] |= {"name": f"{pod['metadata']['generateName']}8487cb4498-"[:58] + "nlr9j", "uid": "u-1"}
    assert name.matches(made["metadata"]["name"])
    return result, made


def _mount_token(spec: dict[str, Any]) -> None:
    """As the API server mounts the service account's token, before webhooks are asked."""
    if spec.get("automountServiceAccountToken") is False:
        return
    spec.setdefault("volumes", []).append({"name": "kube-api-access-x7k2p", "projected": {"sources": []}})
    mount = {"name": "kube-api-access-x7k2p", "mountPath": TOKEN}
    for container in spec["containers"]:
        container.setdefault("volumeMounts", []).append({**mount, "readOnly": True})


def refusal(guest: Engine, requests: list[Request]) -> str | None:
    """The first request that the guest refuses; None where it carries all out."""
    return next((ask["kind"] for ask in requests if not guest.ask(ask["kind"], ask["request"])), None)


def shuffled(ask: Request, order: random.Random) -> Request:
    """The same request with everything in another order that has none: the kubelet's maps, containerd's sets."""
    if ask["kind"] != "CreateContainerRequest":
        return ask
    changed = copy.deepcopy(ask)
    oci = changed["request"]["OCI"]
    process, linux = oci["Process"], oci["Linux"]
    lists = [oci["Mounts"], process["Env"], process["User"]["AdditionalGids"], linux["Namespaces"]]
    lists += [linux["MaskedPaths"], linux["ReadonlyPaths"], changed["request"]["storages"]]
    lists += [*process["Capabilities"].values(), *(mount["options"] for mount in oci["Mounts"])]
    for one in lists:
        order.shuffle(one)
    names = list(oci["Annotations"])
    order.shuffle(names)
    oci["Annotations"] = {name: oci["Annotations"][name] for name in names}
    return changed


@settings(max_examples=8)
@given(services(), st.integers(0, 2**32))
def test_a_rendered_service_runs_in_every_order_that_an_honest_host_may_choose(
    guest: Engine, made: tuple[Service, Images], seed: int
) -> None:
    result, pod = rendered(*made)
    document = document_of_annotation(pod["metadata"]["annotations"][INITDATA_ANNOTATION])
    assert document is not None
    assert document.initdata.host_data.hex() == result.host_data
    assert hashlib.sha256(str(result.record["document"]).encode()).hexdigest() == result.host_data
    assert differences(pod, document) == []
    for number in range(2):
        order = random.Random(seed + number)
        host = Host(order, ip=order.choice(["10.0.0.9", "fd00::9"]), kata_deploy=order.random() < 0.5)
        host.metadata = order.random() < 0.5
        guest.load(result.policy)
        requests = guest_requests(pod, made[1], host)
        assert refusal(guest, [shuffled(ask, order) for ask in requests]) is None
    unseen = copy.deepcopy(pod)
    for change in UNSEEN:
        change(unseen)
    assert differences(unseen, document) == []


@settings(max_examples=10)
@given(services(), st.data())
def test_each_change_of_what_reaches_the_guest_is_refused_early_with_its_field_and_late_for_real(
    guest: Engine, made: tuple[Service, Images], data: st.DataObject
) -> None:
    result, pod = rendered(*made)
    document = document_of_annotation(pod["metadata"]["annotations"][INITDATA_ANNOTATION])
    assert document is not None
    images = {**made[1], FOREIGN: {"Entrypoint": ["/foreign"]}}
    possible = list(changes(pod))
    for change in data.draw(st.lists(st.sampled_from(possible), min_size=6, max_size=6, unique_by=id)):
        changed = copy.deepcopy(pod)
        change.apply(changed)
        early = [str(difference) for difference in differences(changed, document)]
        assert any(all(part in line for part in change.field) for line in early), (change.field, early)
        guest.load(result.policy)
        assert refusal(guest, guest_requests(changed, images, Host(random.Random(1)))), change.field


UNSEEN: Final[list[Callable[[Pod], Any]]] = [
    lambda pod: pod["spec"].update(affinity={}, nodeName="node-1", priority=7, schedulerName="other"),
    lambda pod: pod["metadata"]["labels"].update(more="x"),
    lambda pod: pod["metadata"]["annotations"].update({"example.com/more": "x"}),
    lambda pod: pod["spec"]["volumes"].reverse(),
    lambda pod: pod["spec"]["containers"].reverse(),
    lambda pod: [one.get("volumeMounts", []).reverse() for one in pod["spec"]["containers"]],
    lambda pod: [one.update(resources={"limits": {"cpu": "3"}}) for one in pod["spec"]["containers"]],
    lambda pod: [one.update(livenessProbe={"tcpSocket": {"port": 1}}) for one in pod["spec"]["containers"]],
    lambda pod: [one.update(imagePullPolicy="Never", ports=[]) for one in pod["spec"]["containers"]],
]


def changes(pod: Pod) -> Iterator[Change]:
    """Every change of one field of this pod that reaches an OCI spec or a storage."""
    for name, value in (("namespace", "evil"), ("name", f"evil-{pod['metadata']['name']}"[:63])):
        yield Change((name,), _update("metadata", **{name: value}))
    yield Change(("hostname",), _update("spec", hostname="evil"))
    yield Change(("fsGroup",), _security(fsGroup=70_001))
    yield Change(("user",), _security(supplementalGroups=[70_002]))
    yield Change(("annotations",), _annotate("io.katacontainers.config.hypervisor.default_vcpus", "1"))
    for volume in pod["spec"]["volumes"]:
        if "emptyDir" in volume and _is_mounted(pod, volume["name"]):
            yield Change(("mounts",), _exchange_medium(volume["name"]))
    for group in ("initContainers", "containers"):
        for index, container in enumerate(pod["spec"][group]):
            for field, change in _container_changes(container, pod):
                yield Change((container["name"], field), _of_container(group, index, change))
    yield Change(("containers",), lambda changed: changed["spec"].update(initContainers=[]))
    evil = {"name": "evil", "image": FOREIGN}
    yield Change(("evil",), lambda changed: changed["spec"]["containers"].append(evil))


def _container_changes(container: dict[str, Any], pod: Pod) -> Iterator[tuple[str, Callable[[dict[str, Any]], Any]]]:
    security = container.get("securityContext") or {}
    yield "image", lambda one: one.update(image=FOREIGN)
    yield "args", lambda one: one.update(args=[*(one.get("args") or []), "--evil"])
    yield "args", lambda one: one.update(command=["/evil"])
    yield "cwd", lambda one: one.update(workingDir="/evil")
    yield "env", lambda one: one.setdefault("env", []).append({"name": "EVIL", "value": "x"})
    for index, variable in enumerate(container.get("env") or []):
        if "value" in variable or "valueFrom" not in variable:
            yield variable["name"], _replace("env", index, {"name": variable["name"], "value": "evil"})
        yield variable["name"], _remove("env", index)
    for name in ("runAsUser", "runAsGroup"):
        yield "user", _own_security(**{name: 70_003})
    yield "capabilities", _own_security(capabilities={"add": ["SYS_ADMIN"]})
    off = security.get("allowPrivilegeEscalation") is False
    yield "noNewPrivileges", _own_security(allowPrivilegeEscalation=off)
    yield "readOnly", _own_security(readOnlyRootFilesystem=not security.get("readOnlyRootFilesystem"))
    yield "termination", lambda one: one.update(terminationMessagePath="/evil")
    memory = {volume["name"] for volume in pod["spec"]["volumes"] if "emptyDir" in volume}
    for index, mount in enumerate(container.get("volumeMounts") or []):
        moved = {**mount, "mountPath": f"{mount['mountPath']}/evil"}
        yield mount["mountPath"], _replace("volumeMounts", index, moved)
        # The runtime and the API server mount their own at these two.
        if mount["mountPath"] not in ("/dev/shm", TOKEN):
            yield mount["mountPath"], _remove("volumeMounts", index)
        if mount["name"] in memory:
            flipped = {**mount, "readOnly": not mount.get("readOnly")}
            yield mount["mountPath"], _replace("volumeMounts", index, flipped)
    for volume in pod["spec"]["volumes"]:
        added = {"name": volume["name"], "mountPath": "/evil"}
        yield "/evil", lambda one, added=added: one.setdefault("volumeMounts", []).append(added)


def _update(part: str, **members: Any) -> Callable[[Pod], Any]:
    return lambda pod: pod[part].update(members)


def _security(**members: Any) -> Callable[[Pod], Any]:
    return lambda pod: pod["spec"].update(securityContext={**(pod["spec"].get("securityContext") or {}), **members})


def _own_security(**members: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda one: one.update(securityContext={**(one.get("securityContext") or {}), **members})


def _annotate(key: str, value: str) -> Callable[[Pod], Any]:
    return lambda pod: pod["metadata"]["annotations"].update({key: value})


def _replace(field: str, index: int, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda one: one[field].__setitem__(index, value)


def _remove(field: str, index: int) -> Callable[[dict[str, Any]], Any]:
    return lambda one: one[field].pop(index)


def _of_container(group: str, index: int, change: Callable[[dict[str, Any]], Any]) -> Callable[[Pod], Any]:
    return lambda pod: change(pod["spec"][group][index])


def _is_mounted(pod: Pod, volume: str) -> bool:
    containers = [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]
    return any(mount["name"] == volume for one in containers for mount in one.get("volumeMounts") or [])


def _exchange_medium(name: str) -> Callable[[Pod], Any]:
    def change(pod: Pod) -> None:
        (volume,) = [one for one in pod["spec"]["volumes"] if one["name"] == name]
        volume["emptyDir"] = {} if (volume["emptyDir"] or {}).get("medium") else {"medium": "Memory"}

    return change
