"""Upgraded from the release before, applied again, and removed as the page says: no admission fails meanwhile."""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
import yaml

from tests.cluster.asking import make_pod
from tests.cluster.client import Answer, Client
from tests.cluster.commands import until_unchanged
from tests.cluster.controlplane import ControlPlane, control_plane
from tests.cluster.installation import Installation, running
from tests.cluster.nodes import add_confidential_node
from tests.manifests.rendering import MANIFESTS
from tests.support.until import until

_NAMESPACES = "/api/v1/namespaces"
_ACCOUNT = "system:serviceaccount:morphisms-system:morphisms-webhook"
_PAGE = (MANIFESTS.parent / "docs" / "operations.md").read_text()


@pytest.fixture(scope="module")
def upgraded(_programs: None) -> Iterator[Installation]:
    """A control plane of its own with the release before, two replicas running."""
    with control_plane("lifecycle") as cluster:
        add_confidential_node(cluster.admin, "snp-0")
        with running(Installation(cluster, "previous")) as installation:
            yield installation


class Creating:
    """Creates pods in namespaces of all modes until it is left; `failures` are those that were not admitted."""

    def __init__(self, cluster: ControlPlane) -> None:
        self._admin = admin = cluster.admin
        self._traffic = cluster.traffic
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._places: list[str] = []
        self.created = 0
        self.failures: list[str] = []
        for mode in (None, "audit", "inject", "enforce"):
            name = f"test-{uuid.uuid4().hex[:8]}"
            labels = {"morphisms.dev/mode": mode} if mode is not None else {}
            metadata = {"name": name, "labels": labels}
            admin.create(_NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
            admin.until(f"{_NAMESPACES}/{name}/serviceaccounts", bool)
            self._places.append(f"{_NAMESPACES}/{name}/pods")

    def __enter__(self) -> Creating:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            for path in self._places:
                pod = make_pod({"morphisms.dev/inject": "true"})
                pod["spec"]["containers"][0]["image"] = f"registry.example/app@sha256:{'0' * 64}"
                with self._traffic.passing():
                    answer = self._admin.request("POST", path, pod, query={"dryRun": "All"})
                self.created += 1
                if answer.status != 201:
                    self.failures.append(answer.message)
                self._stop.wait(0.02)  # it leaves the machine to the upgrade


def test_an_upgrade_from_the_release_before_fails_no_admission(upgraded: Installation) -> None:
    admin = upgraded.cluster.admin
    with Creating(upgraded.cluster) as creating:
        upgraded.write_overlay(MANIFESTS / "base")
        admin.kubectl("apply", "--server-side", "--force-conflicts", "-k", upgraded.overlay)
        upgraded.wait_until_answered()
        admin.kubectl("apply", "--server-side", "-k", upgraded.overlay)
        before = creating.created
        until(lambda: creating.created > before + 4)
    print(f"{creating.created} pods created during an upgrade, {len(creating.failures)} not admitted")
    assert not creating.failures, creating.failures[:3]


def test_applying_again_changes_nothing_and_takes_nothing_away(upgraded: Installation) -> None:
    """Neither the CA bundles nor the Secrets nor the number of replicas are the manifests' own."""
    admin = upgraded.cluster.admin
    before = upgraded.registrations()
    assert all(webhook["clientConfig"]["caBundle"] for item in before for webhook in item["webhooks"])
    until_unchanged(admin, "--server-side", "-k", upgraded.overlay)
    admin.kubectl("apply", "--server-side", "-k", upgraded.overlay)
    assert [item["metadata"]["generation"] for item in upgraded.registrations()] == [
        item["metadata"]["generation"] for item in before
    ]
    secret = admin.get(f"{_NAMESPACES}/morphisms-system/secrets/morphisms-webhook-tls")
    assert secret["data"].keys() >= {"tls.crt", "tls.key"}


def test_what_is_granted_is_what_is_asked_for(upgraded: Installation) -> None:
    """By the audit log, since the replicas started: nothing unused, nothing missing."""
    cluster, admin = upgraded.cluster, upgraded.cluster.admin
    _use_what_is_rare(upgraded)
    granted = _granted(admin)
    # A missing Secret or Lease is made by a patch and an update: `create` is asked of them, and not in the log.
    needed = {each for each in granted if each[2] != "create"}
    with contextlib.suppress(AssertionError):
        until(lambda: needed <= _seen(cluster)[0])  # the log is a moment behind
    seen, refused = _seen(cluster)
    assert not refused
    assert seen - granted == set(), "missing"
    assert needed - seen == set(), "unused"


def _seen(cluster: ControlPlane) -> tuple[set[tuple[str, str, str]], list[str]]:
    """(group, resource, verb) of what the replicas' account asked for, and what it was refused."""
    seen, refused = set(), []
    for event in cluster.audit.events():
        asked = event.get("objectRef")
        if event["user"]["username"] != _ACCOUNT or asked is None or asked.get("apiGroup") == "authorization.k8s.io":
            continue
        seen.add((asked.get("apiGroup", ""), asked["resource"], event["verb"]))
        if event["responseStatus"]["code"] == 403:
            refused.append(event["requestURI"])
    return seen, refused


def _use_what_is_rare(installation: Installation) -> None:
    """A look-up of a pod, one of Revisions, and a Secret that is gone."""
    admin = installation.cluster.admin
    name = f"test-{uuid.uuid4().hex[:8]}"
    metadata = {"name": name, "labels": {"morphisms.dev/mode": "audit"}}
    admin.create(_NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    admin.until(f"{_NAMESPACES}/{name}/serviceaccounts", bool)
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "gone"}}
    target = {"target": {"kind": "Node", "name": "nowhere"}}
    admin.request("POST", f"{_NAMESPACES}/{name}/bindings", binding | target)
    admin.patch(f"{_NAMESPACES}/{name}", {"metadata": {"labels": {"morphisms.dev/mode": "inject"}}})
    for replica in installation.replicas:  # or a CA this young would be given a minute before it signs again
        with (replica.folder / "configuration" / "configuration.yaml").open("a") as file:
            file.write("\ncertificates: {settleSeconds: 1}\n")
    secrets = f"{_NAMESPACES}/morphisms-system/secrets"
    old = admin.get(f"{secrets}/morphisms-webhook-tls")["metadata"]["uid"]
    admin.delete(f"{secrets}/morphisms-webhook-tls")
    admin.until(
        secrets,
        lambda found: [
            each
            for each in found
            if each["metadata"]["name"] == "morphisms-webhook-tls"
            and each["metadata"]["uid"] != old
            and each.get("data")
        ],
    )


def _granted(admin: Client) -> set[tuple[str, str, str]]:
    """(group, resource, verb) of every role that is bound to the webhook's account."""
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    roles = {
        ("Role", each["metadata"]["name"]): each for each in admin.items(f"{rbac}/namespaces/morphisms-system/roles")
    }
    roles |= {("ClusterRole", each["metadata"]["name"]): each for each in admin.items(f"{rbac}/clusterroles")}
    bindings = [*admin.items(f"{rbac}/clusterrolebindings"), *admin.items(f"{rbac}/rolebindings")]
    return {
        (group, resource, verb)
        for binding in bindings
        if {"kind": "ServiceAccount", "name": "morphisms-webhook", "namespace": "morphisms-system"}
        in binding.get("subjects", ())
        for rule in roles[binding["roleRef"]["kind"], binding["roleRef"]["name"]]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_a_store_that_comes_back_from_a_backup_is_seen_as_it_is(upgraded: Installation) -> None:
    """Its versions begin anew below those that the replicas know, and it has the CA of that time."""
    cluster, admin = upgraded.cluster, upgraded.cluster.admin
    name = f"test-{uuid.uuid4().hex[:8]}"
    metadata = {"name": name, "labels": {"morphisms.dev/mode": "audit"}}
    admin.create(_NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    admin.until(f"{_NAMESPACES}/{name}/serviceaccounts", bool)
    backup = cluster.folder / "backup"
    with _without_store(upgraded):
        shutil.copytree(cluster.etcd.folder, backup)
    admin.patch(f"{_NAMESPACES}/{name}", {"metadata": {"labels": {"morphisms.dev/mode": "enforce"}}})
    _wait_until(lambda: _is_injected(admin, name))
    authority = f"{_NAMESPACES}/morphisms-system/secrets/morphisms-webhook-ca"
    before = admin.get(authority)["data"]["ca.crt"]
    admin.patch(authority, {"data": None})
    _wait_until(lambda: admin.get(authority).get("data", {}).get("ca.crt", before) != before)
    for number in range(300):
        admin.patch(f"{_NAMESPACES}/{name}", {"metadata": {"annotations": {"number": str(number)}}})
    with _without_store(upgraded):
        shutil.rmtree(cluster.etcd.folder)
        shutil.copytree(backup, cluster.etcd.folder)
    assert admin.get(authority)["data"]["ca.crt"] == before
    _wait_until(lambda: not _is_injected(admin, name))
    admin.patch(f"{_NAMESPACES}/{name}", {"metadata": {"labels": {"morphisms.dev/mode": "enforce"}}})
    _wait_until(lambda: _is_injected(admin, name))


def test_in_an_emergency_what_the_page_says_lets_pods_start_again(upgraded: Installation) -> None:
    """Nobody answers, as if every replica were gone."""
    admin = upgraded.cluster.admin
    names = [f"test-{uuid.uuid4().hex[:8]}" for _ in range(2)]
    for name in names:
        metadata = {"name": name, "labels": {"morphisms.dev/mode": "enforce"}}
        admin.create(_NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        admin.until(f"{_NAMESPACES}/{name}/serviceaccounts", bool)
    (block,) = re.findall(r"## In an emergency.*?```sh\n(.*?)```", _PAGE, re.DOTALL)
    loosen, *remove = [line.split()[1:] for line in block.splitlines() if line.startswith("kubectl")]
    upgraded.balancer.stop()
    try:
        _wait_until(lambda: all("failed calling webhook" in _created(admin, name).message for name in names))
        admin.kubectl(*[names[0] if word == "shop" else word for word in loosen])
        _wait_until(lambda: _created(admin, names[0]).status == 201)
        assert _created(admin, names[1]).status != 201
        for command in remove:
            admin.kubectl(*command)
        _wait_until(lambda: _created(admin, names[1]).status == 201)
        assert _created(admin, names[1], {"morphisms.dev/inject": "true"}).status == 201
    finally:
        upgraded.balancer.start(wait=False)
        admin.kubectl("apply", "--server-side", "-k", upgraded.overlay)
    _wait_until(lambda: _is_injected(admin, names[1]))


@contextlib.contextmanager
def _without_store(installation: Installation) -> Iterator[None]:
    processes = installation.cluster.processes
    for process in reversed(processes.values()):
        process.stop()
    yield
    for process in processes.values():
        process.start()
    installation.wait_until_answered()


def _is_injected(admin: Client, namespace: str) -> bool:
    """Whether a pod that does not ask is: by the audit mode's measure never, in enforce always."""
    answer = _created(admin, namespace)
    return answer.status == 201 and "runtimeClassName" in answer.body["spec"]


def _created(admin: Client, namespace: str, annotations: dict[str, str] | None = None) -> Answer:
    pod = make_pod(annotations)
    pod["spec"]["containers"][0]["image"] = f"registry.example/app@sha256:{'0' * 64}"
    return admin.request("POST", f"{_NAMESPACES}/{namespace}/pods", pod, query={"dryRun": "All"})


def _wait_until(condition: Callable[[], bool], seconds: float = 180) -> None:
    """Replicas take up what they watch a moment later, and tell nobody."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_removed_in_the_order_of_the_page_no_admission_fails_and_nothing_is_left(upgraded: Installation) -> None:
    admin = upgraded.cluster.admin
    (block,) = re.findall(r"## Remove.*?```sh\n(.*?)```", _PAGE, re.DOTALL)
    commands = [line.partition("#")[0].split() for line in block.splitlines() if not line.startswith("#")]
    assert len(commands) == 9
    with Creating(upgraded.cluster) as creating:
        for program, *arguments in commands:
            if program == "sleep":
                time.sleep(float(arguments[0]))
            elif arguments[:2] == ["delete", "namespace"]:
                # No kubelet here: it is the replicas' own processes that end with the namespace's pods.
                admin.kubectl(*arguments, "--wait=false")
                for replica in upgraded.replicas:
                    upgraded.end(replica)
            else:
                admin.kubectl(*arguments)
    print(f"{creating.created} pods created during the removal, {len(creating.failures)} not admitted")
    assert not creating.failures, creating.failures[:3]
    assert _left(admin) == []


def _left(admin: Client) -> list[str]:
    """What carries our label outside of the namespace that is being deleted."""
    kinds = admin.kubectl("api-resources", "--verbs=list", "--namespaced=false", "-o", "name").out.split()
    found = yaml.safe_load(
        admin.kubectl("get", ",".join(kinds), "-l", "app.kubernetes.io/part-of=morphisms", "-o", "yaml").out
    )
    left = [f"{item['kind']}/{item['metadata']['name']}" for item in found["items"]]
    labelled = admin.items(_NAMESPACES, labelSelector="morphisms.dev/mode")
    return [each for each in left if each != "Namespace/morphisms-system"] + [str(item) for item in labelled]
