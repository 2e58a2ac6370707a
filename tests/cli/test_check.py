"""`morphisms check`: what an author has to change, in three formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.cli.recorded import CANARIES, HOSTILE, Command, cluster, names, pod, recorded, service, write
from webhook.rules import POD

EVERYTHING = [
    *names("pods-create-"),
    *names("services-create-"),
    *names("configurations-create-"),
    *names("revisions-create-"),
    *names("deployments-create-"),
]


def found(command: Command, path: str, *options: str) -> list[tuple[str, str]]:
    """(rule, field) of every violation."""
    document = json.loads(command("check", "-f", path, "-o", "json", *options).out)
    return [(each["rule"], each["field"]) for each in document["violations"]]


def test_a_pod_that_injection_completes_has_no_violation(command: Command, tmp_path: Path) -> None:
    result = command("check", "-f", write(tmp_path / "pod.yaml", pod(), service({})))
    assert (result.code, result.out) == (0, "")
    assert result.err == "2 objects, 0 violations (0 of them denied); not evaluated: placement/runtime-handler\n"


def test_a_line_names_file_object_rule_and_field(command: Command, tmp_path: Path) -> None:
    path = write(tmp_path / "pod.yaml", pod(hostPID=True))
    result = command("check", "-f", path)
    message = "remove hostPID: a confidential pod cannot share a namespace with its host"
    assert result.code == 1
    assert result.out == f"{path}: Pod/shop/app: [isolation/host-namespaces] {message} (spec.hostPID)\n"


def test_the_recorded_payments_service_has_its_three_violations(command: Command, tmp_path: Path) -> None:
    path = write(tmp_path / "service.yaml", recorded("services-create-payments-by-dev"))
    container = "spec.template.spec.containers[0]"
    applied = "metadata.annotations[kubectl.kubernetes.io/last-applied-configuration]"
    assert found(command, path) == [
        ("secrets/plaintext-env", f"{container}.env[0]"),
        ("secrets/kubernetes-secret-env", f"{container}.env[2]"),
        ("secrets/last-applied", applied),
    ]


def test_fields_are_the_authors_not_those_of_the_rewritten_pod(command: Command, tmp_path: Path) -> None:
    path = write(tmp_path / "service.yaml", recorded("services-create-multi-by-dev"))
    fields = [field for _, field in found(command, path)]
    assert "spec.template.spec.initContainers[0].env[0]" in fields

    item = pod()
    item["spec"]["containers"][0]["env"] = [
        {"name": "MOVED", "value": "vault:secret/db#password"},
        {"name": "KEPT", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
    ]
    moved = write(tmp_path / "pod.yaml", item)
    assert found(command, moved) == [("secrets/kubernetes-secret-env", "spec.containers[0].env[1]")]


@pytest.mark.parametrize(
    ("kind", "version", "path"),
    [
        ("Deployment", "apps/v1", ("spec", "template")),
        ("StatefulSet", "apps/v1", ("spec", "template")),
        ("CronJob", "batch/v1", ("spec", "jobTemplate", "spec", "template")),
        ("Configuration", "serving.knative.dev/v1", ("spec", "template")),
        ("Revision", "serving.knative.dev/v1", ()),
    ],
)
def test_every_workloads_template_is_checked(
    kind: str, version: str, path: tuple[str, ...], command: Command, tmp_path: Path
) -> None:
    item: dict[str, Any] = {"spec": pod(hostIPC=True)["spec"]}
    for step in reversed(path):
        item = {step: item}
    item = {"apiVersion": version, "kind": kind, "metadata": {"name": "a"}, **item}
    prefix = "".join(f"{step}." for step in path)
    file = write(tmp_path / "item.yaml", item)
    assert found(command, file) == [("isolation/host-namespaces", f"{prefix}spec.hostIPC")]


def test_a_deployments_own_last_applied_configuration_is_read(command: Command, tmp_path: Path) -> None:
    applied = json.dumps({"spec": {"env": [{"name": "DB_PASSWORD", "value": "hunter2"}]}})
    item = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "a", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": applied}},
        "spec": {"template": {"spec": pod()["spec"]}},
    }
    [(rule, field)] = found(command, write(tmp_path / "item.yaml", item))
    assert (rule, field.split("[")[0]) == ("secrets/last-applied", "metadata.annotations")


def test_a_services_own_annotations_are_checked(command: Command, tmp_path: Path) -> None:
    item = service({}, annotations={"morphisms.dev/profile": "none-such"})
    assert ("placement/profile", "spec.template.metadata.annotations[morphisms.dev/profile]") in found(
        command, write(tmp_path / "service.yaml", item)
    )


def test_image_tags_are_accepted_in_knative_services_only(command: Command, tmp_path: Path) -> None:
    tagged = pod()
    tagged["spec"]["containers"][0]["image"] = "example.com/app:v1"
    assert found(command, write(tmp_path / "pod.yaml", tagged)) == [("images/digest", "spec.containers[0].image")]
    assert found(command, write(tmp_path / "service.yaml", service({"image": "example.com/app:v1"}))) == []


def test_a_folder_is_searched_and_other_kinds_are_skipped(command: Command, tmp_path: Path) -> None:
    (tmp_path / "deep" / ".hidden").mkdir(parents=True)
    write(tmp_path / "deep" / "a.yml", pod(hostPID=True))
    (tmp_path / "deep" / "b.json").write_text(json.dumps(pod(hostIPC=True)))
    write(tmp_path / "c.yaml", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}})
    write(tmp_path / "deep" / ".hidden" / "d.yaml", pod(hostNetwork=True))
    (tmp_path / "notes.txt").write_text("hunter2")
    result = command("check", "-f", str(tmp_path))
    assert [line.split(": ")[0] for line in result.out.splitlines()] == [
        str(tmp_path / "deep" / "a.yml"),
        str(tmp_path / "deep" / "b.json"),
    ]
    assert result.err.startswith("2 objects, 2 violations")


def test_an_empty_folder_is_unusable(command: Command, tmp_path: Path) -> None:
    assert command("check", "-f", str(tmp_path)).code == 2


def test_a_rule_that_enforce_ignores_is_left_out(command: Command, tmp_path: Path) -> None:
    path = write(tmp_path / "pod.yaml", pod(shareProcessNamespace=True, hostPID=True))
    rules = {"isolation/process-namespace": {"enforce": "ignore"}, "isolation/host-namespaces": {"audit": "ignore"}}
    (tmp_path / "config.yaml").write_text(json.dumps({"version": 1, "rules": rules}))
    violations = found(command, path, "--config", str(tmp_path / "config.yaml"))
    assert violations == [("isolation/host-namespaces", "spec.hostPID")]


def test_a_rule_that_only_records_says_so(command: Command, tmp_path: Path) -> None:
    path = write(tmp_path / "pod.yaml", pod(shareProcessNamespace=True))
    (tmp_path / "config.yaml").write_text("version: 1\nrules: {isolation/process-namespace: {enforce: record}}\n")
    result = command("check", "-f", path, "--config", str(tmp_path / "config.yaml"), "-o", "json")
    document = json.loads(result.out)
    assert result.code == 1
    assert document["violations"][0]["action"] == "record"
    counts = document["summary"]
    assert [counts[name] for name in ("objects", "violations", "denied", "exempt")] == [1, 1, 0, 0]


def test_the_mode_of_the_namespace_counts_with_a_snapshot(command: Command, tmp_path: Path) -> None:
    path = write(tmp_path / "pod.yaml", pod(shareProcessNamespace=True))
    actions = {}
    for mode in (None, "audit", "inject", "enforce"):
        snapshot = write(tmp_path / "cluster.yaml", cluster(mode))
        document = json.loads(command("check", "-f", path, "-o", "json", "--snapshot", snapshot).out)
        actions[mode] = [each["action"] for each in document["violations"]]
        assert document["notEvaluated"] == []
        assert document["summary"]["exempt"] == (mode is None)
    assert actions == {None: [], "audit": ["record"], "inject": ["record"], "enforce": ["deny"]}


def test_a_pod_that_opts_out_is_exempt_unless_the_mode_is_enforce(command: Command, tmp_path: Path) -> None:
    item = pod(hostPID=True)
    item["metadata"]["annotations"] = {"morphisms.dev/inject": "false"}
    path = write(tmp_path / "pod.yaml", item)
    mild = command("check", "-f", path, "--snapshot", write(tmp_path / "cluster.yaml", cluster("inject")))
    assert mild.code == 0
    assert "1 objects are outside the policy" in mild.err
    assert command("check", "-f", path).code == 1


def test_the_runtime_handler_is_checked_with_a_snapshot(command: Command, tmp_path: Path) -> None:
    snapshot = write(tmp_path / "cluster.yaml", cluster("enforce", handler="runc"))
    rules = [rule for rule, _ in found(command, write(tmp_path / "pod.yaml", pod()), "--snapshot", snapshot)]
    assert rules == ["placement/runtime-handler"]


def test_json_has_the_documented_shape(command: Command, tmp_path: Path) -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
    path = write(tmp_path / "two.yaml", config, pod(hostPID=True))
    document = json.loads(command("check", "-f", path, "-o", "json").out)
    message = "remove hostPID: a confidential pod cannot share a namespace with its host"
    assert document == {
        "version": 1,
        "violations": [
            {
                "file": path,
                "line": 6,
                "kind": "Pod",
                "namespace": "shop",
                "name": "app",
                "rule": "isolation/host-namespaces",
                "severity": "critical",
                "action": "deny",
                "field": "spec.hostPID",
                "message": message,
            }
        ],
        "notes": [],
        "notEvaluated": ["placement/runtime-handler"],
        "excepted": [],
        "notChecked": [{"apiVersion": "v1", "kind": "ConfigMap", "objects": 1, "withPod": 0}],
        "skippedFiles": [],
        "summary": {
            "objects": 1,
            "violations": 1,
            "denied": 1,
            "excepted": 0,
            "exempt": 0,
            "notChecked": 1,
            "skippedFiles": 0,
            "namespaceGuessed": 0,
        },
    }


def test_sarif_is_valid(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The members that the SARIF 2.1.0 schema requires, and the constraints that it puts on those that we write."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my manifests").mkdir()
    items = [recorded(name) for name in EVERYTHING]
    write(tmp_path / "my manifests" / "all.yaml", *items, pod(hostPID=True))
    result = command("check", "-f", "my manifests", "-o", "sarif")
    log = json.loads(result.out)

    assert log["version"] == "2.1.0"
    assert urlsplit(log["$schema"]).path.endswith("sarif-schema-2.1.0.json")
    [run] = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert run["tool"]["driver"]["name"] == "morphisms"
    assert [rule["id"] for rule in rules] == [rule.id for rule in POD]
    for rule in rules:
        assert rule["shortDescription"]["text"]
        assert rule["defaultConfiguration"]["level"] in ("error", "warning", "note")
        assert 0 < float(rule["properties"]["security-severity"]) <= 10
    [invocation] = run["invocations"]
    assert invocation["executionSuccessful"] is True
    for notification in invocation["toolExecutionNotifications"]:
        assert notification["message"]["text"]
        assert rules[notification["associatedRule"]["index"]]["id"] == notification["associatedRule"]["id"]
    assert run["columnKind"] in ("utf16CodeUnits", "unicodeCodePoints")
    assert {each["level"] for each in run["results"]} == {"error", "warning"}
    for each in run["results"]:
        assert rules[each["ruleIndex"]]["id"] == each["ruleId"]
        assert each["level"] == rules[each["ruleIndex"]]["defaultConfiguration"]["level"]
        assert each["message"]["text"]
        [location] = each["locations"]
        artifact = location["physicalLocation"]["artifactLocation"]
        assert artifact["uri"] == "my%20manifests/all.yaml"
        assert artifact["uriBaseId"] in run["originalUriBaseIds"]
        assert location["physicalLocation"]["region"]["startLine"] >= 1
        assert location["logicalLocations"][0]["fullyQualifiedName"]


def test_sarif_has_one_result_per_violation(command: Command, tmp_path: Path) -> None:
    path = write(tmp_path / "item.yaml", recorded("services-create-multi-by-dev"))
    results = json.loads(command("check", "-f", path, "-o", "sarif").out)["runs"][0]["results"]
    assert [each["ruleId"] for each in results] == [rule for rule, _ in found(command, path)]
    assert len(results) > 3


def test_sarif_paths_are_relative_to_the_folder_of_the_run(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "pod.yaml", pod(hostPID=True))
    [result] = json.loads(command("check", "-f", path, "-o", "sarif").out)["runs"][0]["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "pod.yaml"


@pytest.mark.parametrize("output", ["text", "json", "sarif"])
@pytest.mark.parametrize("name", EVERYTHING)
def test_no_format_shows_the_authors_values(name: str, output: str, command: Command, tmp_path: Path) -> None:
    result = command("check", "-f", write(tmp_path / "item.yaml", recorded(name)), "-o", output)
    assert result.code in (0, 1)
    assert not any(canary in result.out + result.err for canary in CANARIES)


@pytest.mark.parametrize("case", HOSTILE)
def test_unusable_input_is_one_line_and_prints_nothing(case: str, command: Command, tmp_path: Path) -> None:
    (tmp_path / "hostile.yaml").write_bytes(HOSTILE[case])
    for path in (tmp_path / "hostile.yaml", tmp_path):
        result = command("check", "-f", str(path))
        assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
        assert "hunter2" not in result.err


def test_mode_is_what_that_mode_would_do_in_this_cluster(command: Command, tmp_path: Path) -> None:
    path = write(tmp_path / "pod.yaml", pod(shareProcessNamespace=True))
    for mode, actions in {"audit": ["record"], "inject": ["record"], "enforce": ["deny"]}.items():
        for of_cluster in (None, "audit", "enforce"):
            snapshot = write(tmp_path / "cluster.yaml", cluster(of_cluster))
            result = command("check", "-f", path, "-o", "json", "--snapshot", snapshot, "--mode", mode)
            document = json.loads(result.out)
            assert [each["action"] for each in document["violations"]] == actions
            assert (result.code, document["notEvaluated"], document["summary"]["exempt"]) == (1, [], 0)
    assert command("check", "-f", path, "--mode", "audit").code == 1


def test_mode_does_not_bring_an_opt_out_back_or_take_it_away(command: Command, tmp_path: Path) -> None:
    item = pod(hostPID=True)
    item["metadata"]["annotations"] = {"morphisms.dev/inject": "false"}
    path = write(tmp_path / "pod.yaml", item)
    assert [command("check", "-f", path, "--mode", mode).code for mode in ("audit", "inject", "enforce")] == [0, 0, 1]


ROLLOUT = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "Rollout",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {"template": {"spec": pod(hostNetwork=True)["spec"]}},
}


def test_a_kind_that_is_unchecked_is_counted_and_named(command: Command, tmp_path: Path) -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
    path = write(tmp_path / "all.yaml", ROLLOUT, config, config, pod())
    result = command("check", "-f", path)
    assert (result.code, result.out) == (0, "")
    assert (
        f"{path}: Rollout/shop/web: not checked, but it has a pod template; check the pods that it makes\n"
        in result.err
    )
    assert "1 objects, 0 violations (0 of them denied); not checked: 1 Rollout, 2 ConfigMap; " in result.err
    document = json.loads(command("check", "-f", path, "-o", "json").out)
    assert document["notChecked"] == [
        {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "objects": 1, "withPod": 1},
        {"apiVersion": "v1", "kind": "ConfigMap", "objects": 2, "withPod": 0},
    ]
    assert document["summary"]["notChecked"] == 3


def test_foreign_files_of_a_folder_are_skipped_and_counted(command: Command, tmp_path: Path) -> None:
    write(tmp_path / "pod.yaml", pod(hostPID=True))
    (tmp_path / "values.yaml").write_text("password: hunter2\n")
    (tmp_path / "template.yaml").write_text("apiVersion: v1\nkind: {{ .Values.kind }}\nname: {{ hunter2 }}\n")
    (tmp_path / "empty.yaml").write_text("# hunter2\n")
    (tmp_path / "package.json").write_text('{"private": "hunter2"}')
    result = command("check", "-f", str(tmp_path), "-o", "json")
    document = json.loads(result.out)
    assert (result.code, len(document["violations"])) == (1, 1)
    assert document["summary"]["skippedFiles"] == 4
    reasons = {Path(each["file"]).name: each["reason"] for each in document["skippedFiles"]}
    none = "no Kubernetes object"
    assert reasons == {
        "empty.yaml": none, "package.json": none, "values.yaml": none, "template.yaml": "a template; render it first",
    }  # fmt: skip
    assert "skipped files: 4" in result.err
    assert "hunter2" not in result.err + result.out


@pytest.mark.parametrize("broken", ["kind: Pod\n  x: 1\n", "apiVersion: v1\nkind: Pod\nkind: Pod\n", None])
def test_a_broken_manifest_in_a_folder_is_not_skipped(broken: str | None, command: Command, tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", pod())
    text = yaml.safe_dump(pod()) + "---\nkind: Pod\n" if broken is None else broken
    (tmp_path / "b.yaml").write_text(text)
    result = command("check", "-f", str(tmp_path))
    assert (result.code, result.out) == (2, "")


@pytest.mark.parametrize("name", ["check", "inject"])
def test_the_namespace_of_objects_that_name_none(name: str, command: Command, tmp_path: Path) -> None:
    item = pod(hostNetwork=True)
    del item["metadata"]["namespace"]
    path = write(tmp_path / "pod.yaml", item)
    snapshot = write(tmp_path / "cluster.yaml", cluster("enforce"))
    guessed = command(name, "-f", path, "--snapshot", snapshot)
    said = command(name, "-f", path, "--snapshot", snapshot, "-n", "shop")
    assert (guessed.code, said.code) == (0, 1)
    assert "1 object names no namespace; `default` was assumed: say it with --namespace\n" in guessed.err
    assert "assumed" not in said.err
    own = write(tmp_path / "own.yaml", pod(hostNetwork=True))
    assert command(name, "-f", own, "--snapshot", snapshot, "-n", "other").code == 1, "the object's own counts"


@pytest.mark.parametrize("name", ["check", "inject"])
@pytest.mark.parametrize(
    ("namespaces", "options", "listed"),
    [
        (["shop"], (), ""),
        (["shpo"], (), "namespace shpo, which counts"),
        ([None], ("-n", "shpo"), "namespace shpo, which counts"),
        ([None], (), "namespace default, which counts"),
        (["test", "shop", "dev", "test"], (), "namespaces dev, test, which count"),
        (["sh\x1bpo"], (), "namespace sh?po, which counts"),
    ],
)
def test_a_mistyped_namespace_is_told_from_one_without_a_mode(
    name: str,
    namespaces: list[str | None],
    options: tuple[str, ...],
    listed: str,
    command: Command,
    tmp_path: Path,
) -> None:
    items = [pod() for _ in namespaces]
    for item, namespace in zip(items, namespaces, strict=True):
        item["metadata"]["namespace"] = namespace
    path = write(tmp_path / "pod.yaml", *items)
    snapshot = write(tmp_path / "cluster.yaml", cluster("enforce"))
    result = command(name, "-f", path, "--snapshot", snapshot, *options)
    message = f"the snapshot does not list {listed} as without a mode: add the Namespace, or say --namespace\n"
    assert (message in result.err) if listed else ("does not list" not in result.err)
    assert "does not list" not in command(name, "-f", path, *options).err
    if name == "check":
        assert "does not list" not in command(name, "-f", path, "--snapshot", snapshot, "--mode", "audit", *options).err


def test_a_namespace_that_cannot_be_one_is_refused(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        command("check", "-n", "Shop/x")
    assert exit_.value.code == 2
    assert "write one such as shop" in capsys.readouterr().err


def _with(values: list[str], annotations: dict[str, str] | None = None) -> dict[str, Any]:
    item = pod()
    item["metadata"]["annotations"] = annotations or {}
    item["spec"]["containers"][0]["env"] = [{"name": f"V{n}", "value": value} for n, value in enumerate(values)]
    return item


@pytest.mark.parametrize("mode", [None, "audit", "inject", "enforce"])
def test_a_pod_that_opted_in_before_and_does_not_now_is_listed(
    command: Command, tmp_path: Path, mode: str | None
) -> None:
    options = ["--snapshot", write(tmp_path / "cluster.yaml", cluster(mode))] if mode else []
    bare = write(tmp_path / "bare.yaml", _with(["vault:secret/shop/db#password"]))
    result = command("check", "-f", bare, *options)
    assert result.code == 0
    assert result.out.startswith(f"{bare}: Pod/shop/app: note: [annotations] Vault references alone do not opt in")
    (note,) = json.loads(command("check", "-f", bare, "-o", "json", *options).out)["notes"]
    assert (note["file"], note["object"]) == (bare, "Pod/shop/app")
    for others in (
        _with(["vault:secret/shop/db#password"], {"morphisms.dev/inject": "true"}),
        _with(["vault:secret/shop/db#password"], {"morphisms.dev/inject": "false"}),
        _with(["vault:secret/shop/db#password"], {"vault.security.banzaicloud.io/vault-addr": "https://vault:8200"}),
        _with(["vault:1.15", "vault:8200"]),
    ):
        path = write(tmp_path / "other.yaml", others)
        assert "alone do not opt in" not in command("check", "-f", path, *options).out


def test_annotations_that_do_nothing_are_noted_where_a_namespace_has_no_mode(command: Command, tmp_path: Path) -> None:
    snapshot = write(tmp_path / "cluster.yaml", cluster(None))
    path = write(tmp_path / "pod.yaml", _with([], {"morphisms.dev/injct": "true", "morphisms.dev/profile": "kata"}))
    result = command("check", "-f", path, "--snapshot", snapshot)
    assert result.code == 0
    assert "did you mean inject?" in result.out
    assert "[placement/profile]" in result.out
    wrong = write(tmp_path / "wrong.yaml", _with([], {"morphisms.dev/inject": "True"}))
    refused = command("check", "-f", wrong, "--snapshot", snapshot)
    assert refused.code == 1
    assert 'neither "true" nor "false"' in refused.out


def test_text_that_starts_with_vault_is_no_reference(command: Command, tmp_path: Path) -> None:
    """Chart values such as an image or a host's name."""
    values = ["vault:1.6.0", "vault:8200"]
    assert found(command, write(tmp_path / "pod.yaml", _with(values))) == []
    assert found(command, write(tmp_path / "told.yaml", _with(values, {"morphisms.dev/inject": "true"}))) == []
    forgotten = _with(["vault:secret/shop/db"], {"morphisms.dev/inject": "true"})
    assert ("secrets/references", "spec.containers[0].env[0]") in found(command, write(tmp_path / "f.yaml", forgotten))


def test_a_metrics_port_does_not_make_an_exporter_the_application(command: Command, tmp_path: Path) -> None:
    item = _with([], {"morphisms.dev/secret-db": "secret/shop/db#password"})
    exporter = {"name": "exporter", "image": f"vendor.example/exporter@sha256:{'b' * 64}"}
    item["spec"]["containers"].append({**exporter, "ports": [{"name": "metrics", "containerPort": 9187}]})
    result = command("check", "-f", write(tmp_path / "pod.yaml", item))
    assert result.code == 1
    assert "annotate morphisms.dev/containers: app,exporter" in result.out
    item["metadata"]["annotations"]["morphisms.dev/containers"] = "app"
    assert command("check", "-f", write(tmp_path / "pod.yaml", item)).code == 0


def test_an_unnamed_init_container_keeps_the_name_that_knative_gives_it(command: Command, tmp_path: Path) -> None:
    """Knative counts the containers of the author; morphisms-init comes to the pod later."""
    item = service({})
    template = item["spec"]["template"]
    template["spec"]["initContainers"] = [{"image": template["spec"]["containers"][0]["image"]}]
    template["metadata"] = {
        "annotations": {
            "morphisms.dev/secret-db": "~/db#password",
            "morphisms.dev/containers": "init-container,user-container",
        }
    }
    assert command("check", "-f", write(tmp_path / "service.yaml", item)).code == 0


def test_sarif_carries_the_notes(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    item = pod()
    item["spec"]["containers"][0]["env"] = [{"name": "A", "value": "vault:secret/db#a"}]
    write(tmp_path / "pod.yaml", item)
    (run,) = json.loads(command("check", "-f", "pod.yaml", "-o", "sarif", "--mode", "audit").out)["runs"]
    notes = [
        each
        for each in run["invocations"][0]["toolExecutionNotifications"]
        if each["message"]["text"].startswith("Pod/shop/app: [annotations] Vault references alone do not opt in")
    ]
    assert [each["level"] for each in notes] == ["note"]
    (place,) = notes[0]["locations"]
    assert place["physicalLocation"]["artifactLocation"]["uri"] == "pod.yaml"


def test_a_token_in_an_annotation_of_the_service_itself_is_found(command: Command, tmp_path: Path) -> None:
    """Its pods do not inherit it, and etcd keeps it as well."""
    item = service({})
    item["metadata"]["annotations"] = {"team.example/hook": "Authorization: Bearer abcdefghijklmnop12345678", "a": "b"}
    item["spec"]["template"]["metadata"] = {"annotations": {"team.example/dsn": "amqp://app:s3cr3t@mq/"}}
    assert found(command, write(tmp_path / "service.yaml", item)) == [
        ("secrets/plaintext-fields", "metadata.annotations[team.example/hook]"),
        ("secrets/plaintext-fields", "spec.template.metadata.annotations[team.example/dsn]"),
    ]
