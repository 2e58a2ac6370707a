"""What the pages tell people to write and to run is there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.guards import GUARDS
from tests.manifests.rendering import MANIFESTS, render, rendered
from tests.support import packages
from webhook.configuration_file import load_configuration

_DOCS = MANIFESTS.parent / "docs"
_PAGES = {name: (_DOCS / f"{name}.md").read_text() for name in ("install", "operations", "gitops")}


def _blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", _PAGES[page], re.DOTALL)


def _object(kind: str, name: str) -> dict[str, Any]:
    (found,) = (each for each in rendered("install.yaml") if each["kind"] == kind and each["metadata"]["name"] == name)
    return found


def _yaml(page: str, kind: str) -> dict[str, Any]:
    documents = [yaml.safe_load(block) for block in _blocks(page, "yaml")]
    (found,) = (each for each in documents if each.get("kind") == kind)
    return dict(found)


@pytest.mark.parametrize("page", _PAGES)
def test_folders_and_files_that_are_named_exist(page: str) -> None:
    for path in set(re.findall(r"manifests/[a-z0-9/.-]+[a-z]", _PAGES[page])):
        assert (MANIFESTS.parent / path).exists(), path
    for name in re.findall(r"`((?:base|overlays|components)(?:/[a-z-]+)?)`", _PAGES[page]):
        assert (MANIFESTS / name / "kustomization.yaml").exists(), name


@pytest.mark.parametrize("page", _PAGES)
def test_shell_blocks_parse(page: str) -> None:
    for block in _blocks(page, "sh"):
        assert subprocess.run(["sh", "-n"], input=block, text=True, check=False).returncode == 0, block


def test_every_guard_and_overlay_is_on_the_page() -> None:
    for each in rendered("install.yaml"):
        if each["kind"] == "ValidatingAdmissionPolicy":
            assert f"| `{each['metadata']['name'].removesuffix('.morphisms.dev')}` |" in _PAGES["install"]
    for folder in (*(MANIFESTS / "overlays").iterdir(), *(MANIFESTS / "components").iterdir()):
        assert f"`{folder.parent.name}/{folder.name}`" in _PAGES["install"], folder


def test_the_ports_on_the_page_are_those_of_the_policies() -> None:
    (table,) = re.findall(r"## What the network must let through.*?\n\n(\|.*?)\n\n", _PAGES["install"], re.DOTALL)
    named = set(re.findall(r"\b\d+\b", table))
    objects = [*rendered("install.yaml"), *rendered("install-verifier.yaml")]
    containers = [each["spec"]["template"]["spec"]["containers"][0] for each in objects if each["kind"] == "Deployment"]
    numbers = {port["name"]: port["containerPort"] for each in containers for port in each["ports"]}
    policies = [each["spec"] for each in objects if each["kind"] == "NetworkPolicy"]
    rules = [rule for spec in policies for rule in (*spec.get("ingress", ()), *spec.get("egress", ()))]
    # The last row is a component's.
    assert {str(numbers.get(port["port"], port["port"])) for rule in rules for port in rule["ports"]} | {
        "9090"
    } == named


def test_argo_cd_ignores_what_others_write_and_nothing_else() -> None:
    differences = _yaml("gitops", "Application")["spec"]["ignoreDifferences"]
    found = {(each["kind"], each["name"]): each for each in differences}
    for (kind, name), each in found.items():
        item = _object(kind, name)
        group = item["apiVersion"].rpartition("/")[0]
        assert each.get("group", "") == group
        assert each.get("namespace") == item["metadata"].get("namespace")
        for pointer in each.get("jsonPointers", ()):
            *parents, last = pointer.strip("/").split("/")
            for part in parents:
                item = item[part]
            assert last not in item, "what the manifests set is not to be ignored"
    bundles = {key for key, each in found.items() if "jqPathExpressions" in each}
    assert bundles == {(f"{word}WebhookConfiguration", "morphisms") for word in ("Mutating", "Validating")}
    secrets = {each["metadata"]["name"] for each in rendered("install.yaml") if each["kind"] == "Secret"}
    assert {name for kind, name in found if kind == "Secret"} == secrets


@pytest.mark.skipif(shutil.which("jq") is None, reason=packages.without("jq"))
def test_the_paths_are_what_jq_takes_for_paths() -> None:
    registration = _object("MutatingWebhookConfiguration", "morphisms")
    for webhook in registration["webhooks"]:
        webhook["clientConfig"]["caBundle"] = "bundle"
    application = _yaml("gitops", "Application")["spec"]["ignoreDifferences"][0]
    without = _deleted(registration, application["jqPathExpressions"][0])
    assert without == _object("MutatingWebhookConfiguration", "morphisms")

    (services,) = (each for each in map(yaml.safe_load, _blocks("gitops", "yaml")) if "ignoreDifferences" in each)
    expression = services["ignoreDifferences"][0]["jqPathExpressions"][0]
    service = {"spec": {"template": {"metadata": {"annotations": {"morphisms.dev/inject": "true", "note": "x"}}}}}
    assert _deleted(service, expression) == {"spec": {"template": {"metadata": {"annotations": {"note": "x"}}}}}
    bare: dict[str, Any] = {"spec": {"template": {"spec": {}}}}
    assert _deleted(bare, expression) == bare


def _deleted(item: dict[str, Any], path: str) -> Any:
    """As Argo CD takes it out before it compares."""
    command = ["jq", f"del({path})"]
    done = subprocess.run(command, input=json.dumps(item), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_flux_is_told_of_objects_that_exist() -> None:
    release = _yaml("gitops", "HelmRelease")["spec"]["driftDetection"]["ignore"]
    for each in release:
        assert _object(each["target"]["kind"], each["target"]["name"])
    assert _yaml("gitops", "Kustomization")["spec"]["path"] == "./morphisms-here"


@pytest.mark.parametrize("page", _PAGES)
def test_commands_and_tools_name_an_overlay_of_the_readers_own_never_the_base(page: str) -> None:
    """The base holds placeholder images and the default configuration: applying it would undo an installation."""
    named = re.findall(r"(?:kubectl [^\n`]*-k|(?<!{)\bpath:) +([^\s,`]+)", _PAGES[page])
    assert named or page != "gitops"
    folders = {name.removeprefix("./") for name in named if not name.startswith("/")}
    assert folders <= {"morphisms-here", "verifier-here", "manifests/overlays/openbao-dev"}, folders
    for name in folders - {"manifests/overlays/openbao-dev"}:
        assert f"# {name}/kustomization.yaml" in _PAGES["install"]


def _write_overlays(folder: Path) -> None:
    """As the page says, beside the clone."""
    (folder / "morphisms").symlink_to(MANIFESTS.parent)
    for block in _blocks("install", "yaml"):
        if (match := re.match(r"# (\S+/\S+?)[,;\s]", block)) is not None:
            (folder / match[1]).parent.mkdir(exist_ok=True)
            (folder / match[1]).write_text(block)


def test_commands_of_the_page_that_need_no_cluster_work_in_the_folders_that_it_names(tmp_path: Path) -> None:
    _write_overlays(tmp_path)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    lines = [line for block in _blocks("install", "sh") for line in block.splitlines()]
    issuing, guarding = (
        [line for line in lines if line.startswith(f"morphisms {command} ")] for command in ("certificates", "guards")
    )
    assert len(issuing) == 2
    assert len(guarding) == 1
    subprocess.run(["sh", "-ec", "\n".join(issuing)], cwd=tmp_path, env=environment, check=True, capture_output=True)
    file = tmp_path / "morphisms-here" / "configuration.yaml"
    pem = (tmp_path / "ca" / "ca.crt").read_text()
    text, count = re.subn(
        r"    -----BEGIN.*\n    ….*\n", "".join(f"    {line}\n" for line in pem.splitlines()), file.read_text()
    )
    assert count == 1
    file.write_text(text)
    subprocess.run(["sh", "-ec", guarding[0]], cwd=tmp_path, env=environment, check=True, capture_output=True)
    configuration = load_configuration(file).value
    assert (configuration.cluster, configuration.verifier.ca) == ("prod", pem)
    with (file.parent / "kustomization.yaml").open("a") as kustomization:
        kustomization.write("components: [../morphisms/manifests/components/cluster-guards]\n")
        kustomization.write("patches: [{path: guards.yaml}]\n")
    rendered_guards = {
        each["metadata"]["name"]
        for each in yaml.safe_load_all(render(file.parent))
        if each["kind"] == "ValidatingAdmissionPolicy"
    }
    assert rendered_guards >= {f"{name}.morphisms.dev" for name in GUARDS}
    # The verifier's, with the files that the page says to write.
    verifier = tmp_path / "verifier-here"
    shutil.copy(MANIFESTS / "base" / "verifier" / "verifier.yaml", verifier)
    for name in re.findall(
        r"[\w./-]+\.(?:json|yaml)", (verifier / "kustomization.yaml").read_text().partition("configMap")[2]
    ):
        (verifier / name).parent.mkdir(exist_ok=True)
        if not (verifier / name).exists():
            (verifier / name).write_text("{}\n")
    data = {
        each["metadata"]["name"]: set(each["data"])
        for each in yaml.safe_load_all(render(verifier))
        if each["kind"] == "ConfigMap"
    }
    assert data["morphisms-verifier"] >= {"verifier.yaml", "jwks.json"}
    assert "kata.yaml" in data["morphisms-verifier-guests"]
    assert "prod.shop.payments.yaml" in data["morphisms-verifier-policies"]


def test_the_overlay_on_the_page_builds_with_the_readers_images_and_configuration(tmp_path: Path) -> None:
    _write_overlays(tmp_path)
    objects = [each for each in yaml.safe_load_all(render(tmp_path / "morphisms-here")) if each]
    (deployment,) = (each for each in objects if each["kind"] == "Deployment")
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image.startswith("registry.example/morphisms/webhook@sha256:")
    (config,) = (
        each for each in objects if each["kind"] == "ConfigMap" and each["metadata"]["name"] == "morphisms-webhook"
    )
    assert yaml.safe_load(config["data"]["configuration.yaml"])["cluster"] == "prod"


@pytest.mark.parametrize("overlay", ["openbao-dev", "kms-in-guests"])
def test_removing_admission_leaves_the_verifier_its_permissions_and_its_guard(overlay: str) -> None:
    """What the page deletes by label is admission's: without readBack every pod that attests again would hang."""
    admission = {(item["kind"], item["metadata"]["name"]) for item in rendered("install.yaml")}
    objects = list(yaml.safe_load_all(render(MANIFESTS / "overlays" / overlay)))
    (block,) = re.findall(r"## Remove.*?```sh\n(.*?)```", _PAGES["operations"], re.DOTALL)
    deleted = set()
    for kinds, selector in re.findall(r"^kubectl delete (\S+) -l (\S+)$", block, re.MULTILINE):
        named = [item for item in objects if item["kind"].lower() in kinds.split(",")]
        deleted |= {(item["kind"], item["metadata"]["name"]) for item in named if _selects(selector, item)}
    assert deleted <= admission
    # A selector that picks nothing would pass too.
    assert overlay != "openbao-dev" or ("ClusterRole", "morphisms-webhook") in deleted


def _selects(selector: str, item: dict[str, Any]) -> bool:
    labels = item["metadata"].get("labels", {})
    requirements = [re.fullmatch(r"([^!=]+)(!?=)([^!=]+)", part) for part in selector.split(",")]
    return all(each and (labels.get(each[1]) == each[3]) == (each[2] == "=") for each in requirements)
