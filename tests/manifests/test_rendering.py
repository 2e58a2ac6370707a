"""Every kustomization renders, and what is committed is what they render to. By the cluster tier's kubectl."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests.cluster.binaries import KUBERNETES, build
from tests.manifests.rendering import MANIFESTS, RENDERED, render

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]
_FOLDERS = sorted(file.parent for file in MANIFESTS.rglob("kustomization.yaml"))
_WHOLE = [folder for folder in _FOLDERS if "kind: Component" not in (folder / "kustomization.yaml").read_text()]


@pytest.fixture(scope="module", autouse=True)
def _kubectl() -> None:
    build(lambda line: print(line, file=sys.stderr, flush=True), KUBERNETES)


def _objects(folder: str) -> dict[tuple[str, str], Any]:
    text = render(MANIFESTS / folder)
    return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(text)}


@pytest.mark.parametrize("folder", _WHOLE, ids=lambda folder: str(folder.relative_to(MANIFESTS)))
def test_it_renders(folder: Any) -> None:
    objects = list(yaml.safe_load_all(render(folder)))
    assert objects
    keys = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in objects]
    assert len(keys) == len(set(keys))
    for each in objects:
        assert each["metadata"]["labels"]["app.kubernetes.io/part-of"] == "morphisms", each["metadata"]["name"]


@pytest.mark.parametrize("name", RENDERED)
def test_what_is_committed_is_rendered(name: str) -> None:
    assert (MANIFESTS / name).read_text() == render(MANIFESTS / RENDERED[name]), "run make manifests"


def test_with_cert_manager_our_own_ca_is_off() -> None:
    objects = _objects("overlays/cert-manager")
    arguments = objects["Deployment", "morphisms-webhook"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--own-ca" not in arguments
    assert arguments[-4:] == ["--tls-cert", "/etc/morphisms-tls/tls.crt", "--tls-key", "/etc/morphisms-tls/tls.key"]
    assert not [key for key in objects if key[0] in ("Role", "RoleBinding", "Secret")]
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        annotations = objects[kind, "morphisms"]["metadata"]["annotations"]
        assert annotations["cert-manager.io/inject-ca-from"] == "morphisms-system/morphisms-webhook"
    certificate = objects["Certificate", "morphisms-webhook"]["spec"]
    assert certificate["secretName"] == "morphisms-webhook-tls"
    assert "morphisms-webhook.morphisms-system.svc" in certificate["dnsNames"]
    # A renewed CA of another key would be believed by API servers before replicas serve anything of it.
    assert objects["Certificate", "morphisms-ca"]["spec"]["privateKey"]["rotationPolicy"] == "Never"
    guard = objects["ValidatingAdmissionPolicy", "configuration-guard.morphisms.dev"]["spec"]["variables"][0]
    assert guard["expression"] == "['system:serviceaccount:cert-manager:cert-manager-cainjector']"


def test_one_node_needs_one_replica() -> None:
    objects = _objects("overlays/single-node")
    assert objects["Deployment", "morphisms-webhook"]["spec"]["replicas"] == 1
    assert not [key for key in objects if key[0] in ("HorizontalPodAutoscaler", "PodDisruptionBudget")]


def test_the_verifier_stands_alone() -> None:
    objects = _objects("base/verifier")
    namespaces = {each["metadata"].get("namespace") for each in objects.values()} - {None}
    assert namespaces == {"morphisms-kms"}
    assert "morphisms-system" not in render(MANIFESTS / "base" / "verifier")


def test_the_openbao_to_try_out_is_reached_over_tls_only() -> None:
    objects = _objects("overlays/openbao-dev")
    assert objects["ConfigMap", "morphisms-verifier"]["data"]["verifier.yaml"].startswith("mode: development")
    assert "jwks.json" in objects["ConfigMap", "morphisms-verifier"]["data"]
    arguments = objects["Deployment", "openbao"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "-dev-listen-address=127.0.0.1:8201" in arguments
    assert "tls_cert_file" in objects["ConfigMap", "openbao"]["data"]["openbao.hcl"]


def test_examples_are_yaml() -> None:
    for file in sorted((MANIFESTS / "examples").glob("*.yaml")):
        for item in yaml.safe_load_all(file.read_text()):
            assert {"apiVersion", "kind", "metadata"} <= item.keys()
    done = subprocess.run(["sh", "-n", MANIFESTS / "examples" / "nodes.sh"], check=False)
    assert done.returncode == 0
