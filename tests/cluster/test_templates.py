"""Pods are created in all modes while the configuration changes, the webhook is upgraded and rolled back.

Several webhook processes, a real API server, and not one admission of a pod that complies fails. The kubelets' part is
played: a ConfigMap reaches one replica after the other, and one replica sees the container templates late.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from certs.authority import issue_leaf, make_authority
from tests.cluster.binaries import KUBERNETES, binary
from tests.cluster.client import ApiError, Client, Object
from tests.cluster.controlplane import ControlPlane, control_plane
from tests.cluster.installation import NAME, SYSTEM, Replica, running
from tests.cluster.kubelet import KeptInstallation
from tests.cluster.lagging import LaggingApi
from tests.cluster.namespace import Namespace
from tests.cluster.nodes import add_confidential_node, add_node
from tests.manifests.rendering import MANIFESTS
from tests.support.paths import ROOT
from tests.support.trees import tree
from tests.support.until import until
from webhook.configuration.model import Configuration
from webhook.configuration.templates_map import template_key

pytestmark = pytest.mark.slow

_BEFORE = "81b92c2"
# At each tick all threads create a pod, and then rest: they leave the machine to the rollout that is waited for, and no
# connection stays unused for a lame duck, whose end it would meet.
_TICK_SECONDS = 0.1
_TEMPLATES = f"/api/v1/namespaces/{SYSTEM}/configmaps/{NAME}-templates"
_PAGE = (ROOT / "docs" / "operations.md").read_text()
_IMAGE = f"registry.example/app@sha256:{'a' * 64}"
_OLD: Object = {"version": 1, "cluster": "prod", "sidecar": {"image": f"registry.example/sidecar@sha256:{'1' * 64}"}}
_NEW: Object = {
    "version": 1,
    "cluster": "prod",
    "sidecar": {"image": f"registry.example/sidecar@sha256:{'2' * 64}", "deadlineSeconds": 61},
    "verifier": {"audience": "other-verifier"},
}
_ADDRESS = {"name": "ADDRESS", "value": "postgres://app:${vault:secret/shop/db#password}@db/shop"}
_WAYS: tuple[tuple[dict[str, str], Object], ...] = (
    ({"inject": "true"}, {}),
    ({"inject": "true", "secret-db": "secret/shop/db"}, {}),
    ({"inject": "true", "agent": "sidecar"}, {"command": ["/app"], "env": [_ADDRESS]}),
)


def _says(replica: Replica, sample: str) -> bool:
    return sample in replica.metrics()


class Fleet(KeptInstallation):
    """Three replicas or more. `late`: by which one of them reaches the API server, if not directly.

    A changed ConfigMap reaches one replica at a time, as kubelets would have it.
    """

    def __init__(self, cluster: ControlPlane, folder: str, late: LaggingApi | None = None) -> None:
        self.late = late
        self.late_pod = ""
        self.tree: Path | None = None
        self._seen: dict[str, Object] = {}
        super().__init__(cluster, folder)
        here = self.folder / "morphisms-here"
        self.overlay.rename(here)
        self.overlay = here

    def write(self, base: Path, tag: str, settings: Object) -> None:
        """The user's overlay: a release, its image, and a configuration."""
        self.write_overlay(base)
        file = self.overlay / "kustomization.yaml"
        kustomization = yaml.safe_load(file.read_text())
        kustomization["images"] = [{"name": "morphisms/webhook", "newTag": tag}]
        kustomization["configMapGenerator"] = [
            {"name": NAME, "namespace": SYSTEM, "behavior": "merge", "files": ["configuration.yaml"]}
        ]
        kustomization["generatorOptions"] = {"disableNameSuffixHash": True}
        file.write_text(yaml.safe_dump(kustomization))
        self.configure_overlay(settings)

    def configure_overlay(self, settings: Object) -> None:
        """Only another configuration."""
        (self.overlay / "configuration.yaml").write_text(yaml.safe_dump(settings))

    def install(self) -> None:
        self.apply()
        self.wait_until_in_force()

    def apply(self) -> None:
        """The whole overlay, as it is now."""
        self.cluster.kubectl("apply", "--server-side", "-k", self.overlay)

    def shell(self, commands: str) -> None:
        """What the page says, in a folder where the user's overlay is."""
        programs = self.folder / "programs"
        programs.mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (programs / "kubectl").symlink_to(binary(KUBERNETES, "kubectl"))
        environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "KUBECONFIG": str(self.cluster.admin.kubeconfig),
            "KUBECACHEDIR": str(self.folder / "cache"),
        }
        done = subprocess.run(
            ["sh", "-euc", commands], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"

    def templates(self) -> dict[str, str]:
        """What the ConfigMap with the templates holds."""
        return dict(self.cluster.admin.get(_TEMPLATES).get("data") or {})

    def known(self, pod: str, digest: str) -> bool:
        """Whether a replica has said that it accepts the template."""
        return digest[:16] in self.templates().get(f"known.{pod}", "").split()

    def await_current(self, digest: str) -> None:
        """Until new pods get this template, from each replica."""
        until(lambda: self.templates().get("current") == digest)
        given = f'morphisms_template_current_info{{digest="{digest}"}} 1.0'
        for replica in self.replicas:
            replica.process.wait_until(partial(_says, replica, given))

    def _look(self) -> None:
        super()._look()
        settings = self.cluster.admin.get(f"/api/v1/namespaces/{SYSTEM}/configmaps/{NAME}")["data"]
        for replica in sorted(self.replicas, key=lambda each: each.pod):
            if self._seen.get(replica.pod) != settings:
                self._seen[replica.pod] = settings
                file = replica.folder / "configuration" / "configuration.yaml"
                unfinished = file.with_suffix(".new")
                unfinished.write_text(settings["configuration.yaml"])
                unfinished.replace(file)
                return

    def _api_url(self, pod: Object) -> str:
        if self.late is None or self.late_pod not in ("", pod["metadata"]["name"]):
            return super()._api_url(pod)
        self.late_pod = pod["metadata"]["name"]
        return self.late.url

    def _program(self, pod: Object) -> list[str]:
        if self.tree is None or not _is_before(pod):
            return super()._program(pod)
        run = "import os, runpy, sys; os.chdir(sys.argv[1]); sys.path.insert(0, sys.argv.pop(1)); "
        return [sys.executable, "-c", run + "runpy.run_module('cli.main', run_name='__main__')", str(self.tree)]

    def _more_arguments(self, pod: Object) -> list[str]:
        return [] if _is_before(pod) else super()._more_arguments(pod)


def _is_before(pod: Object) -> bool:
    return str(pod["spec"]["containers"][0]["image"]).endswith(":before")


class CertManagerFleet(Fleet):
    """With the overlay for cert-manager, whose part is played: its objects become a Secret and the CA bundles."""

    def write_overlay(self, base: Path) -> None:
        super().write_overlay(base)
        file = self.overlay / "kustomization.yaml"
        kustomization = yaml.safe_load(file.read_text())
        kinds = {"Issuer": ("morphisms-self-signed", "morphisms-ca"), "Certificate": ("morphisms-ca", NAME)}
        kustomization["patches"] += [
            {
                "patch": yaml.safe_dump(
                    {"apiVersion": "cert-manager.io/v1", "kind": kind, "$patch": "delete"}
                    | {"metadata": {"name": name, "namespace": SYSTEM}}
                )
            }
            for kind, names in kinds.items()
            for name in names
        ]
        file.write_text(yaml.safe_dump(kustomization))

    def install(self) -> None:
        super().install()
        now, periods = datetime.now(UTC), Configuration().certificates.periods
        authority = make_authority(now, periods)
        leaf = issue_leaf(authority, [f"{NAME}.{SYSTEM}.svc"], now, periods)
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"{NAME}-tls"},
            "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": leaf.certificate_pem.decode(), "tls.key": leaf.key_pem.decode()},
        }
        self.cluster.admin.create(f"/api/v1/namespaces/{SYSTEM}/secrets", secret)
        injector = self.cluster.user("system:serviceaccount:cert-manager:cert-manager-cainjector", "system:masters")
        for item in self.registrations():
            for webhook in item["webhooks"]:
                webhook["clientConfig"]["caBundle"] = b64encode(authority.certificate_pem).decode()
            kind = f"{item['kind'].lower()}s"
            injector.replace(f"/apis/admissionregistration.k8s.io/v1/{kind}/morphisms", item)


class Load:
    """Creates pods that comply in namespaces of all modes, with a thread for each, until it is left.

    `failures`: what was not admitted. `images`: which sidecar those that were injected got.
    """

    def __init__(self, cluster: ControlPlane, *names: str) -> None:
        self._cluster = cluster
        self._client = cluster.user("dev")
        self._places = {mode: Namespace.make(cluster.admin, mode, {}) for mode in (None, "audit", "inject", "enforce")}
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._run, args=(place, mode in ("inject", "enforce")), daemon=True)
            for mode, place in self._places.items()
        ]
        self.rounds = [0] * len(self._threads)
        self.failures: list[str] = []
        self.images: list[str] = []

    def __enter__(self) -> Load:
        for index, thread in enumerate(self._threads):
            thread.name = str(index)
            thread.start()
        self.proceed()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(300)
        print(f"\n{sum(self.rounds)} rounds of pods in all modes, {len(self.failures)} not admitted")

    def proceed(self, rounds: int = 3) -> None:
        """Until each thread has created so many further rounds of pods."""
        goal = [each + rounds + 1 for each in self.rounds]
        with self._changed:
            assert self._changed.wait_for(
                lambda: all(now >= wanted for now, wanted in zip(self.rounds, goal, strict=True)), 300
            )

    def _run(self, place: Namespace, injects_all: bool) -> None:
        index = int(threading.current_thread().name)
        while not self._stop.is_set():
            for own, container in (*_WAYS, ({}, {})) if injects_all else _WAYS:
                self._create(place, own, container)
                self._stop.wait(_TICK_SECONDS - time.monotonic() % _TICK_SECONDS)
            with self._changed:
                self.rounds[index] += 1
                self._changed.notify_all()

    def _create(self, place: Namespace, annotations: dict[str, str], container: Object) -> None:
        pod: Object = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "generateName": "test-",
                "annotations": {f"morphisms.dev/{key}": value for key, value in annotations.items()},
            },
            "spec": {"containers": [{"name": "app", "image": _IMAGE, **container}]},
        }
        with self._cluster.traffic.passing():
            answer = self._client.request("POST", place.pods(), pod, query={"dryRun": "All"})
        with self._changed:
            if answer.status != 201:
                self.failures.append(answer.message)
            else:
                (init,) = answer.body["spec"]["initContainers"]
                self.images.append(init["image"])


# Whose certificate the webhook serves makes no difference to these.
_AS_INSTALLED = pytest.mark.parametrize("fleet", ["base"], indirect=True, scope="module")


@contextlib.contextmanager
def _cluster(name: str) -> Iterator[ControlPlane]:
    with control_plane(name) as cluster:
        for node in ("snp-0", "snp-1"):
            add_confidential_node(cluster.admin, node)
        add_node(cluster.admin, "plain-0", {"kubernetes.io/os": "linux"})
        yield cluster


@pytest.fixture(scope="module")
def fleet(_programs: None, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """Installed by this release, in a control plane of its own; one replica's view of ConfigMaps can be held."""
    kind = Fleet if request.param == "base" else CertManagerFleet
    with _cluster("templates") as cluster:
        pair = cluster.server_certificate("late")
        with LaggingApi(cluster.url, cluster.ca, pair) as late:
            installation = kind(cluster, request.param, late)
            installation.write(MANIFESTS / request.param, "now", _OLD)
            with running(installation):
                yield installation


@pytest.mark.parametrize("fleet", ["base", "overlays/cert-manager"], indirect=True, scope="module")
def test_a_configuration_that_reaches_one_replica_long_after_the_others_fails_no_admission(fleet: Fleet) -> None:
    old, new = (Configuration.model_validate(each) for each in (_OLD, _NEW))
    first = old.former_container_template.digest
    fleet.await_current(first)
    late = next(each for each in fleet.replicas if each.pod == fleet.late_pod)
    others = [each for each in fleet.replicas if each is not late]
    added = new.container_template
    assert fleet.late is not None
    with Load(fleet.cluster) as load:
        fleet.late.hold()
        fleet.configure_overlay(_NEW)
        fleet.apply()
        until(lambda: template_key(added.digest) in fleet.templates())
        until(lambda: all(fleet.known(each.pod, added.digest) for each in others))
        load.proceed()
        _restart(fleet, others[0])
        until(lambda: fleet.known(others[0].pod, added.digest))
        load.proceed(8)
        # However long it takes: what one replica does not know is not rendered by any.
        assert not fleet.known(late.pod, added.digest)
        assert fleet.templates()["current"] == first
        late.process.wait_until(late.ready)  # it is behind, not broken
        seen = len(load.images)
        fleet.late.release()
        fleet.await_current(added.digest)
        load.proceed()
    assert load.failures == []
    assert set(load.images[:seen]) == {old.sidecar.image}
    assert load.images[-1] == new.sidecar.image


@_AS_INSTALLED
def test_a_replica_that_has_never_read_the_templates_is_not_ready(fleet: Fleet) -> None:
    """It would refuse what the others inject."""
    late = next(each for each in fleet.replicas if each.pod == fleet.late_pod)
    assert fleet.late is not None
    with Load(fleet.cluster) as load:
        fleet.end(late)
        fleet.late.hold()
        late.process.start(wait=False)
        until(lambda: "[-]templates: not read yet" in late.why_not_ready())
        load.proceed()
        assert not late.ready()
        fleet.late.release()
        late.process.wait_until_ready()
        load.proceed()
    assert load.failures == []


@_AS_INSTALLED
def test_damage_to_the_templates_stops_no_pod_and_is_mended(fleet: Fleet) -> None:
    """Entries of a stranger are named and refused; the mark and the templates in force come back."""
    admin = fleet.cluster.admin
    until(lambda: fleet.templates().get("current"))
    current = fleet.templates()["current"]
    evil = {"a" * 64 + ".json": "{", "b" * 64 + ".json": fleet.templates()[template_key(current)], "x": "y"}
    with Load(fleet.cluster) as load:
        admin.patch(_TEMPLATES, {"data": {**evil, "current": "c" * 64}})
        fleet.await_current(current)
        load.proceed()
        admin.patch(_TEMPLATES, {"data": {"current": None, template_key(current): None}})
        fleet.await_current(current)
        until(lambda: template_key(current) in fleet.templates())
        load.proceed()
        admin.delete(_TEMPLATES)
        until(lambda: admin.request("GET", _TEMPLATES).status == 200)
        fleet.await_current(current)
        load.proceed()
    assert load.failures == []
    assert {"x", "a" * 64 + ".json"} <= {
        event["key"]
        for replica in fleet.replicas
        for event in map(json.loads, replica.process.log.read_text().rpartition("\n")[0].splitlines())
        if event.get("event") == "template_refused"
    }


def _restart(fleet: Fleet, replica: Replica) -> None:
    fleet.end(replica)
    replica.process.start()


@pytest.fixture
def upgraded(_programs: None) -> Iterator[Fleet]:
    """The tree of the release before, installed and running."""
    before = tree(_BEFORE)
    with _cluster("releases") as cluster:
        installation = Fleet(cluster, "base")
        installation.tree = before
        installation.write(before / "manifests" / "base", "before", _OLD)
        with running(installation):
            yield installation


def test_an_upgrade_and_a_rollback_by_the_pages_steps_fail_no_admission(upgraded: Fleet) -> None:
    """From a commit before there were templates, with another sidecar image; both releases' processes side by side."""
    assert upgraded.tree is not None
    first, second, third = _blocks("## Upgrade")
    old, new = (Configuration.model_validate(each).sidecar.image for each in (_OLD, _NEW))
    with Load(upgraded.cluster) as load:
        upgraded.overlay.with_name("morphisms-before").mkdir()
        for file in upgraded.overlay.iterdir():
            (upgraded.overlay.with_name("morphisms-before") / file.name).write_text(file.read_text())
        upgraded.write(MANIFESTS / "base", "now", _OLD)
        upgraded.shell(first)
        load.proceed()
        # The release before closes idle connections when it stops, without the lame duck's `Connection: close`: a
        # request may meet the end of one. Nothing else may fail, and from here on not even that.
        assert [each for each in load.failures if not each.endswith(": EOF")] == []
        load.failures.clear()
        upgraded.shell(second)
        load.proceed()
        assert set(load.images) == {old}, "a new webhook alone changes nothing that the sidecar has to understand"
        upgraded.configure_overlay(_NEW)
        upgraded.shell(third)
        load.proceed()
        until(lambda: load.images[-1] == new)
        assert load.failures == []
        # And back.
        second, third_ = _blocks("## Roll back")
        upgraded.configure_overlay(_OLD)
        upgraded.shell(third)
        load.proceed()
        until(lambda: load.images[-1] == old)
        upgraded.shell(second)
        load.proceed()
        upgraded.shell(third_)
        load.proceed()
    assert load.failures == []
    assert load.images[-1] == old


def _blocks(title: str) -> list[str]:
    """The commands of a section of the page."""
    section = _PAGE.partition(f"{title}\n")[2].partition("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


@_AS_INSTALLED
def test_the_guard_keeps_the_templates_for_the_webhooks_own_account(fleet: Fleet) -> None:
    """Who may edit in the webhook's namespace could otherwise put an image of their own into every injected pod."""
    cluster = fleet.cluster
    editor = _editor(cluster)
    until(lambda: fleet.templates().get("current"))
    first = fleet.templates()["current"]
    evil: dict[str, Any] = {"data": {"current": "0" * 64}}
    for change in (evil, {"data": {first + ".revoked": ""}}, {"data": {template_key(first): None}}):
        with pytest.raises(ApiError, match="break-glass"):
            editor.patch(_TEMPLATES, change)
    with pytest.raises(ApiError, match="break-glass"):
        editor.delete(_TEMPLATES)
    editor.patch(_TEMPLATES, {"metadata": {"labels": {"team": "platform"}}})
    cluster.admin.patch(_TEMPLATES, {"data": {f"{first}.revoked": "test"}})  # has every verb
    until(lambda: _is_denied(cluster))
    cluster.admin.patch(_TEMPLATES, {"data": {f"{first}.revoked": None}})
    until(lambda: not _is_denied(cluster))


def _editor(cluster: ControlPlane) -> Client:
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "editor"}
    cluster.admin.create(
        f"/apis/rbac.authorization.k8s.io/v1/namespaces/{SYSTEM}/rolebindings",
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "editor"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
            "subjects": [subject],
        },
    )
    editor = cluster.user("editor")
    until(lambda: editor.request("GET", _TEMPLATES).status == 200)
    return editor


def _is_denied(cluster: ControlPlane) -> bool:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "test-", "annotations": {"morphisms.dev/inject": "true"}},
        "spec": {"containers": [{"name": "app", "image": _IMAGE}]},
    }
    answer = cluster.admin.request("POST", "/api/v1/namespaces/default/pods", pod, query={"dryRun": "All"})
    assert answer.status == 201 or "revoked" in answer.message
    return answer.status != 201
