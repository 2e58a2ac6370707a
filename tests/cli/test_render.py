"""`morphisms render`: the pod of a Service, known offline, and measured."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.cli.recorded import CANARIES, HOSTILE, Command, names, recorded, service, write
from webhook.configuration.model import Configuration
from webhook.decide import decide
from webhook.modes import Mode
from webhook.request import Request, User

INITDATA = "io.katacontainers.config.hypervisor.cc_init_data"
TOML = '''version = "0.1.0"
algorithm = "sha256"

[data]
"policy.rego" = """
package agent_policy
"""
'''
REFERENCES = service({"args": ["--fast"], "env": [{"name": "PASSWORD", "value": "vault:~/db#password"}]})


def plan_of(pod: dict[str, Any]) -> Any:
    [container] = [each for each in pod["spec"]["initContainers"] if each["name"] == "morphisms-init"]
    return json.loads(container["env"][0]["value"])


def test_the_pod_is_injected_and_belongs_to_its_service(command: Command, tmp_path: Path) -> None:
    item = service({"command": ["/app"], "env": [{"name": "PASSWORD", "value": "vault:~/db#password"}]})
    result = command("render", "-f", write(tmp_path / "service.yaml", item))
    [pod] = result.documents
    assert result.code == 0
    assert (pod["apiVersion"], pod["kind"], pod["metadata"]["namespace"]) == ("v1", "Pod", "shop")
    assert pod["metadata"]["labels"]["serving.knative.dev/service"] == "payments"
    assert plan_of(pod)["workload"]["service"] == "payments"
    assert plan_of(pod)["env"][0]["path"] == "secret/knative/cluster/shop/payments/db"
    assert pod["spec"]["runtimeClassName"] == "kata-qemu-snp"


def test_annotations_of_the_services_metadata_count(command: Command, tmp_path: Path) -> None:
    item = service({"ports": [{"containerPort": 8080}]}, annotations={"morphisms.dev/secret-db": "~/db"})
    [pod] = command("render", "-f", write(tmp_path / "service.yaml", item)).documents
    assert plan_of(pod)["secrets"][0]["path"] == "secret/knative/cluster/shop/payments/db"


def test_fields_that_only_a_revision_has_are_left_out(command: Command, tmp_path: Path) -> None:
    item = service({})
    item["spec"]["template"]["spec"] |= {"containerConcurrency": 5, "timeoutSeconds": 77, "idleTimeoutSeconds": 3}
    [pod] = command("render", "-f", write(tmp_path / "service.yaml", item)).documents
    assert pod["spec"].keys().isdisjoint({"containerConcurrency", "timeoutSeconds", "idleTimeoutSeconds"})
    assert pod["spec"]["terminationGracePeriodSeconds"] == 77


@pytest.mark.parametrize(
    ("given", "init", "expected"),
    [
        ([None], [], ["user-container"]),
        ([None, "own", None], [], ["user-container-0", "own", "user-container-1"]),
        (["main", None], [], ["main", "user-container-0"]),
        (["user-container-0", None], [], ["user-container-0", "user-container-1"]),
        ([None], ["user-container"], ["user-container", "user-container-0"]),
        (["a"], [None], ["init-container", "a"]),
        (["a"], [None, "b", None], ["init-container-0", "b", "init-container-1", "a"]),
        (["init-container"], [None], ["init-container-0", "init-container"]),
    ],
)
def test_containers_get_knatives_names(
    given: list[str | None], init: list[str | None], expected: list[str], command: Command, tmp_path: Path
) -> None:
    """As applyDefaultContainerNames of knative.dev/serving does at 98e5ef90: counted, past taken names."""
    item = service({})
    image = item["spec"]["template"]["spec"]["containers"][0]["image"]
    spec = item["spec"]["template"]["spec"]
    spec["containers"] = [{"image": image, **({} if name is None else {"name": name})} for name in given]
    spec["containers"][0]["ports"] = [{"containerPort": 8080}]
    spec["initContainers"] = [{"image": image, **({} if name is None else {"name": name})} for name in init]
    [rendered] = command("render", "-f", write(tmp_path / "service.yaml", item)).documents
    ours = [each["name"] for group in ("initContainers", "containers") for each in rendered["spec"][group]]
    assert [name for name in ours if name != "morphisms-init"] == expected


def test_check_knows_knatives_names(command: Command, tmp_path: Path) -> None:
    item = service({"name": "main", "ports": [{"containerPort": 8080}]})
    template = item["spec"]["template"]
    template["metadata"] = {
        "annotations": {"morphisms.dev/secret-db": "~/db#p", "morphisms.dev/containers": "main,user-container-0"}
    }
    template["spec"]["containers"] += [{"image": template["spec"]["containers"][0]["image"]}]
    result = command("check", "-f", write(tmp_path / "service.yaml", item))
    assert (result.code, result.out) == (0, "")


@pytest.mark.parametrize("name", names("services-create-"))
def test_recorded_services_render_as_the_server_patched_their_pods(name: str, command: Command, tmp_path: Path) -> None:
    result = command("render", "-f", write(tmp_path / "service.yaml", recorded(name)))
    assert result.code == 0
    assert not any(canary in result.err for canary in CANARIES)
    assert "initContainers" in result.documents[0]["spec"]
    assert plan_of(result.documents[0])["workload"]["service"] == recorded(name)["metadata"]["name"]


def test_a_reference_without_a_command_is_refused_without_an_entrypoint(command: Command, tmp_path: Path) -> None:
    result = command("render", "-f", write(tmp_path / "service.yaml", REFERENCES), "--offline")
    assert (result.code, result.out) == (1, "")
    assert "[secrets/references] container user-container gets secrets as env and has no command" in result.err


def test_the_entrypoint_becomes_the_command_and_arguments_stay(command: Command, tmp_path: Path) -> None:
    words = ("--entrypoint", "java", "--entrypoint=-jar", "--entrypoint", "app.jar")
    result = command("render", "-f", write(tmp_path / "service.yaml", REFERENCES), *words)
    [container] = result.documents[0]["spec"]["containers"]
    helper = ["/morphisms/run/exec", "user-container", "--"]
    assert container["command"] == [*helper, "java", "-jar", "app.jar", "--fast"]
    assert "entrypoint set in user-container" in result.err


def test_the_entrypoint_goes_to_containers_that_need_one(command: Command, tmp_path: Path) -> None:
    item = service({"name": "web", "ports": [{"containerPort": 8080}], "command": ["/web"]})
    reference = [{"name": "PASSWORD", "value": "vault:~/db#password"}]
    item["spec"]["template"]["spec"]["containers"] += [{"name": "plain", "image": "b"}]
    item["spec"]["template"]["spec"]["containers"] += [{"name": "taker", "image": "c", "env": reference}]
    [pod] = command("render", "-f", write(tmp_path / "s.yaml", item), "--entrypoint", "/taker").documents
    commands = {each["name"]: each.get("command") for each in pod["spec"]["containers"]}
    assert commands == {
        "web": ["/web"],
        "plain": None,
        "taker": ["/morphisms/run/exec", "taker", "--", "/taker"],
    }


def test_env_from_needs_an_entrypoint_too(command: Command, tmp_path: Path) -> None:
    item = service({}, annotations={"morphisms.dev/env-from": "~/db"})
    path = write(tmp_path / "service.yaml", item)
    assert command("render", "-f", path).code == 1
    [pod] = command("render", "-f", path, "--entrypoint", "/app").documents
    assert pod["spec"]["containers"][0]["command"][-1] == "/app"


def test_a_service_with_a_command_needs_no_entrypoint(command: Command, tmp_path: Path) -> None:
    result = command("render", "-f", write(tmp_path / "service.yaml", service({})), "--entrypoint", "/app")
    assert "no entrypoint is needed" in result.err
    assert "command" not in result.documents[0]["spec"]["containers"][0]


@pytest.mark.parametrize("mode", list(Mode))
def test_a_measured_pod_is_accepted_unchanged(mode: Mode, command: Command, tmp_path: Path) -> None:
    (tmp_path / "initdata.toml").write_text(TOML)
    path = write(tmp_path / "service.yaml", REFERENCES)
    result = command("render", "-f", path, "--entrypoint", "/app", "--initdata", str(tmp_path / "initdata.toml"))
    [pod] = result.documents

    assert gzip.decompress(base64.b64decode(pod["metadata"]["annotations"][INITDATA])).decode() == TOML
    assert f"HOST_DATA {hashlib.sha256(TOML.encode()).hexdigest()}\n" in result.err
    controller = User("system:serviceaccount:kube-system:replicaset-controller")
    for path in ("/mutate/pod", "/validate/pod"):
        names = ("", "v1", "Pod"), ("", "v1", "pods")
        request = Request("u", path, *names, "", "CREATE", "", "shop", controller, pod)
        decision = decide(request, Configuration(), None, offline_mode=mode)
        assert decision.allowed
        assert not decision.operations
        assert not decision.violations


def test_an_older_document_in_the_template_is_replaced(command: Command, tmp_path: Path) -> None:
    (tmp_path / "initdata.toml").write_text(TOML)
    item = service({})
    item["spec"]["template"]["metadata"] = {"annotations": {INITDATA: "old"}}
    path = write(tmp_path / "service.yaml", item)
    [pod] = command("render", "-f", path, "--initdata", str(tmp_path / "initdata.toml")).documents
    assert gzip.decompress(base64.b64decode(pod["metadata"]["annotations"][INITDATA])).decode() == TOML
    assert command("render", "-f", path).code == 1


def test_a_document_that_admission_would_refuse_is_not_rendered(command: Command, tmp_path: Path) -> None:
    """Well formed, and longer than all annotations together may be."""
    noise = random.Random(7).randbytes(300_000).hex()
    (tmp_path / "initdata.toml").write_text(f'{TOML}"noise" = "{noise}"\n')
    path = write(tmp_path / "service.yaml", service({}))
    result = command("render", "-f", path, "--initdata", str(tmp_path / "initdata.toml"))
    assert (result.code, result.out) == (1, "")
    assert "refused: [isolation/initdata]" in result.err
    assert "HOST_DATA" not in result.err


@pytest.mark.parametrize(
    ("annotation", "spec"), [({"morphisms.dev/inject": "false"}, {}), ({}, {"nodeName": "plain-0"})]
)
def test_a_pod_that_would_run_unprotected_is_not_rendered(
    annotation: dict[str, str], spec: dict[str, str], command: Command, tmp_path: Path
) -> None:
    item = service({}, annotations=annotation)
    item["spec"]["template"]["spec"] |= spec
    (tmp_path / "initdata.toml").write_text(TOML)
    path = write(tmp_path / "service.yaml", item)
    for options in ((), ("--initdata", str(tmp_path / "initdata.toml"))):
        result = command("render", "-f", path, *options)
        assert (result.code, result.out) == (1, "")
        assert "refused: the " in result.err
        assert "HOST_DATA" not in result.err


@pytest.mark.parametrize(
    "content",
    [b"hunter2", b'version = "hunter2"', b"\xff", TOML.replace("package", "x").encode()],
    ids=["text", "version", "bytes", "policy"],
)
def test_unusable_initdata_is_one_line(content: bytes, command: Command, tmp_path: Path) -> None:
    (tmp_path / "initdata.toml").write_bytes(content)
    path = write(tmp_path / "service.yaml", service({}))
    result = command("render", "-f", path, "--initdata", str(tmp_path / "initdata.toml"))
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert "hunter2" not in result.err


def test_initdata_belongs_to_one_service(command: Command, tmp_path: Path) -> None:
    (tmp_path / "initdata.toml").write_text(TOML)
    path = write(tmp_path / "two.yaml", service({}), service({}))
    result = command("render", "-f", path, "--initdata", str(tmp_path / "initdata.toml"))
    assert (result.code, result.out) == (2, "")


def test_one_refused_service_does_not_hide_the_others(command: Command, tmp_path: Path) -> None:
    result = command("render", "-f", write(tmp_path / "two.yaml", REFERENCES, service({})))
    assert (result.code, len(result.documents)) == (1, 1)


def test_a_file_without_a_service_is_unusable(command: Command, tmp_path: Path) -> None:
    ports = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {}}
    result = command("render", "-f", write(tmp_path / "ports.yaml", ports))
    assert (result.code, result.err.count("\n")) == (2, 1)


@pytest.mark.parametrize("case", HOSTILE)
def test_unusable_input_is_one_line_and_prints_nothing(case: str, command: Command, tmp_path: Path) -> None:
    (tmp_path / "hostile.yaml").write_bytes(HOSTILE[case])
    result = command("render", "-f", str(tmp_path / "hostile.yaml"))
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert "hunter2" not in result.err


def test_the_namespace_of_a_service_that_names_none(command: Command, tmp_path: Path) -> None:
    item = service({})
    del item["metadata"]["namespace"]
    path = write(tmp_path / "service.yaml", item)
    guessed, said = command("render", "-f", path), command("render", "-f", path, "--namespace", "shop")
    assert [each.documents[0]["metadata"]["namespace"] for each in (guessed, said)] == ["default", "shop"]
    assert ("assumed" in guessed.err, "assumed" in said.err) == (True, False)


ATTEST = f"{{signer: {{kty: EC, crv: P-256, x: {'A' * 43}, y: {'B' * 43}}}, minSerial: 3}}"


@pytest.mark.parametrize("name", ["render", "inject"])
def test_a_plan_that_demands_the_verifiers_proof_is_of_version_2(command: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / "webhook.yaml").write_text(f"verifier: {{attest: {ATTEST}}}\n")
    item = service({"ports": [{"containerPort": 8080}]}, annotations={"morphisms.dev/secret-db": "~/db"})
    if name == "inject":
        item = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "payments", "namespace": "shop"}} | {
            "spec": {"containers": [{"name": "app", "image": "registry.example/app@sha256:" + "0" * 64}]}
        }
        item["metadata"]["annotations"] = {"morphisms.dev/inject": "true", "morphisms.dev/secret-db": "secret/shop/db"}
    result = command(name, "-f", write(tmp_path / "item.yaml", item), "--config", str(tmp_path / "webhook.yaml"))
    assert result.code == 0, result.err
    [pod] = result.documents
    plan = plan_of(pod)
    assert (plan["version"], plan["verifier"]["attest"]["minSerial"]) == (2, 3)
    assert ("never against the control plane" in result.err) == (name == "render")
