"""`morphisms render --cluster` of a Pod, a Deployment and a StatefulSet, the key server's among them."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from attestation.verifier.policies.model import AppraisalPolicy
from cli.main import main
from cli.proof.guest_requests import Host, guest_requests, start
from cli.support.admission import Admission
from measured.measured_document import MeasuredDocument, differences, document_of_annotation
from measured.pod import INITDATA_ANNOTATION
from tests.cli import kinds, rendering
from tests.support.policy_engine import Engine
from webhook.admission.namespace_workloads import workloads_in
from webhook.configuration.model import Configuration
from webhook.scanner.made_pod import made_pod
from webhook.snapshot import Listing

KINDS: Final = ("Pod", "Deployment", "StatefulSet")
Object = dict[str, Any]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder per kind, and the key server's."""
    folder = tmp_path_factory.mktemp("kinds")
    items = {**{kind: kinds.workload(kind) for kind in KINDS}, "key server": kinds.key_server()}
    for kind, item in items.items():
        arguments = kinds.write_inputs(folder / kind, item)
        assert main([*arguments, "-o", str(folder / kind / "out")]) == 0, kind
    return {kind: folder / kind / "out" for kind in items}


def applied(folder: Path, ordinal: int = 0) -> Object:
    """The pod of the rendered workload, admitted, as its node gets it."""
    admitted = kinds.admitted(*kinds.made(yaml.safe_load((folder / "workload.yaml").read_text()), ordinal))
    assert admitted.denial is None, admitted.denial
    pod = admitted.object
    pod["metadata"]["uid"] = "a37d6d4a-eeed-4bb4-9bad-12fde8aef03f"
    return pod


def document(pod: Object) -> MeasuredDocument:
    found = document_of_annotation(pod["metadata"]["annotations"][INITDATA_ANNOTATION])
    assert found is not None
    return found


def passes(folder: Path, pod: Object, seed: int = 1) -> bool:
    """Whether the guest of the rendering carries out everything that an honest host asks for the pod."""
    requests = guest_requests(pod, kinds.CONFIGURATIONS, Host(random.Random(seed)))
    with Engine((folder / "policy.rego").read_text()) as guest:
        return all(guest.ask(ask["kind"], ask["request"]) for ask in requests)


@pytest.mark.parametrize("kind", [*KINDS, "key server"])
def test_the_pod_that_its_controller_makes_is_the_one_that_was_measured(rendered: dict[str, Path], kind: str) -> None:
    pod = applied(rendered[kind])
    assert differences(pod, document(pod)) == []
    assert all(passes(rendered[kind], pod, seed) for seed in range(2))


def test_each_pod_of_a_stateful_set_has_its_own_name(rendered: dict[str, Path]) -> None:
    folder = rendered["StatefulSet"]
    assert passes(folder, applied(folder, 12))
    pod = applied(folder)
    for name in ("payments-00", "payments-x", "payments-", "billing-0", "payments-0-1", "xpayments-0"):
        other = copy.deepcopy(pod)
        other["metadata"]["name"] = other["spec"]["hostname"] = name
        assert differences(other, document(pod)), name
        assert not passes(folder, other), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_workloads_name_travels_in_its_document(rendered: dict[str, Path], kind: str) -> None:
    record = yaml.safe_load((rendered[kind] / "appraisal.yaml").read_text())
    AppraisalPolicy.model_validate(record)
    workload = {"cluster": "cluster", "namespace": "shop", "service": "payments", "serviceAccount": "payments"}
    assert record["workload"] == workload
    (plan,) = (one["value"] for one in applied(rendered[kind])["spec"]["initContainers"][0]["env"])
    assert '"service":"payments"' in plan
    assert "secret/knative/cluster/shop/payments/db" in plan


def test_people_name_the_service_that_a_workload_is(tmp_path: Path) -> None:
    arguments = kinds.write_inputs(tmp_path, kinds.workload("Deployment", "payments-v2"))
    trust = {**rendering.trust(), "workloads": {"shop/Deployment/payments-v2": "payments"}}
    (tmp_path / "trust.yaml").write_text(yaml.safe_dump(trust))
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 0
    assert yaml.safe_load((tmp_path / "out" / "appraisal.yaml").read_text())["workload"]["service"] == "payments"
    assert passes(tmp_path / "out", applied(tmp_path / "out"))


def test_without_a_document_a_workload_has_no_name(rendered: dict[str, Path]) -> None:
    """An annotation or label of the author's makes no service of a Deployment."""
    item = yaml.safe_load((rendered["Deployment"] / "workload.yaml").read_text())
    del item["spec"]["template"]["metadata"]["annotations"][INITDATA_ANNOTATION]
    assert "does not belong to a Knative Service" in str(kinds.admitted(*kinds.made(item)).denial)


def test_a_command_that_a_workload_lacks_is_its_images(tmp_path: Path) -> None:
    """Its variables come from Vault, so that the container needs one, and Kubernetes knows no image's entrypoint."""
    item = kinds.workload("Deployment")
    item["spec"]["template"]["spec"]["containers"][0]["command"] = []
    assert main([*kinds.write_inputs(tmp_path, item), "-o", str(tmp_path / "out")]) == 0
    pod = applied(tmp_path / "out")
    assert differences(pod, document(pod)) == []
    assert pod["spec"]["containers"][0]["command"][-1] == "/app"


def _set(path: str, value: Any) -> Callable[[Object], None]:
    def change(spec: Object) -> None:
        *parents, last = path.split("/")
        target: Any = spec
        for step in parents:
            target = target[int(step)] if step.isdigit() else target[step]
        target[int(last) if last.isdigit() else last] = value

    return change


OTHER: Final = f"registry.test/other@sha256:{'e' * 64}"
# Of the pod's spec, as its author could change it after the rendering; morphisms-init is not there yet.
CHANGES: Final[dict[str, tuple[Callable[[Object], None], str]]] = {
    "image": (_set("containers/0/image", OTHER), "image"),
    "command": (_set("containers/0/command", ["/bin/sh"]), r"containers\.app\.args"),
    "another value": (_set("containers/0/env/1/value", "red"), r"containers\.app\.env\.COLOUR"),
    "another secret": (_set("containers/0/env/0/value", "vault:~/admin#password"), r"morphisms-init\.env"),
    "init container": (_set("initContainers/0/args", ["drop"]), r"containers\.first\.args"),
    "host name": (_set("hostname", "other"), r"pod\.hostname"),
    "account": (_set("serviceAccountName", "other"), r"workload\.serviceAccount"),
    "volume in memory": (_set("volumes/0/emptyDir", {"medium": "Memory"}), r"mounts\./scratch\.from"),
}


@pytest.mark.parametrize(("change", "field"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_workload_that_is_changed_after_its_rendering_is_denied_with_the_field(
    rendered: dict[str, Path], kind: str, change: Callable[[Object], None], field: str
) -> None:
    item = yaml.safe_load((rendered[kind] / "workload.yaml").read_text())
    change(item["spec"] if kind == "Pod" else item["spec"]["template"]["spec"])
    pod, user = kinds.made(item)
    denial = str(kinds.admitted(pod, user).denial)
    if kind == "StatefulSet" and "hostname" in field:
        assert pod["spec"]["hostname"] == "payments-0", "its controller writes the host name itself"
        assert denial == "None"
        return
    assert "isolation/measured-pod" in denial
    assert re.search(field, denial), denial


def test_a_changed_pod_is_refused_by_its_guest_too(rendered: dict[str, Path]) -> None:
    """Where the host takes no notice of the webhook: each change of a pod as its node gets it."""
    images = {**kinds.CONFIGURATIONS, OTHER: {"Entrypoint": ["/other"]}}
    folder = rendered["StatefulSet"]
    policy, honest = (folder / "policy.rego").read_text(), applied(folder)
    mounts = honest["spec"]["containers"][0]["volumeMounts"]
    place = next(index for index, mount in enumerate(mounts) if mount["name"] == "scratch")
    changes = {
        "image": _set("spec/containers/0/image", OTHER),
        "wrapped command": _set("spec/containers/0/command", ["/bin/sh"]),
        "plan": _set("spec/initContainers/0/env/0/value", "{}"),
        "init container": _set("spec/initContainers/1/args", ["drop"]),
        "morphisms-init left out": lambda pod: pod["spec"]["initContainers"].pop(0),
        "host name": _set("spec/hostname", "other"),
        "namespace": _set("metadata/namespace", "evil"),
        "user": _set("spec/containers/0/securityContext/runAsUser", 0),
        "mount": lambda pod: pod["spec"]["containers"][0]["volumeMounts"].pop(place),
    }
    with Engine(policy) as guest:
        for name, change in changes.items():
            pod = copy.deepcopy(honest)
            change(pod)
            guest.load(policy)
            requests = guest_requests(pod, images, Host(random.Random(1)))
            assert not all(guest.ask(ask["kind"], ask["request"]) for ask in requests), name


def test_the_key_servers_document_goes_into_the_reference_values(rendered: dict[str, Path], tmp_path: Path) -> None:
    folder = rendered["key server"]
    assert sorted(path.name for path in folder.iterdir()) == ["guest.yaml", "policy.rego", "workload.yaml"]
    guest = yaml.safe_load((folder / "guest.yaml").read_text())
    pod = applied(folder)
    assert guest == {"hostData": [document(pod).initdata.host_data.hex()]}
    assert [one["name"] for one in document(pod).data["containers"]] == ["verifier", "openbao"]
    assert document(pod).data["workload"] is None
    assert "initContainers" not in pod["spec"]
    # The references that name the digest are in a ConfigMap, and what a ConfigMap holds is not measured.
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"references.jws": "x"}}
    arguments = kinds.write_inputs(tmp_path, config_map, kinds.key_server())
    assert main([*arguments, "-o", str(tmp_path / "out"), "--previous", "ab" * 32]) == 0
    again = yaml.safe_load((tmp_path / "out" / "guest.yaml").read_text())
    assert again == {"hostData": [*guest["hostData"], "ab" * 32]}


def test_a_rendered_workload_passes_the_check_that_people_run(rendered: dict[str, Path], tmp_path: Path) -> None:
    """Offline, where the cluster's container templates are not known; a StatefulSet's claims are its pods' volumes."""
    for kind, folder in rendered.items():
        assert main(["check", "-f", str(folder / "workload.yaml"), "--mode", "enforce"]) == 0, kind
    changed = yaml.safe_load((rendered["key server"] / "workload.yaml").read_text())
    del changed["spec"]["volumeClaimTemplates"]
    (tmp_path / "changed.yaml").write_text(yaml.safe_dump(changed))
    assert main(["check", "-f", str(tmp_path / "changed.yaml"), "--mode", "enforce"]) == 1


def test_a_rendered_workload_is_no_finding_of_a_scan_or_of_a_stricter_mode(rendered: dict[str, Path]) -> None:
    for kind, folder in rendered.items():
        item = yaml.safe_load((folder / "workload.yaml").read_text())
        namespace = item["metadata"]["namespace"]
        made = made_pod(item).object
        made["metadata"] = {**made["metadata"], "namespace": namespace}
        assert "isolation/measured-pod" not in str(kinds.admitted(made, kinds.made(item)[1]).denial), kind
        snapshot, listing = kinds.cluster_of(namespace), Listing(item["kind"], (item,))
        (found,) = workloads_in(listing, namespace, kinds.LATER, snapshot)
        violations = found.violations(kinds.LATER, namespace, snapshot)
        assert "isolation/measured-pod" not in {each.rule.id for each in violations}, (kind, violations)


KEY_SERVER_CHANGES: Final[dict[str, Callable[[Object], None]]] = {
    "another verifier": _set("containers/0/image", OTHER),
    "another configuration": _set("containers/0/args/2", "/tmp/verifier.yaml"),
    "a variable": _set("containers/1/env", [{"name": "BAO_LOG_LEVEL", "value": "trace"}]),
    "openbao with a shell": _set("containers/1/command", ["sh"]),
    "a container beside them": lambda spec: spec["containers"].append({"name": "x", "image": OTHER}),
    "root": _set("securityContext/runAsUser", 0),
    "the volume elsewhere": _set("containers/1/volumeMounts/1/mountPath", "/openbao/file"),
    "a read-only volume": _set("containers/1/volumeMounts/1/readOnly", True),
    "the state on a disk": _set("volumes/5/emptyDir", {}),
}


@pytest.mark.parametrize("change", KEY_SERVER_CHANGES.values(), ids=KEY_SERVER_CHANGES)
def test_a_changed_key_server_is_refused_by_the_webhook_and_by_its_guest(
    rendered: dict[str, Path], change: Callable[[Object], None]
) -> None:
    folder = rendered["key server"]
    item = yaml.safe_load((folder / "workload.yaml").read_text())
    change(item["spec"]["template"]["spec"])
    pod, user = kinds.made(item)
    denial = str(kinds.admitted(pod, user).denial)
    assert "isolation/measured-pod" in denial, denial
    honest = applied(folder)
    pod["metadata"] = honest["metadata"]
    images = {**kinds.CONFIGURATIONS, OTHER: {"Entrypoint": ["/other"]}}
    requests = guest_requests(pod, images, Host(random.Random(1)))
    with Engine((folder / "policy.rego").read_text()) as guest:
        assert not all(guest.ask(ask["kind"], ask["request"]) for ask in requests)


def _claim(item: Object) -> None:
    item["spec"]["volumeClaimTemplates"] = [{"metadata": {"name": "scratch"}, "spec": {}}]


def _template(path: str, value: Any) -> Callable[[Object], None]:
    return _set(f"spec/template/spec/{path}", value)


INDEX: Final = {"fieldRef": {"fieldPath": "metadata.labels['apps.kubernetes.io/pod-index']"}}


@pytest.mark.parametrize(
    ("kind", "change", "expected"),
    [
        ("Deployment", _template("enableServiceLinks", True), "spec.enableServiceLinks: adds variables of the host's"),
        ("Deployment", _template("containers/0/image", "registry.test/app:v1"), "has no digest; write REPOSITORY@"),
        ("Deployment", _set("metadata/name", "p" * 64), "longer than 63 characters"),
        ("Deployment", _set("metadata", {"namespace": "shop"}), "is missing, or longer"),
        ("Deployment", _set("spec/template/metadata/annotations", {"morphisms.dev/inject": "false"}), "opted-out"),
        ("StatefulSet", _set("metadata/name", "p" * 58), "longer than 57 characters"),
        ("StatefulSet", _claim, "persistentVolumeClaim brings the host's content or device"),
        (
            "StatefulSet",
            _template("containers/0/env/1", {"name": "INDEX", "valueFrom": INDEX}),
            "is the host's to choose",
        ),
        ("Pod", _set("metadata", {"generateName": "payments-", "namespace": "shop"}), "is missing, or longer"),
        ("Pod", _set("spec/hostNetwork", True), "spec.hostNetwork: remove hostNetwork"),
    ],
)
def test_what_cannot_be_measured_of_a_workload_is_refused_with_the_line_to_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, change: Callable[[Object], None], expected: str
) -> None:
    item = kinds.workload(kind)
    change(item)
    assert main([*kinds.write_inputs(tmp_path, item), "-o", str(tmp_path / "out")]) == 1
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([kinds.workload("Pod"), kinds.workload("Deployment")], "holds 2 of Knative's Service, Pod, Deployment"),
        ([{**kinds.workload("Deployment"), "kind": "DaemonSet"}], "holds 0 of"),
        ([{**kinds.workload("Deployment"), "apiVersion": "example.test/v1"}], "holds 0 of"),
    ],
)
def test_a_file_holds_one_workload_of_a_kind_that_can_be_rendered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], items: list[Object], expected: str
) -> None:
    assert main([*kinds.write_inputs(tmp_path, *items), "-o", str(tmp_path / "out")]) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    "workloads",
    [{"payments": "x"}, {"shop/DaemonSet/payments": "x"}, {"shop/Pod/payments": "x/y"}, {"shop/Pod/payments": ""}],
)
def test_a_mistyped_workload_in_trust_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], workloads: dict[str, str]
) -> None:
    arguments = kinds.write_inputs(tmp_path, kinds.workload("Pod"))
    (tmp_path / "trust.yaml").write_text(yaml.safe_dump({**rendering.trust(), "workloads": workloads}))
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 2
    assert "workloads" in capsys.readouterr().err


def test_a_rendered_workload_renders_again_to_itself(rendered: dict[str, Path], tmp_path: Path) -> None:
    for kind, folder in rendered.items():
        item = yaml.safe_load((folder / "workload.yaml").read_text())
        arguments = kinds.write_inputs(tmp_path / kind, item)
        assert main([*arguments, "-o", str(tmp_path / kind / "out")]) == 0
        for path in folder.glob("*.yaml"):
            again = (tmp_path / kind / "out" / path.name).read_text()
            assert list(yaml.safe_load_all(again)) == list(yaml.safe_load_all(path.read_text())), path.name
        assert (tmp_path / kind / "out" / "policy.rego").read_text() == (folder / "policy.rego").read_text()


def _reads(folder: Path, pod: Object) -> set[tuple[str, str]]:
    """(request, container) of what the host of the running pod may read."""
    found = set()
    host = Host(random.Random(1))
    with Engine((folder / "policy.rego").read_text()) as guest:
        for ask in start(pod, kinds.CONFIGURATIONS, host):
            assert guest.ask(ask["kind"], ask["request"])
        for name, id_ in host.ids.items():
            if guest.ask("ReadStreamRequest", {"container_id": id_, "exec_id": id_, "len": 32768}):
                found.add(("logs", name))
            for kind in ("termination_log", "other"):
                if guest.ask("GetDiagnosticDataRequest", {"container_id": id_, "log_type": kind}):
                    found.add((kind, name))
    return found


def test_the_host_reads_the_output_of_the_containers_that_the_author_names(
    rendered: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    always = {("termination_log", "morphisms-init")}
    assert _reads(rendered["Deployment"], applied(rendered["Deployment"])) == always
    item = kinds.workload("Deployment")
    annotations = {"morphisms.dev/readable-logs": "app, first", "morphisms.dev/readable-termination": "app"}
    item["spec"]["template"]["metadata"]["annotations"] = annotations
    assert main([*kinds.write_inputs(tmp_path, item), "-o", str(tmp_path / "out")]) == 0
    assert "host reads      app: its logs, its termination message" in capsys.readouterr().err
    pod = applied(tmp_path / "out")
    assert differences(pod, document(pod)) == []
    assert _reads(tmp_path / "out", pod) == always | {("logs", "app"), ("logs", "first"), ("termination_log", "app")}


def test_the_key_servers_log_can_be_shipped(rendered: dict[str, Path]) -> None:
    folder = rendered["key server"]
    assert _reads(folder, applied(folder)) == {("logs", "verifier")}


@pytest.mark.parametrize(
    ("value", "expected"),
    [("ap", "names ap, which is no container of the pod"), ("app;first", "is not a comma list of container names")],
)
def test_a_container_that_is_mistyped_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str, expected: str
) -> None:
    item = kinds.workload("Pod")
    item["metadata"]["annotations"] = {"morphisms.dev/readable-logs": value}
    assert main([*kinds.write_inputs(tmp_path, item), "-o", str(tmp_path / "out")]) == 1
    assert expected in capsys.readouterr().err


def test_without_a_document_the_host_reads_all_and_a_warning_says_so() -> None:
    item = kinds.workload("Pod")
    item["metadata"]["annotations"] = {"morphisms.dev/readable-logs": "app", "morphisms.dev/inject": "true"}
    item["spec"]["containers"][0]["env"] = []
    pod, user = kinds.made(item)
    warnings = Admission(Configuration()).pod(pod, "shop", user).warnings
    assert any("readable-logs has no effect on a pod that was not rendered" in line for line in warnings), warnings
