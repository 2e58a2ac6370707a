"""Every kustomization renders, and what is committed is what they render to. By the cluster tier's kubectl."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from joserfc.jwk import ECKey

from attestation.verifier.configuration import load_configuration
from attestation.verifier.key_custody import check_key_custody
from cli.main import main
from server.yaml.strict import ConfigurationError
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


def test_components_relabel_nothing_that_the_overlay_has_already(tmp_path: Path) -> None:
    """Services are found by these labels, and by them `Remove` in docs/operations.md leaves what the verifier needs."""
    found = []
    for name, components in (("without", []), ("with", sorted((MANIFESTS / "components").iterdir()))):
        overlay = tmp_path / name
        overlay.mkdir()
        resources = [MANIFESTS / "base", MANIFESTS / "base" / "verifier"]
        kustomization = {
            "resources": [os.path.relpath(each, overlay) for each in resources],
            "components": [os.path.relpath(each, overlay) for each in components],
        }
        (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        objects = list(yaml.safe_load_all(render(overlay)))
        found.append({(each["kind"], each["metadata"]["name"]): each["metadata"]["labels"] for each in objects})
    before, after = found
    assert {key: after[key] for key in before} == before
    assert {key: labels for key, labels in after.items() if "app.kubernetes.io/part-of" not in labels} == {}
    for kind in ("ClusterRole", "ClusterRoleBinding"):
        assert after[kind, "morphisms-verifier"]["app.kubernetes.io/component"] == "verifier"


@pytest.mark.parametrize("name", RENDERED)
def test_what_is_committed_is_rendered(name: str) -> None:
    assert (MANIFESTS / name).read_text() == render(MANIFESTS / RENDERED[name]), "run make manifests"


def test_with_cert_manager_our_own_ca_is_off() -> None:
    objects = _objects("overlays/cert-manager")
    arguments = objects["Deployment", "morphisms-webhook"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--own-ca" not in arguments
    assert arguments[-4:] == ["--tls-cert", "/etc/morphisms-tls/tls.crt", "--tls-key", "/etc/morphisms-tls/tls.key"]
    own = {key for key in objects if key[0] in ("Role", "RoleBinding", "Secret")}
    assert own == {(kind, "morphisms-webhook-templates") for kind in ("Role", "RoleBinding")}
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


def test_the_openbao_to_try_out_resolves_names_and_fetches_the_verifiers_keys() -> None:
    """`vault setup --jwks-url` has OpenBao fetch them, beside a policy that denies what no other allows."""
    objects = _objects("overlays/openbao-dev")
    reached = {}
    for rule in objects["NetworkPolicy", "openbao"]["spec"]["egress"]:
        (to,) = rule["to"]
        (selector,) = to.values()
        (label,) = selector["matchLabels"].items()
        reached[label] = {(port["port"], port["protocol"]) for port in rule["ports"]}
    verifier = objects["Deployment", "morphisms-verifier"]["spec"]["template"]
    component = ("app.kubernetes.io/component", "verifier")
    assert component in verifier["metadata"]["labels"].items()
    (container,) = verifier["spec"]["containers"]
    assert {port for port, _ in reached[component]} <= {port["name"] for port in container["ports"]}
    names = ("kubernetes.io/metadata.name", "kube-system")
    assert reached == {names: {(53, "UDP"), (53, "TCP")}, component: {("https", "TCP")}}


def test_the_key_server_in_a_guest_has_no_key_and_no_other_way_in() -> None:
    objects = _objects("overlays/kms-in-guests")
    assert not [key for key in objects if key[0] in ("Secret", "Deployment")]
    assert objects["Namespace", "morphisms-kms"]["metadata"]["labels"]["morphisms.dev/mode"] == "enforce"
    workload = objects["StatefulSet", "morphisms-verifier"]["spec"]
    assert (workload["replicas"], workload["updateStrategy"]) == (1, {"type": "OnDelete"})
    pod = workload["template"]["spec"]
    assert pod["runtimeClassName"] == "kata-qemu-snp"
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert kinds == {"configMap", "emptyDir", "projected"}
    assert all(
        "secret" not in source for volume in pod["volumes"] for source in volume.get("projected", {}).get("sources", ())
    )
    verifier, openbao = pod["containers"]
    assert not [word for word in verifier["args"] if word.startswith("--tls")]
    assert "ports" not in openbao
    (raft,) = (each for each in openbao["volumeMounts"] if each["name"] == "raft")
    assert raft["mountPath"] == "/openbao/data"
    assert "raft" not in {each["name"] for each in verifier["volumeMounts"]}
    listeners = re.findall(
        r"^  address += \"([^\"]+)\"", objects["ConfigMap", "morphisms-openbao"]["data"]["openbao.hcl"], re.M
    )
    assert listeners == ["127.0.0.1:8200"]
    for context in (container["securityContext"] for container in pod["containers"]):
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_guests_reach_the_key_server_and_its_vault_by_one_address_and_people_each_replica() -> None:
    objects = _objects("overlays/kms-in-guests")
    service = objects["Service", "morphisms-verifier"]["spec"]
    assert service["sessionAffinity"] == "ClientIP"
    assert [(each["port"], each["targetPort"]) for each in service["ports"]] == [(443, "https"), (8200, "vault")]
    replicas = objects["Service", "morphisms-verifier-replicas"]["spec"]
    assert (replicas["clusterIP"], replicas["publishNotReadyAddresses"]) == ("None", True)
    assert objects["StatefulSet", "morphisms-verifier"]["spec"]["serviceName"] == "morphisms-verifier-replicas"
    named = objects["StatefulSet", "morphisms-verifier"]["spec"]["template"]["spec"]["containers"][0]["ports"]
    ports = {each["name"]: each["containerPort"] for each in named}
    settings = yaml.safe_load(objects["ConfigMap", "morphisms-verifier"]["data"]["verifier.yaml"])
    assert ports["vault"] == settings["provisioning"]["vaultPort"]
    ingress = objects["NetworkPolicy", "morphisms-verifier"]["spec"]["ingress"][0]["ports"]
    assert {each["port"] for each in ingress} == {"https", "vault"}


def test_the_key_servers_configuration_is_accepted_once_it_lists_a_provisioner(tmp_path: Path) -> None:
    data = _objects("overlays/kms-in-guests")["ConfigMap", "morphisms-verifier"]["data"]
    for name, text in data.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError, match="provisioners"):
        load_configuration(tmp_path / "verifier.yaml")
    public = ECKey.generate_key("P-256").as_dict(private=False)
    jwk = {name: str(public[name]) for name in ("kty", "crv", "x", "y")}
    settings = yaml.safe_load(data["verifier.yaml"])
    settings["provisioning"]["provisioners"] = [jwk]
    (tmp_path / "verifier.yaml").write_text(yaml.safe_dump(settings))
    loaded = load_configuration(tmp_path / "verifier.yaml")
    assert loaded.mode == "production"
    assert not loaded.exceptions
    check_key_custody(loaded, date(2026, 1, 1))


def test_the_pages_overlay_of_the_key_server_renders_and_is_clean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/kms.md, step 2, with files of these names, and what step 5 says of `morphisms check`."""
    page = (MANIFESTS.parent / "docs" / "kms.md").read_text()
    block = next(each for each in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "kind: Kustomization" in each)
    overlay = os.path.relpath(MANIFESTS / "overlays" / "kms-in-guests", tmp_path.resolve())
    text = block.replace("https://…/manifests/overlays/kms-in-guests", overlay).replace(
        "sha256:…", "sha256:" + "d" * 64
    )
    assert "…" not in text
    (tmp_path / "kustomization.yaml").write_text(text)
    for each in yaml.safe_load(text)["configMapGenerator"]:
        for name in each["files"]:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("yours\n")
    rendered = tmp_path / "rendered.yaml"
    rendered.write_text(render(tmp_path))
    objects = {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(rendered.read_text())}
    assert objects["ConfigMap", "morphisms-verifier"]["data"]["references.jws"] == "yours\n"
    assert "ark-genoa.pem" in objects["ConfigMap", "morphisms-verifier-certificates"]["data"]
    assert main(["check", "-f", str(rendered), "--mode", "enforce"]) == 0, capsys.readouterr().out


def test_examples_are_yaml() -> None:
    for file in sorted((MANIFESTS / "examples").glob("*.yaml")):
        for item in yaml.safe_load_all(file.read_text()):
            assert {"apiVersion", "kind", "metadata"} <= item.keys()
    done = subprocess.run(["sh", "-n", MANIFESTS / "examples" / "nodes.sh"], check=False)
    assert done.returncode == 0
