"""`audit` and `preflight` as commands: what they ask a cluster for, what they print, and how they exit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from tests.cli.audit.found import IMAGE, PASSWORD, deployment
from tests.cli.live.conftest import Run
from tests.cli.live.stand_in import SYSTEM, StandIn, ready
from tests.support.done import Done
from tests.webhook.server.control_plane import write_kubeconfig

Json = dict[str, Any]
PLAINTEXT: Json = {"env": [{"name": "DB_PASSWORD", "value": PASSWORD}]}


def _shop(*items: Json) -> StandIn:
    cluster = ready()
    cluster.add("shop", "audit", *items)
    return cluster


def test_audit_exits_by_what_it_finds(run: Run) -> None:
    assert run(_shop(deployment("shop", "web")), "audit").code == 0
    bad = _shop(deployment("shop", "web", PLAINTEXT))
    assert run(bad, "audit").code == 1
    assert run(bad, "audit", "--fail-on", "critical").code == 0
    assert run(ready(), "audit", "-n", "none").code == 2


def test_no_answer_is_exit_code_3(tmp_path: Path) -> None:
    kubeconfig = write_kubeconfig(tmp_path, "http://127.0.0.1:1")  # which the kernel gives to nobody
    for command in (("audit",), ("preflight", "shop")):
        assert main([command[0], "--kubeconfig", str(kubeconfig), *command[1:]]) == 3


def test_neither_command_writes_and_neither_reads_a_secret(run: Run) -> None:
    cluster = _shop(deployment("shop", "web"))
    run(cluster, "audit", "-A")
    assert {method for method, _ in cluster.asked} == {"GET"}
    run(cluster, "preflight", "shop")
    assert {path for method, path in cluster.asked if method != "GET"} == {"/api/v1/namespaces/shop/pods"}
    assert not any("secrets" in path for _, path in cluster.asked)


def test_audit_looks_at_labelled_namespaces_unless_told_otherwise(run: Run) -> None:
    cluster = _shop(deployment("shop", "web"))
    cluster.add("lab", None, deployment("lab", "web", hostPID=True))
    cluster.add("kube-system", None, deployment("kube-system", "dns", hostPID=True))
    names = [each["name"] for each in json.loads(run(cluster, "audit", "-o", "json").out)["namespaces"]]
    assert names == ["shop"]
    everything = json.loads(run(cluster, "audit", "-A", "-o", "json").out)
    assert [each["name"] for each in everything["namespaces"]] == ["lab", "shop"]
    assert everything["objectsOutside"] == 1


@pytest.mark.parametrize(
    "path",
    ["/api/v1/nodes", "/apis/node.k8s.io/v1/runtimeclasses", "/apis/apps/v1/deployments"],
)
def test_what_may_not_be_listed_is_named_and_nothing_is_ready(run: Run, path: str) -> None:
    cluster = _shop(deployment("shop", "web"))
    cluster.forbidden.add(path)
    done = run(cluster, "audit")
    assert (done.code, "not looked at: " in done.out) == (1, True)
    assert "shop (audit): not ready" in done.out


@pytest.mark.parametrize("form", ["text", "json", "sarif", "junit", "html"])
def test_a_reader_learns_what_no_audit_looks_at_and_a_clean_cluster_stays_clean(run: Run, form: str) -> None:
    cluster = _shop(deployment("shop", "web"))
    done = run(cluster, "audit", "-o", form)
    assert done.code == 0
    # Forms for programs are beside lines for people.
    people = [done.out] if form == "text" else [done.out, done.err] if form in ("json", "html") else [done.err]
    for shown in people:
        assert "sh.helm.release.v1.*" in shown
        assert "objects of other kinds that have a pod template" in shown
    asked = [path for _, path in cluster.asked]
    assert not any("secrets" in path or "argoproj" in path for path in asked)


def test_without_morphisms_in_the_cluster_a_configuration_has_to_be_given(run: Run, tmp_path: Path) -> None:
    cluster = _shop(deployment("shop", "web"))
    del cluster.objects[f"{SYSTEM}/morphisms-webhook"]
    done = run(cluster, "audit")
    assert (done.code, "give --config FILE" in done.err) == (2, True)
    (tmp_path / "webhook.yaml").write_text("version: 1\n")
    assert run(cluster, "audit", "--config", str(tmp_path / "webhook.yaml")).code == 0


def _lines(done: Done, check: str) -> list[tuple[str, str]]:
    return [(each["state"], each["text"]) for each in json.loads(done.out)["lines"] if each["check"] == check]


def test_preflight_is_go_only_when_all_is_known_or_the_rest_is_allowed(run: Run) -> None:
    cluster = _shop(deployment("shop", "web"))
    assert run(cluster, "preflight", "shop").code == 1
    done = run(cluster, "preflight", "shop", "--allow-unevaluated", "-o", "json")
    assert (done.code, json.loads(done.out)["go"], _lines(done, "templates")[0][0]) == (0, True, "ok")
    assert _lines(done, "workload") == [("ok", "1 of 1 workloads comply: enforce admits their next pods")]
    assert [state for state, _ in _lines(done, "registration")] == ["ok", "ok"]
    assert [state for state, _ in _lines(done, "capacity")] == ["ok"]
    assert _lines(done, "verifier")[0][0] == "not-evaluated"


def test_what_failed_is_no_go_whatever_is_allowed(run: Run) -> None:
    cluster = _shop(deployment("shop", "web"))
    del cluster.objects[f"{SYSTEM}/morphisms-webhook-templates"]
    done = run(cluster, "preflight", "shop", "--allow-unevaluated", "-o", "json")
    assert (done.code, _lines(done, "templates")[0][0]) == (1, "failed")


def test_preflight_names_each_rule_and_the_page_that_explains_it(run: Run) -> None:
    done = run(
        _shop(deployment("shop", "web", PLAINTEXT), deployment("shop", "host", hostPID=True)), "preflight", "shop"
    )
    assert done.code == 1
    failed = [line for line in done.out.splitlines() if line.startswith("failed        workload")]
    assert [line.split("[")[1].split("]")[0] for line in failed] == [
        "secrets/plaintext-env",
        "isolation/host-namespaces",
    ]
    assert all(line.endswith("]") and "docs/rules.md#" in line for line in failed)
    assert done.out.splitlines()[-1].startswith("no-go: namespace shop to enforce: ")


def test_preflight_asks_about_another_mode(run: Run) -> None:
    cluster = _shop(deployment("shop", "host", hostPID=True))
    done = run(cluster, "preflight", "shop", "--mode", "audit", "-o", "json")
    assert _lines(done, "workload")[0][0] == "ok"


def test_the_api_servers_own_answer_to_the_injected_pod_counts(run: Run) -> None:
    cluster = _shop(deployment("shop", "web"), deployment("shop", "other", {"image": IMAGE.replace("app", "other")}))
    cluster.refusals[IMAGE] = (403, "exceeded quota: x")
    done = run(cluster, "preflight", "shop", "-o", "json")
    refused = ("failed", "Deployment/web: the API server refuses the injected pod: exceeded quota: x")
    assert _lines(done, "api-server")[0] == refused
    assert _lines(done, "api-server")[1][0] == "ok"
    [pod, _] = cluster.tried
    assert pod["spec"]["initContainers"][0]["name"] == "morphisms-init"
    assert pod["spec"]["runtimeClassName"] == "kata-qemu-snp"


def test_a_pod_that_does_not_comply_is_not_tried_out(run: Run) -> None:
    cluster = _shop(deployment("shop", "web", PLAINTEXT))
    run(cluster, "preflight", "shop")
    assert cluster.tried == []


def test_a_user_who_may_not_create_pods_is_told_that_nothing_was_tried_out(run: Run) -> None:
    cluster = _shop(deployment("shop", "web"))
    cluster.forbidden.add("/api/v1/namespaces/shop/pods")
    done = run(cluster, "preflight", "shop", "-o", "json")
    [(state, text)] = _lines(done, "api-server")
    assert (state, "may not create pods here" in text) == ("not-evaluated", True)
    assert ("not-evaluated", "pods: the API server answers 403 to a list") in _lines(done, "workload")


def test_preflight_compares_the_issuer_with_the_verifiers(run: Run) -> None:
    cluster = _shop(deployment("shop", "web"))
    cluster.objects["/.well-known/openid-configuration"] = {"issuer": "https://issuer.example"}
    [(state, text)] = _lines(run(cluster, "preflight", "shop", "-o", "json"), "cluster-name")
    assert (state, "the scanner publishes no probes" in text) == ("not-evaluated", True)


def test_a_namespace_that_admission_never_looks_at_is_no_go(run: Run) -> None:
    cluster = ready()
    cluster.add("kube-system", None)
    done = run(cluster, "preflight", "kube-system", "--allow-unevaluated")
    assert (done.code, "admission never looks at namespace kube-system" in done.out) == (1, True)


def test_without_runtime_classes_placement_is_not_known(run: Run) -> None:
    cluster = _shop(deployment("shop", "web"))
    cluster.forbidden.add("/apis/node.k8s.io/v1/runtimeclasses")
    done = run(cluster, "preflight", "shop", "-o", "json")
    [(state, text)] = _lines(done, "cluster")
    assert (done.code, state, "runtimeclasses" in text) == (1, "not-evaluated", True)
    assert _lines(done, "runtime-class") == []
    assert {state for state, _ in _lines(done, "workload")} == {"not-evaluated"}
