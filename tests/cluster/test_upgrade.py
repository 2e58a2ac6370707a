"""Rollouts while pods are created, and removal to the last key in etcd: kubelets are played for it.

What the changed objects alone do meanwhile, and what the page's order of removal is for, is test_lifecycle.py's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import yaml

from tests.cluster.controlplane import ControlPlane, control_plane
from tests.cluster.installation import running
from tests.cluster.kubelet import KeptInstallation
from tests.cluster.namespace import MODE_LABEL, Namespace
from tests.cluster.nodes import add_confidential_node, add_node
from tests.cluster.stream import Stream
from tests.manifests.rendering import MANIFESTS
from tests.support.until import until

pytestmark = pytest.mark.slow

_PAGE = (MANIFESTS.parent / "docs" / "operations.md").read_text()


@pytest.fixture(scope="module")
def previous(_programs: None) -> Iterator[KeptInstallation]:
    """A control plane of its own with the release before, three replicas running."""
    with control_plane("upgrade") as cluster:
        for name in ("snp-0", "snp-1"):
            add_confidential_node(cluster.admin, name)
        add_node(cluster.admin, "plain-0", {"kubernetes.io/os": "linux"})
        with running(KeptInstallation(cluster, "previous")) as installation:
            yield installation


def test_an_upgrade_with_its_rollout_fails_nothing_and_lets_nothing_pass(previous: KeptInstallation) -> None:
    cluster = previous.cluster
    before = {replica.pod for replica in previous.replicas}
    with Stream(cluster, *_namespaces(cluster)) as stream:
        previous.write_overlay(MANIFESTS / "base")
        _name_another_image(previous)
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-k", previous.overlay)
        previous.rolled_out()
        stream.proceed()
        cluster.kubectl("-n", "morphisms-system", "rollout", "restart", "deployment/morphisms-webhook")
        previous.rolled_out()
        stream.proceed()
    # The last of them answers what it has taken, a little longer than the rollout waits.
    until(lambda: not before & {replica.pod for replica in previous.replicas})
    assert stream.failures == []
    stream.check()


def test_removal_leaves_nothing_of_ours_anywhere(previous: KeptInstallation) -> None:
    cluster = previous.cluster
    enforced, _ = _namespaces(cluster)
    (block,) = re.findall(r"## Remove.*?```sh\n(.*?)```", _PAGE, re.DOTALL)
    for line in block.splitlines():
        program, *arguments = line.partition("#")[0].split() or [""]
        if program == "kubectl":  # nobody creates pods here, so nobody needs its pauses
            cluster.kubectl(*arguments)
    assert previous.replicas == []
    assert [key for key, _ in cluster.etcd.everything() if "morphisms" in key and "/events/" not in key] == []
    mention = {
        key
        for key, value in cluster.etcd.everything()
        if b"morphisms" in value and not key.startswith(("/registry/events/", "/registry/pods/"))
    }
    assert mention == set()
    assert MODE_LABEL not in cluster.admin.get(f"/api/v1/namespaces/{enforced.name}")["metadata"]["labels"]


def _namespaces(cluster: ControlPlane) -> tuple[Namespace, Namespace]:
    return Namespace.make(cluster.admin, "enforce", {}), Namespace.make(cluster.admin, None, {})


def _name_another_image(installation: KeptInstallation) -> None:
    """As a release does: so the Deployment makes new pods."""
    file = installation.overlay / "kustomization.yaml"
    kustomization = yaml.safe_load(file.read_text())
    kustomization["images"] = [{"name": "morphisms/webhook", "newTag": "next"}]
    file.write_text(yaml.safe_dump(kustomization))
