"""The lines of a preflight, one question each, on what a cluster may hold."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cli.live.cluster import LiveCluster
from cli.preflight import checks
from cli.preflight.injected_pod import as_anyones, injected_pod, requests
from cli.preflight.lines import Line, State, is_go
from cli.support.admission import Admission
from plan.layout import PLAN_VARIABLE
from tests.cli.audit.found import SNAPSHOT, deployment
from tests.support.certificates import make_pair
from webhook.configuration.model import Configuration
from webhook.configuration.templates_map import read_map
from webhook.modes import Mode
from webhook.node_records import NodeRecord
from webhook.rules.rule import Severity
from webhook.scanner.finding import Evaluation, Finding, FindingClass, ObjectId
from webhook.scanner.probes.published import (
    KEY,
    Check,
    Probe,
    ProbeState,
    Published,
    about,
    read_published,
    write_published,
)
from webhook.snapshot import RuntimeClassRecord

Json = dict[str, Any]

CONFIGURATION = Configuration()
KATA = CONFIGURATION.profile_by_name["kata-snp"]
SNP = (("amd.feature.node.kubernetes.io/snp", "true"),)
CLUSTER = LiveCluster(
    CONFIGURATION, replace(SNAPSHOT, nodes={"snp-0": NodeRecord("snp-0", SNP), "plain": NodeRecord("plain", ())}), {}
)


def _node(name: str, cpu: str, memory: str, **labels: str) -> Json:
    metadata = {"name": name, "labels": {"amd.feature.node.kubernetes.io/snp": "true"} | labels}
    return {"metadata": metadata, "status": {"allocatable": {"cpu": cpu, "memory": memory}}}


def _states(lines: Any) -> dict[str, State]:
    return {line.check: line.state for line in lines}


@pytest.mark.parametrize(
    ("states", "allowed", "go"),
    [
        ([State.OK, State.NOTE], False, True),
        ([State.OK, State.NOT_EVALUATED], False, False),
        ([State.OK, State.NOT_EVALUATED], True, True),
        ([State.FAILED], True, False),
        ([], False, True),
    ],
)
def test_what_is_not_known_is_no_go_unless_that_is_allowed(states: list[State], allowed: bool, go: bool) -> None:
    assert is_go([Line("x", each, "") for each in states], allow_unevaluated=allowed) is go


def test_a_profile_needs_its_runtime_class_and_a_node() -> None:
    assert _states(checks.placement(CLUSTER, [KATA])) == {"runtime-class": State.OK, "nodes": State.NOTE}
    snapshot = CLUSTER.snapshot
    assert snapshot is not None
    without = replace(CLUSTER, snapshot=replace(snapshot, runtime_classes={}, nodes={}))
    assert _states(checks.placement(without, [KATA])) == {"runtime-class": State.FAILED, "nodes": State.FAILED}
    other = {"kata-qemu-snp": RuntimeClassRecord("kata-qemu-snp", "runc")}
    wrong = replace(CLUSTER, snapshot=replace(snapshot, runtime_classes=other))
    [line] = [each for each in checks.placement(wrong, [KATA]) if each.check == "runtime-class"]
    assert (line.state, "has handler runc" in line.text) == (State.FAILED, True)


def test_without_nodes_nothing_about_placement_is_known() -> None:
    blind = replace(CLUSTER, snapshot=None, not_read=("nodes: the API server answers 403 to a list",))
    assert _states(checks.placement(blind, [KATA])) == {"cluster": State.NOT_EVALUATED}


def test_a_trusted_label_needs_no_note() -> None:
    trusted = KATA.model_copy(update={"trustedLabel": "morphisms.node-restriction.kubernetes.io/snp"})
    labels = (*SNP, ("morphisms.node-restriction.kubernetes.io/snp", "true"))
    snapshot = CLUSTER.snapshot
    assert snapshot is not None
    with_label = replace(CLUSTER, snapshot=replace(snapshot, nodes={"n": NodeRecord("n", labels)}))
    assert _states(checks.placement(with_label, [trusted]))["nodes"] is State.OK


def test_every_replica_has_to_know_the_current_template() -> None:
    template = CONFIGURATION.container_template
    digest = template.digest
    data = {f"{digest}.json": template.text, "current": digest}
    known = {f"known.{name}": f"2027-01-01T00:00:00Z {digest[:16]}" for name in ("a", "b")}
    assert _states(checks.templates(replace(CLUSTER, templates=read_map(data | known)))) == {"templates": State.OK}
    behind = data | known | {"known.b": "2027-01-01T00:00:00Z"}
    [line] = checks.templates(replace(CLUSTER, templates=read_map(behind)))
    assert (line.state, line.text.endswith(": b")) == (State.FAILED, True)
    [line] = checks.templates(replace(CLUSTER, templates=read_map({})))
    assert line.state is State.FAILED
    [line] = checks.templates(CLUSTER)
    assert line.state is State.NOT_EVALUATED


def _capacity(node: Json, overhead: Json, *running: Json, container: Json | None = None) -> State:
    item = deployment("shop", "web", container or {"resources": {"requests": {"cpu": "1", "memory": "1Gi"}}})
    pod = injected_pod(item, "shop", CONFIGURATION, SNAPSHOT)
    assert pod is not None
    classes = [{"metadata": {"name": "kata-qemu-snp"}, "overhead": {"podFixed": overhead}}]
    [line] = checks.capacity([("Deployment/web", pod)], {"kata-snp": KATA}, [node], list(running), classes)
    return line.state


def test_room_on_a_node_counts_requests_overhead_and_what_runs_there() -> None:
    assert _capacity(_node("n", "2", "2Gi"), {}) is State.OK
    assert _capacity(_node("n", "1", "1Gi"), {}) is State.OK  # the init container ends before the application starts
    assert _capacity(_node("n", "1", "1Gi"), {"memory": "1"}) is State.FAILED
    assert _capacity(_node("n", "999m", "2Gi"), {}) is State.FAILED
    there = {
        "spec": {"nodeName": "n", "overhead": {"cpu": "1"}, "containers": [{"resources": {"requests": {"cpu": "1"}}}]}
    }
    assert _capacity(_node("n", "3", "2Gi"), {}, there) is State.OK
    assert _capacity(_node("n", "2500m", "2Gi"), {}, there) is State.FAILED
    ended = {**there, "status": {"phase": "Succeeded"}}
    assert _capacity(_node("n", "1", "1Gi"), {}, ended) is State.OK
    assert _capacity(_node("n", "9", "9Gi", **{"amd.feature.node.kubernetes.io/snp": "false"}), {}) is State.FAILED


def test_room_is_not_known_without_the_pods() -> None:
    [line] = checks.capacity([], {}, [], None, [])
    assert line.state is State.NOT_EVALUATED


def test_requests_are_those_of_the_scheduler() -> None:
    spec: Json = {
        "initContainers": [
            {"restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}},
            {"resources": {"requests": {"cpu": "5"}}},
        ],
        "containers": [{"resources": {"limits": {"cpu": "2"}}}, {"resources": {"requests": {"memory": "1Gi"}}}],
    }
    assert requests(spec, {})["cpu"] == 6
    assert requests({**spec, "resources": {"requests": {"cpu": "9"}}}, {"cpu": "500m"})["cpu"] == 9 + 0.5


@pytest.mark.parametrize(
    ("issuer", "entries", "state"),
    [
        ("https://a", {"cluster": "https://a"}, State.OK),
        ("https://a", {"cluster": "https://b"}, State.FAILED),
        ("https://a", {"other": "https://a"}, State.FAILED),
        (None, {"cluster": "https://a"}, State.NOT_EVALUATED),
    ],
)
def test_cluster_name_and_issuer_are_equal_on_both_sides(
    issuer: str | None, entries: dict[str, str], state: State
) -> None:
    assert _states(checks.same_names("cluster", issuer, entries)) == {"cluster-name": state}


_NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)
_ABOUT = about(CONFIGURATION)


def _probes(*, minutes: int = 1, digest: str = _ABOUT, **states: ProbeState) -> Published:
    said = {check: Probe(states.get(check.name, ProbeState.OK), f"{check} was seen") for check in Check}
    return Published(_NOW - timedelta(minutes=minutes), digest, said)


def _reached(published: Published | None, problem: str = "", *, names: bool = True) -> list[Line]:
    return list(checks.only_from_within(published, problem, _ABOUT, _NOW, names=names))


def test_what_the_scanner_reached_is_said_as_it_was() -> None:
    published = _probes(VAULT=ProbeState.FAILED, KEY_SET=ProbeState.NOT_EVALUATED)
    assert read_published({KEY: write_published(published)}) == published
    lines = _reached(read_published({KEY: write_published(published)}))
    states = {"verifier": State.OK, "cluster-name": State.OK, "vault": State.FAILED, "key-set": State.NOT_EVALUATED}
    assert _states(lines) == states
    assert {line.text for line in lines} == {f"{check} was seen" for check in Check}
    assert all(line.link for line in lines)
    assert "cluster-name" not in _states(_reached(published, names=False))


@pytest.mark.parametrize(
    ("published", "says"),
    [
        (None, "no such ConfigMap"),
        (_probes(minutes=16), "16 minutes old"),
        (_probes(minutes=-30), "from the future"),
        (_probes(digest="0" * 64), "another configuration"),
        (replace(_probes(), probes={}), "the scanner has not probed it"),
    ],
    ids=["absent", "old", "future", "of another configuration", "of another release"],
)
def test_probes_that_say_nothing_about_now_are_not_evaluated(published: Published | None, says: str) -> None:
    lines = _reached(published, "no such ConfigMap")
    assert {line.state for line in lines} == {State.NOT_EVALUATED}
    assert {line.check for line in lines} == set(Check)
    assert all(says in line.text for line in lines)


_GOOD = write_published(_probes())


@pytest.mark.parametrize(
    "data",
    [
        *(None, [], {}, {KEY: 1}, {KEY: ""}, {KEY: "[" * 100_000}, {KEY: "x" * (1 << 20)}),
        *({KEY: json.dumps(each)} for each in (None, [], {}, {"version": 1})),
        *(
            {KEY: _GOOD.replace(*change)}
            for change in (
                ('"version": 1', '"version": 2'),
                ('"ok"', '"admitted"'),
                (_ABOUT, "x"),
                ("2027-01-01T", "yesterday "),
                ("was seen", "x" * 401),
                ('"state"', '"stat"'),
                ('{"verifier": {', '{"verifier": ["", {'),
            )
        ),
    ],
)
def test_what_another_writer_left_in_the_config_map_is_no_probe(data: Any) -> None:
    with pytest.raises(ValueError, match=r"probes\.json"):
        read_published(data)


def test_a_probe_of_another_address_ca_or_name_says_nothing_of_this_configuration() -> None:
    changes: list[Json] = [
        {"cluster": "other"},
        *({"verifier": {name: value}} for name, value in (("url", "https://other"), ("audience", "other"))),
        {"vault": {"url": "https://other:8200"}},
        {"vault": {"ca": make_pair()[0].decode()}},
        {"verifier": {"ca": make_pair()[0].decode()}},
    ]
    assert len({about(Configuration.model_validate(change)) for change in ({}, *changes)}) == len(changes) + 1


def test_a_cluster_that_does_not_call_the_webhook_enforces_nothing() -> None:
    ours: list[Json] = [{"metadata": {"name": "morphisms"}}]
    kinds = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
    assert [line.state for line in checks.registration(dict.fromkeys(kinds, ours))] == [State.OK, State.OK]
    missing = {kinds[0]: ours, kinds[1]: [{"metadata": {"name": "other"}}]}
    assert [line.state for line in checks.registration(missing)] == [State.OK, State.FAILED]
    assert {line.state for line in checks.registration(dict.fromkeys(kinds, None))} == {State.NOT_EVALUATED}


def test_others_plugins_are_named_and_ours_are_not() -> None:
    names = ("morphisms", "injection-present.morphisms.dev", "kyverno\x1b[2J")
    items = [{"metadata": {"name": name}} for name in names]
    [line] = checks.other_plugins({"ValidatingWebhookConfiguration": items})
    assert line.text == "not looked at: ValidatingWebhookConfiguration kyverno?[2J"
    [line] = checks.other_plugins({"ValidatingWebhookConfiguration": None})
    assert line.state is State.NOTE


def test_the_pod_that_is_tried_out_claims_no_owner_and_no_label_of_knative() -> None:
    service = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"template": {"spec": {"containerConcurrency": 1, "containers": [{"image": "x@sha256:" + "a" * 64}]}}},
    }
    pod = injected_pod(service, "shop", CONFIGURATION, SNAPSHOT)
    assert pod is not None
    tried = as_anyones(pod)
    assert set(tried["metadata"]) == {"generateName", "labels", "annotations"}
    assert not any("knative" in key for key in tried["metadata"]["labels"])
    assert "containerConcurrency" not in tried["spec"]
    assert [each["name"] for each in tried["spec"]["containers"]] == ["user-container"]


@pytest.mark.parametrize(
    ("annotations", "value", "paths"),
    [
        ({"secret-db": "~/db#password", "template-db": "cd ~/db {{{password}}}"}, "plain", {"db"}),
        ({"env-from": "~/db, secret/common , ~/api@2"}, "plain", {"db", "api"}),
        ({"agent": "init"}, "vault:~/db#password", {"db"}),
        ({"agent": "sidecar"}, "postgres://${vault:~/db#user}:${vault:~/api#token}@db", {"db", "api"}),
        ({"secret-db": " ~/db#password"}, "vault:~/api#token", {"db", "api"}),
    ],
)
def test_the_pod_that_is_tried_out_names_its_services_own_secrets(
    annotations: dict[str, str], value: str, paths: set[str]
) -> None:
    """Without Knative's labels it has no prefix of its own, so the webhook would refuse `~/` in it."""
    container = {"image": "x@sha256:" + "a" * 64, "command": ["/app"], "env": [{"name": "A", "value": value}]}
    own = {f"morphisms.dev/{key}": text for key, text in annotations.items()}
    template = {"metadata": {"annotations": own}, "spec": {"containers": [container]}}
    service = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"template": template},
    }
    pod = injected_pod(service, "shop", CONFIGURATION, SNAPSHOT)
    assert pod is not None
    tried = as_anyones(pod)
    for mode in (Mode.AUDIT, Mode.INJECT, Mode.ENFORCE):
        cluster = replace(SNAPSHOT, namespaces={"shop": mode})
        admitted = Admission(CONFIGURATION, cluster).pod(tried, "shop")
        assert admitted.denial is None, mode
        (init,) = [each for each in admitted.object["spec"]["initContainers"] if each["name"] == "morphisms-init"]
        (plan,) = [each["value"] for each in init["env"] if each["name"] == PLAN_VARIABLE]
        assert set(re.findall(r"secret/knative/cluster/shop/web/(\w+)", plan)) == paths


@pytest.mark.parametrize("ports", [[], [{"containerPort": 9000}]])
def test_probes_without_a_port_are_tried_out_as_knative_leaves_them(ports: list[Json]) -> None:
    probes = {
        "readinessProbe": {"successThreshold": 1, "tcpSocket": {"port": 0}},
        "livenessProbe": {"httpGet": {"path": "/", "port": 0}},
        "startupProbe": {"tcpSocket": {"port": 7000}},
    }
    container = {"image": "x@sha256:" + "a" * 64, "ports": ports, **probes}
    spec = {"containerConcurrency": 0, "timeoutSeconds": 300, "containers": [container]}
    item = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"template": {"spec": spec}},
    }
    pod = injected_pod(item, "shop", CONFIGURATION, SNAPSHOT)
    assert pod is not None
    [tried] = as_anyones(pod)["spec"]["containers"]
    assert "readinessProbe" not in tried
    assert tried["livenessProbe"]["httpGet"]["port"] == (9000 if ports else 8080)
    assert tried["startupProbe"]["tcpSocket"]["port"] == 7000
    # A pod that Knative does not make keeps its own.
    own = as_anyones({"spec": {"containers": [{"name": "app", **probes}]}})["spec"]["containers"][0]
    assert own == {"name": "app", **probes}


@pytest.mark.parametrize(
    ("kind", "generation", "status", "is_rolling"),
    [
        ("Deployment", 2, {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2}, True),
        ("Deployment", 2, {"observedGeneration": 2, "replicas": 3}, True),
        ("Deployment", 2, {"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3}, True),
        ("Deployment", 2, {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3}, False),
        ("Deployment", 1, {"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 0}, False),
        ("Deployment", 1, {}, False),
        ("Deployment", 1, None, False),
        ("Deployment", 2, {"observedGeneration": "2", "replicas": "3", "updatedReplicas": [2]}, False),
        ("StatefulSet", 2, {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 1}, True),
        ("StatefulSet", 2, {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3}, False),
        ("DaemonSet", 2, {"observedGeneration": 2, "desiredNumberScheduled": 4, "updatedNumberScheduled": 3}, True),
        ("DaemonSet", 2, {"observedGeneration": 2, "desiredNumberScheduled": 4, "updatedNumberScheduled": 4}, False),
        ("ReplicaSet", 2, {"observedGeneration": 1, "replicas": 3}, False),
        ("Pod", 2, {"observedGeneration": 1}, False),
    ],
)
def test_a_rollout_that_has_not_ended_is_not_known_to_be_ready(
    kind: str, generation: int, status: Json | None, is_rolling: bool
) -> None:
    item = {"kind": kind, "metadata": {"name": "web", "namespace": "shop", "generation": generation}, "status": status}
    lines = list(checks.rollouts([item]))
    assert [each.state for each in lines] == [State.NOT_EVALUATED] * is_rolling
    assert all(f"`kubectl rollout status -n shop {kind.lower()}/web`" in each.text for each in lines)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("Revision", "or `kubectl delete revisions.serving.knative.dev -n shop web`"),
        ("Pod", "`kubectl delete pods -n shop web`, then create it with the change"),
        ("Job", "`kubectl delete jobs -n shop web`, then create it with the change"),
        ("Deployment", None),
    ],
)
def test_of_what_keeps_its_template_a_note_says_what_to_do_in_place_of_a_change(kind: str, says: str | None) -> None:
    workload = ObjectId("v1", kind, "shop", "web")
    finding = Finding("a/b", Severity.HIGH, FindingClass.YOURS_TO_CHANGE, workload, "spec", "remove it", "deny")
    evaluation = Evaluation(workload, Mode.AUDIT, Mode.ENFORCE, (finding,))
    notes = [line.text for line in checks.workloads([evaluation], Mode.ENFORCE) if line.state is State.NOTE]
    assert [each.startswith(f"{kind}/web cannot be changed: ") for each in notes] == [True] * (says is not None)
    assert says is None or notes[0].endswith(says)
    ready = replace(evaluation, findings=())
    assert State.NOTE not in {line.state for line in checks.workloads([ready], Mode.ENFORCE)}
