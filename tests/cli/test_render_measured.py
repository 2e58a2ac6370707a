"""`morphisms render --cluster`: an ordinary Service becomes one that no host can impersonate, in files to review."""

from __future__ import annotations

import copy
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from attestation.verifier.policies.model import AppraisalPolicy
from cli.knative.pod import pod_of
from cli.knative.settings import read_settings
from cli.main import main
from cli.proof.guest_requests import Host, guest_requests
from cli.support.admission import Admission
from measured.measured_document import differences, document_of_annotation
from measured.pod import INITDATA_ANNOTATION
from tests.cli import rendering
from tests.support.policy_engine import Engine
from webhook.configuration.accepted_templates import AcceptedTemplates
from webhook.configuration.container_template import ContainerTemplate
from webhook.configuration.model import Configuration
from webhook.modes import Mode
from webhook.request import User
from webhook.snapshot import RuntimeClassRecord, Snapshot

CREATOR = User("system:serviceaccount:kube-system:replicaset-controller", ("system:authenticated",))
Pod = dict[str, Any]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered")
    assert main([*rendering.write_inputs(folder), "-o", str(folder / "out")]) == 0
    return folder / "out"


def applied(folder: Path, *, revoked: bool = False, captured: dict[str, Any] | None = None, **changes: str) -> Pod:
    """The pod that Knative makes of the rendered Service and the webhook of a cluster injects, with its name."""
    service = yaml.safe_load((folder / "service.yaml").read_text())
    captured = rendering.cluster() if captured is None else captured
    maps = captured["knative"]["configMaps"]
    template = ContainerTemplate.model_validate(captured["template"])
    # Another configuration is in force by now, with the template of the rendering still accepted.
    configuration = Configuration.model_validate({"sidecar": {"image": "morphisms/sidecar:later"}})
    accepted = AcceptedTemplates({template.digest: template})
    if revoked:
        accepted = AcceptedTemplates(revoked=frozenset([template.digest]), withdrawn=(template,))
    classes = {"kata-qemu-snp": RuntimeClassRecord("kata-qemu-snp", "kata-qemu-snp")}
    snapshot = Snapshot({"shop": Mode.ENFORCE}, runtime_classes=classes, templates=accepted)
    admission = Admission(configuration, snapshot)
    service = admission.copied_down(service, "shop")
    pod, _ = pod_of(service, "shop", read_settings("v1.23.0", "knative-serving", maps))
    pod["metadata"]["annotations"].update(changes)
    admitted = admission.pod(pod, "shop", CREATOR)
    assert admitted.denial is None, admitted.denial
    result = admitted.object
    result["metadata"].update(name=f"{pod['metadata']['generateName']}8487cb4498-nlr9j"[-63:], uid="u")
    result["metadata"]["name"] = f"{pod['metadata']['generateName']}8487cb4498-"[:58] + "nlr9j"
    return result


def test_the_files_are_what_their_readers_need(rendered: Path) -> None:
    text = (rendered / "service.yaml").read_text()
    assert "# Our payments." in text
    assert "name: payments  # a short name" in text
    assert "- name: DB_PASSWORD  # from Vault" in text
    record = yaml.safe_load((rendered / "appraisal.yaml").read_text())
    AppraisalPolicy.model_validate(record)
    assert record["workload"] == {
        "cluster": "cluster",
        "namespace": "shop",
        "service": "payments",
        "serviceAccount": "default",
    }
    assert record["vault"]["mount"] == "jwt-prod"
    service = yaml.safe_load(text)
    document = document_of_annotation(service["spec"]["template"]["metadata"]["annotations"][INITDATA_ANNOTATION])
    assert document is not None
    assert record["hostData"] == [document.initdata.host_data.hex()]
    assert record["document"] == document.initdata.toml.decode()
    assert document.initdata.files["policy.rego"] == (rendered / "policy.rego").read_text()
    security = service["spec"]["template"]["spec"]["containers"][0]["securityContext"]
    assert security == {"runAsUser": 1000, "runAsGroup": 1000}


@pytest.mark.parametrize("seed", range(3))
def test_the_guest_of_the_applied_service_admits_its_pod_and_nothing_else(rendered: Path, seed: int) -> None:
    pod = applied(rendered)
    requests = guest_requests(pod, rendering.CONFIGURATIONS, Host(random.Random(seed)))
    with Engine((rendered / "policy.rego").read_text()) as guest:
        for ask in requests:
            assert guest.ask(ask["kind"], ask["request"]), ask["kind"]
        guest.load((rendered / "policy.rego").read_text())
        foreign = copy.deepcopy(pod)
        foreign["metadata"]["name"] = foreign["metadata"]["name"].replace("payments", "billing")
        requests = guest_requests(foreign, rendering.CONFIGURATIONS, Host(random.Random(seed)))
        assert not all(guest.ask(ask["kind"], ask["request"]) for ask in requests)


def _set(path: str, value: Any) -> Callable[[Pod], None]:
    def change(pod: Pod) -> None:
        *parents, last = path.split("/")
        target: Any = pod
        for step in parents:
            target = target[int(step)] if step.isdigit() else target[step]
        target[int(last) if last.isdigit() else last] = value

    return change


def _append(path: str, value: Any) -> Callable[[Pod], None]:
    def change(pod: Pod) -> None:
        target: Any = pod
        for step in path.split("/"):
            target = target[int(step)] if step.isdigit() else target[step]
        target.append(value)

    return change


OTHER = f"registry.test/other@sha256:{'e' * 64}"
# Of the pod as admitted: morphisms-init, user-container, queue-proxy.
CHANGES: dict[str, Callable[[Pod], None]] = {
    "namespace": _set("metadata/namespace", "evil"),
    "image of the application": _set("spec/containers/0/image", OTHER),
    "image of queue-proxy": _set("spec/containers/1/image", OTHER),
    "image of morphisms-init": _set("spec/initContainers/0/image", OTHER),
    "command": _set("spec/containers/0/command", ["/bin/sh"]),
    "args": _set("spec/containers/0/args", ["--debug"]),
    "working folder": _set("spec/containers/0/workingDir", "/tmp"),
    "a variable more": _append("spec/containers/0/env", {"name": "LD_PRELOAD", "value": "/x.so"}),
    "a variable of queue-proxy": _append("spec/containers/1/env", {"name": "X", "value": "y"}),
    "another value": _set("spec/containers/0/env/0/value", "red"),
    "the plan": _set("spec/initContainers/0/env/0/value", "{}"),
    "user": _set("spec/containers/0/securityContext/runAsUser", 0),
    "group": _set("spec/containers/0/securityContext/runAsGroup", 0),
    "supplemental group": _set("spec/securityContext", {"supplementalGroups": [27]}),
    "file system group": _set("spec/securityContext", {"fsGroup": 1}),
    "capability": _set("spec/containers/0/securityContext/capabilities", {"add": ["SYS_ADMIN"]}),
    "privilege escalation": _set("spec/containers/1/securityContext/allowPrivilegeEscalation", True),
    "writable root": _set("spec/containers/1/securityContext/readOnlyRootFilesystem", False),
    "mount": _append("spec/containers/0/volumeMounts", {"name": "morphisms-token", "mountPath": "/x"}),
    "mount made writable": _set("spec/containers/0/volumeMounts/0/readOnly", False),
    "volume on disk": _set("spec/volumes/0", {"name": "morphisms-secrets", "emptyDir": {}}),
    "host name": _set("spec/hostname", "other"),
    "no init container": _set("spec/initContainers", []),
    "container more": _append("spec/containers", {"name": "evil", "image": OTHER}),
    "termination message": _set("spec/containers/0/terminationMessagePath", "/etc/passwd"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_each_change_is_refused_at_admission_and_by_the_guest(rendered: Path, change: Callable[[Pod], None]) -> None:
    pod = applied(rendered)
    document = document_of_annotation(pod["metadata"]["annotations"][INITDATA_ANNOTATION])
    assert document is not None
    assert differences(pod, document) == []
    change(pod)
    early = differences(pod, document)
    assert early
    images = {**rendering.CONFIGURATIONS, OTHER: {"Entrypoint": ["/other"]}}
    requests = guest_requests(pod, images, Host(random.Random(1)))
    with Engine((rendered / "policy.rego").read_text()) as guest:
        assert not all(guest.ask(ask["kind"], ask["request"]) for ask in requests)


@pytest.mark.parametrize(
    "change",
    [
        _set("spec/containers/0/resources", {"limits": {"cpu": "1"}}),
        _set("spec/containers/1/readinessProbe", {"httpGet": {"port": 8012}}),
        _set("spec/affinity", {}),
        _set("metadata/labels/more", "x"),
        _set("spec/nodeName", "node-1"),
        _set("spec/containers/0/imagePullPolicy", "Always"),
    ],
)
def test_what_no_guest_sees_may_differ(rendered: Path, change: Callable[[Pod], None]) -> None:
    pod = applied(rendered)
    document = document_of_annotation(pod["metadata"]["annotations"][INITDATA_ANNOTATION])
    assert document is not None
    change(pod)
    assert differences(pod, document) == []


def test_the_webhook_denies_a_pod_that_differs_with_the_field(rendered: Path, tmp_path: Path) -> None:
    service = (rendered / "service.yaml").read_text().replace("it's blue", "it's red")
    (tmp_path / "service.yaml").write_text(service)
    with pytest.raises(AssertionError, match=r"isolation/measured-pod.*containers\.user-container\.env\.COLOUR"):
        applied(tmp_path)


def test_the_template_of_the_rendering_has_to_be_accepted(rendered: Path) -> None:
    with pytest.raises(AssertionError, match=r"isolation/measured-pod|secrets/init-container"):
        applied(rendered, **{"morphisms.dev/template": f"sha256:{'0' * 64}"})


def test_a_pod_of_a_revoked_template_is_refused_by_name(rendered: Path) -> None:
    with pytest.raises(AssertionError, match=r"container template sha256:[0-9a-f]{12}….* revoked"):
        applied(rendered, revoked=True)


def test_two_renderings_are_equal_to_the_byte(rendered: Path, tmp_path: Path) -> None:
    """In another process, with another hash seed, time zone and locale."""
    arguments = [*rendering.write_inputs(tmp_path), "-o", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    command = [sys.executable, "-c", "import sys; from cli.main import main; sys.exit(main(sys.argv[1:]))"]
    subprocess.run([*command, *arguments], env=environment, check=True, capture_output=True)
    for name in ("service.yaml", "policy.rego", "appraisal.yaml"):
        assert (tmp_path / "out" / name).read_bytes() == (rendered / name).read_bytes()


def test_check_finds_an_edited_rendering(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = rendering.write_inputs(tmp_path)
    out = tmp_path / "out"
    assert main([*arguments, "-o", str(out)]) == 0
    assert main([*arguments, "--check", str(out)]) == 0
    (out / "policy.rego").write_text(
        (out / "policy.rego").read_text().replace("ExecProcessRequest := false", "x := true")
    )
    capsys.readouterr()
    assert main([*arguments, "--check", str(out)]) == 1
    assert "differs         policy.rego" in capsys.readouterr().err


def test_a_rendered_service_renders_again_to_itself(rendered: Path, tmp_path: Path) -> None:
    arguments = rendering.write_inputs(tmp_path)
    (tmp_path / "service.yaml").write_bytes((rendered / "service.yaml").read_bytes())
    first = yaml.safe_load((rendered / "service.yaml").read_text())
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 0
    again = yaml.safe_load((tmp_path / "out" / "service.yaml").read_text())
    assert again["spec"]["template"]["metadata"]["annotations"].keys() == (
        first["spec"]["template"]["metadata"]["annotations"].keys()
    )


def test_the_summary_says_what_changed_without_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*rendering.write_inputs(tmp_path), "-o", str(tmp_path / "out")]
    assert main(arguments) == 0
    service = (tmp_path / "service.yaml").read_text().replace("it's blue", "it's green").replace("a" * 64, "b" * 64)
    (tmp_path / "service.yaml").write_text(service)
    images = {name.replace("a" * 64, "b" * 64): one for name, one in rendering.CONFIGURATIONS.items()}
    (tmp_path / "images.json").write_text(json.dumps(images))
    capsys.readouterr()
    assert main(arguments) == 0
    said = capsys.readouterr().err
    assert "container user-container: variable COLOUR has another value" in said
    assert f"image sha256:{'a' * 64} becomes sha256:{'b' * 64}" in said
    assert "green" not in said
    assert "HOST_DATA" in said


def test_without_trust_every_output_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = rendering.write_inputs(tmp_path)
    del arguments[arguments.index("--trust") : arguments.index("--trust") + 2]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 0
    assert "without --trust" in capsys.readouterr().err
    assert "without --trust" in (tmp_path / "out" / "appraisal.yaml").read_text()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sidecar", {"image": OTHER}),
        ("verifier", {"url": "https://evil.test"}),
        ("vault", {"url": "https://evil.test"}),
    ],
)
def test_a_capture_that_differs_from_what_is_trusted_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str, value: dict[str, str]
) -> None:
    arguments = rendering.write_inputs(tmp_path)
    captured = rendering.cluster()
    captured["template"][field].update(value)
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(captured))
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 2
    assert f"template.{field}.{next(iter(value))}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_queue_proxy_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = rendering.write_inputs(tmp_path)
    captured = rendering.cluster()
    captured["knative"]["configMaps"]["config-deployment"]["queue-sidecar-image"] = OTHER
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(captured))
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 2
    assert "queue-sidecar-image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (f"@sha256:{'a' * 64}", "", "has no digest; write REPOSITORY@sha256:"),
        ("it's blue", "$(NOWHERE)", "write $$(NOWHERE) for the text itself"),
        ("name: payments ", "name: " + "p" * 53 + " ", "is longer than 52 characters"),
        ("    spec:\n", "    metadata: {name: payments-v1}\n    spec:\n", "is written by render; remove it"),
        ("- name: COLOUR", "- name: HOSTNAME", "is set by the runtime"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_line_to_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, expected: str
) -> None:
    arguments = rendering.write_inputs(tmp_path)
    assert old in rendering.SERVICE
    (tmp_path / "service.yaml").write_text(rendering.SERVICE.replace(old, new))
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 1
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "needs either -o DIR or --check [DIR]"),
        (["-o", "x", "--check", "x"], "needs either"),
        (["-o", "x", "--previous", "AB"], "--previous"),
    ],
)
def test_wrong_options_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert main([*rendering.write_inputs(tmp_path), *arguments]) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("images.json", "{", "is not JSON"),
        ("images.json", '{"app:v1": {}}', "has no digest"),
        ("images.json", "{}", "is not known"),
        ("cluster.yaml", "version: 1\nknative: {version: v1.9.0}\n", "template"),
        ("trust.yaml", "version: 1\n", "guests"),
    ],
)
def test_hostile_and_broken_files_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, expected: str
) -> None:
    arguments = rendering.write_inputs(tmp_path)
    (tmp_path / name).write_text(text)
    assert main([*arguments, "-o", str(tmp_path / "out")]) in (1, 2)
    assert expected in capsys.readouterr().err


def test_old_digests_stay_trusted_during_a_roll_out(tmp_path: Path) -> None:
    old = "ab" * 32
    assert main([*rendering.write_inputs(tmp_path), "-o", str(tmp_path / "out"), "--previous", old]) == 0
    record = yaml.safe_load((tmp_path / "out" / "appraisal.yaml").read_text())
    assert record["hostData"][1:] == [old]
    AppraisalPolicy.model_validate(record)
    for change in (
        {"hostData": [old]},
        {"assurance": "vm"},
        {"workload": {**record["workload"], "service": "billing"}},
        {"document": record["document"] + "\n"},
        {"document": record["document"].replace("ExecProcessRequest := false", "ExecProcessRequest := true")},
        {"document": "x"},
    ):
        with pytest.raises(ValueError, match="document"):
            AppraisalPolicy.model_validate({**record, **change})
