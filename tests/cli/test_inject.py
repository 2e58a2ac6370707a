"""`morphisms inject`: what goes in comes out as the cluster would run it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonpatch
import pytest

from tests.cli.recorded import CANARIES, HOSTILE, Command, cluster, names, pod, recorded, service, write
from webhook.configuration.model import Configuration
from webhook.decide import decide
from webhook.request import Request, User

PODS = names("pods-create-")
WORKLOADS = [*PODS, *names("deployments-create-"), *names("services-create-"), *names("revisions-create-")]
KINDS = {
    "ReplicationController": ("v1", ("spec", "template")),
    "Deployment": ("apps/v1", ("spec", "template")),
    "ReplicaSet": ("apps/v1", ("spec", "template")),
    "StatefulSet": ("apps/v1", ("spec", "template")),
    "DaemonSet": ("apps/v1", ("spec", "template")),
    "Job": ("batch/v1", ("spec", "template")),
    "CronJob": ("batch/v1", ("spec", "jobTemplate", "spec", "template")),
}


def at(item: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        item = item[step]
    return item


def workload(kind: str, template: dict[str, Any]) -> dict[str, Any]:
    version, path = KINDS[kind]
    inner: dict[str, Any] = template
    for step in reversed(path):
        inner = {step: inner}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "app", "namespace": "shop"}, **inner}


@pytest.mark.parametrize("name", PODS)
def test_a_recorded_pod_is_printed_as_the_server_patches_it(name: str, command: Command, tmp_path: Path) -> None:
    item = recorded(name)
    kind, resource = ("", "v1", "Pod"), ("", "v1", "pods")
    namespace = item["metadata"].get("namespace", "default")
    author = User("somebody", ("system:authenticated",))
    request = Request("u", "/mutate/pod", kind, resource, "", "CREATE", "", namespace, author, item)
    expected = jsonpatch.apply_patch(item, list(decide(request, Configuration(), None).operations))

    result = command("inject", "-f", write(tmp_path / "pod.yaml", item))

    assert result.code == 0
    assert result.documents == [expected]


@pytest.mark.parametrize("kind", KINDS)
def test_the_template_of_a_workload_is_rewritten_in_place(kind: str, command: Command, tmp_path: Path) -> None:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": pod()["spec"]}
    item = workload(kind, template)

    [result] = command("inject", "-f", write(tmp_path / "workload.yaml", item)).documents

    rewritten = at(result, KINDS[kind][1])
    assert rewritten["spec"]["runtimeClassName"] == "kata-qemu-snp"
    assert [each["name"] for each in rewritten["spec"]["initContainers"]] == ["morphisms-init"]
    assert rewritten["metadata"]["labels"] == {"app": "web"}
    assert {key: result[key] for key in ("apiVersion", "kind", "metadata")} == {
        key: item[key] for key in ("apiVersion", "kind", "metadata")
    }


def test_injecting_twice_changes_nothing(command: Command, tmp_path: Path) -> None:
    first = command("inject", "-f", write(tmp_path / "a.yaml", recorded("deployments-create-web-by-admin")))
    (tmp_path / "b.yaml").write_text(first.out)
    second = command("inject", "-f", str(tmp_path / "b.yaml"))
    assert second.out == first.out
    assert "unchanged (already-injected)" in second.err


def test_other_documents_pass_in_their_order(command: Command, tmp_path: Path) -> None:
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "on"}}
    ports = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}}

    result = command("inject", "-f", write(tmp_path / "all.yaml", settings, pod(), ports))

    assert result.code == 0
    assert [document["kind"] for document in result.documents] == ["ConfigMap", "Pod", "Service"]
    assert [result.documents[0], result.documents[2]] == [settings, ports]
    assert "initContainers" in result.documents[1]["spec"]


def test_the_items_of_a_list_are_injected(command: Command, tmp_path: Path) -> None:
    bundle = {"apiVersion": "v1", "kind": "List", "items": [pod(), {"apiVersion": "v1", "kind": "Secret"}]}
    [result] = command("inject", "-f", write(tmp_path / "list.yaml", bundle)).documents
    assert "initContainers" in result["items"][0]["spec"]
    assert result["items"][1] == bundle["items"][1]


def test_a_service_gets_the_annotations_of_its_metadata(command: Command, tmp_path: Path) -> None:
    item = service({}, annotations={"morphisms.dev/secret-db": "secret/db#password", "note": "mine"})
    [result] = command("inject", "-f", write(tmp_path / "service.yaml", item)).documents
    assert result["spec"]["template"]["metadata"]["annotations"] == {"morphisms.dev/secret-db": "secret/db#password"}
    assert "initContainers" not in result["spec"]["template"]["spec"]


def test_a_refused_document_is_not_printed_and_the_others_are(command: Command, tmp_path: Path) -> None:
    asks = pod(hostNetwork=True)
    asks["metadata"] = {"name": "refused", "annotations": {"morphisms.dev/inject": "true"}}

    result = command("inject", "-f", write(tmp_path / "two.yaml", asks, pod()))

    assert result.code == 1
    assert [document["metadata"]["name"] for document in result.documents] == ["app"]
    assert "Pod/default/refused: refused: [isolation/host-namespaces]" in result.err


def test_a_refused_item_is_left_out_of_its_list(command: Command, tmp_path: Path) -> None:
    asks = pod(hostNetwork=True)
    asks["metadata"]["annotations"] = {"morphisms.dev/inject": "true"}
    bundle = {"apiVersion": "v1", "kind": "List", "items": [asks, pod()]}
    result = command("inject", "-f", write(tmp_path / "list.yaml", bundle))
    assert result.code == 1
    assert len(result.documents[0]["items"]) == 1


def test_a_service_that_needs_a_command_is_refused_with_the_lines_to_add(command: Command, tmp_path: Path) -> None:
    item = service({"env": [{"name": "PASSWORD", "value": "vault:~/db#password"}]})
    result = command("inject", "-f", write(tmp_path / "service.yaml", item))
    assert (result.code, result.out) == (1, "")
    assert 'Add it (morphisms entrypoint IMAGE prints it), such as command: ["/path/to/program"]' in result.err


@pytest.mark.parametrize("kind", ["Configuration", "Revision"])
def test_hand_written_configurations_and_revisions_are_validated_and_not_changed(
    kind: str, command: Command, tmp_path: Path
) -> None:
    name = "configurations-create-hello-by-controller" if kind == "Configuration" else "revisions-create-hello-00001-by"
    item = recorded(names(name)[0])
    result = command("inject", "-f", write(tmp_path / "item.yaml", item))
    assert result.documents == [item]
    assert f"{kind}/default/" in result.err
    assert "[secrets/plaintext-env]" in result.err


def test_the_mode_of_the_namespace_counts_with_a_snapshot(command: Command, tmp_path: Path) -> None:
    item = pod()
    path = write(tmp_path / "pod.yaml", item)
    results = {
        mode: command("inject", "-f", path, "--snapshot", write(tmp_path / "cluster.yaml", cluster(mode)))
        for mode in (None, "audit", "inject", "enforce")
    }
    assert [results[mode].documents == [item] for mode in results] == [True, True, False, False]
    assert "unchanged (does-not-ask)" in results[None].err
    assert not any("not evaluated" in result.err for result in results.values())


def test_enforce_refuses_a_pod_that_inject_only_warns_about(command: Command, tmp_path: Path) -> None:
    item = pod(shareProcessNamespace=True)
    path = write(tmp_path / "pod.yaml", item)
    mild = command("inject", "-f", path)
    strict = command("inject", "-f", path, "--snapshot", write(tmp_path / "cluster.yaml", cluster("enforce")))
    assert (mild.code, strict.code, strict.out) == (0, 1, "")
    assert "warning: [isolation/process-namespace]" in mild.err
    assert "refused: [isolation/process-namespace]" in strict.err


def test_the_runtime_handler_is_checked_with_a_snapshot(command: Command, tmp_path: Path) -> None:
    snapshot = write(tmp_path / "cluster.yaml", cluster("enforce", handler="runc"))
    result = command("inject", "-f", write(tmp_path / "pod.yaml", pod()), "--snapshot", snapshot)
    assert result.code == 1
    assert "[placement/runtime-handler]" in result.err


def test_without_a_snapshot_it_names_the_rules_that_were_not_evaluated(command: Command, tmp_path: Path) -> None:
    result = command("inject", "-f", write(tmp_path / "pod.yaml", pod()))
    assert "checked as in mode inject; not evaluated: placement/runtime-handler" in result.err


def test_only_a_workloads_own_controller_may_make_pods_with_knatives_labels(command: Command, tmp_path: Path) -> None:
    labels = {"serving.knative.dev/service": "payments"}
    by_hand = pod()
    by_hand["metadata"]["labels"] = labels
    template = {"metadata": {"labels": labels}, "spec": pod()["spec"]}
    results = [
        command("inject", "-f", write(tmp_path / "item.yaml", item)).err
        for item in (by_hand, workload("Deployment", template), workload("Job", template))
    ]
    assert ["[isolation/knative-labels]" in err for err in results] == [True, False, True]


def test_the_configuration_is_used_and_its_errors_name_keys(command: Command, tmp_path: Path) -> None:
    path = write(tmp_path / "pod.yaml", pod())
    good = tmp_path / "good.yaml"
    good.write_text("version: 1\nsidecar: {image: registry.example.com/own@sha256:" + "b" * 64 + "}\n")
    [result] = command("inject", "-f", path, "--config", str(good)).documents
    assert result["spec"]["initContainers"][0]["image"].startswith("registry.example.com/own@")

    bad = tmp_path / "bad.yaml"
    bad.write_text("version: 1\nsidecar: {imagee: hunter2}\n")
    refused = command("inject", "-f", path, "--config", str(bad))
    assert (refused.code, refused.out) == (2, "")
    assert "imagee" in refused.err
    assert "hunter2" not in refused.err


@pytest.mark.parametrize("case", HOSTILE)
def test_unusable_input_is_one_line_and_prints_nothing(case: str, command: Command, tmp_path: Path) -> None:
    (tmp_path / "hostile.yaml").write_bytes(HOSTILE[case])
    result = command("inject", "-f", str(tmp_path / "hostile.yaml"))
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1
    assert result.err.startswith("morphisms inject: ")
    assert "hunter2" not in result.err


def test_one_unusable_document_keeps_all_from_being_printed(command: Command, tmp_path: Path) -> None:
    broken = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "broken"}, "spec": {"containers": "x"}}
    result = command("inject", "-f", write(tmp_path / "two.yaml", pod(), broken))
    assert (result.code, result.out) == (2, "")
    assert "Pod/default/broken" in result.err


def test_a_missing_file_is_unusable(command: Command, tmp_path: Path) -> None:
    result = command("inject", "-f", str(tmp_path / "none.yaml"))
    assert (result.code, result.err.count("\n")) == (2, 1)


@pytest.mark.parametrize("name", WORKLOADS)
def test_messages_and_diffs_never_show_the_authors_values(name: str, command: Command, tmp_path: Path) -> None:
    result = command("inject", "--diff", "-f", write(tmp_path / "item.yaml", recorded(name)))
    assert result.code == 0
    assert not any(canary in result.out + result.err for canary in CANARIES)


def test_a_hostile_name_does_not_reach_the_terminal(command: Command, tmp_path: Path) -> None:
    item = pod()
    item["metadata"]["name"] = "a\x1b[2Jb\nc"
    path = tmp_path / "pod.json"
    path.write_text(json.dumps(item))
    result = command("inject", "-f", str(path), "--diff")
    assert "\x1b" not in result.out + result.err
    assert "Pod/shop/a?[2Jb?c: changed" in result.err
