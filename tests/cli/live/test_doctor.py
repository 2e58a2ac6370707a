"""`morphisms doctor`: a developer whose pod got no secrets learns where it stands, and whom to ask."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cli.diagnosis.pod import WHOM_TO_ASK
from sidecar.reasons import Exit
from tests.cli.audit.found import IMAGE, PASSWORD
from tests.cli.live.conftest import Run
from tests.cli.live.stand_in import StandIn, ready
from tests.support.done import Done
from tests.support.paths import ROOT

Json = dict[str, Any]
_OPTS_IN = {"morphisms.dev/secret-db": "secret/shop/db#password"}


def _pod(
    status: Json | None = None, *, injected: bool = True, annotations: Json | None = None, **container: Any
) -> Json:
    """A pod, with what an API server shows of it."""
    spec: Json = {"containers": [{"name": "app", "image": IMAGE, **container}]}
    if injected:
        spec["initContainers"] = [{"name": "morphisms-init"}]
    metadata = {"name": "web", "namespace": "shop", "uid": "u-1", "annotations": annotations or {}}
    return {"metadata": metadata, "spec": spec, "status": status or {}}


def _init(state: Json, last: Json | None = None) -> Json:
    """The status of morphisms-init."""
    return {"initContainerStatuses": [{"name": "morphisms-init", "state": state, "lastState": last or {}}]}


def _ended(code: int, message: str) -> Json:
    return {"terminated": {"exitCode": code, "message": message, "reason": "Error"}}


def _cluster(pod: Json, *events: Json, mode: str | None = "inject") -> StandIn:
    cluster = ready()
    cluster.add("shop", mode)
    cluster.objects["/api/v1/namespaces/shop/pods/web"] = pod
    cluster.lists["/api/v1/namespaces/shop/events"] = list(events)
    return cluster


def _ask(run: Run, cluster: StandIn) -> Done:
    return run(cluster, "doctor", "web", "-n", "shop", "-o", "json")


def _lines(done: Done, check: str) -> list[tuple[str, str]]:
    return [(each["state"], each["text"]) for each in json.loads(done.out)["lines"] if each["check"] == check]


def test_a_refusal_by_the_verifier_names_its_reason_and_the_id_that_its_operators_need(run: Run) -> None:
    message = "the verifier refused this guest [verifier-refused, correlation id 4be1a1c8d0f3c2a7]"
    failed = _ended(12, message)
    for status in (_init(failed), _init({"waiting": {"reason": "CrashLoopBackOff"}}, failed)):
        done = _ask(run, _cluster(_pod(status)))
        assert done.code == 1
        assert _lines(done, "init") == [("failed", f"[verifier-refused] {message}")]
        [(state, whom)] = _lines(done, "ask")
        assert (state, whom.startswith("the verifier's operators")) == ("note", True)
        assert "morphisms explain 4be1a1c8d0f3c2a7" in whom


def test_the_page_shows_what_it_prints(run: Run) -> None:
    message = "the verifier refused this guest [verifier-refused, correlation id 4be1a1c8d0f3c2a7]"
    done = run(_cluster(_pod(_init(_ended(12, message)))), "doctor", "web", "-n", "shop")
    assert f"```\n{done.out}```\n" in (ROOT / "docs" / "doctor.md").read_text()


@pytest.mark.parametrize(
    ("code", "reason", "whom"),
    [
        (11, "evidence-no-source", "the operators of the cluster's nodes"),
        (14, "vault-refused", "the operators of Vault"),
        (16, "secret-missing", "the person who writes the secret"),
    ],
)
def test_each_cause_has_its_own_people(run: Run, code: int, reason: str, whom: str) -> None:
    done = _ask(run, _cluster(_pod(_init(_ended(code, f"no [{reason}]")))))
    assert _lines(done, "ask")[0][1].startswith(whom)


def test_there_is_a_person_for_every_exit_code_that_is_a_failure() -> None:
    assert set(WHOM_TO_ASK) == {int(code) for code in Exit} - {Exit.PUBLISHED, Exit.STOPPED}


@pytest.mark.parametrize(
    ("mode", "annotations", "says"),
    [
        (None, {}, "has no mode and it does not opt in"),
        ("audit", {}, "has mode audit and it does not opt in"),
        ("inject", {"morphisms.dev/inject": "false"}, 'its annotation morphisms.dev/inject is "false"'),
        ("inject", {}, "create it anew"),
        ("audit", _OPTS_IN, "create it anew"),
        ("enforce", {"morphisms.dev/inject": "false"}, "create it anew"),
    ],
)
def test_a_pod_that_was_not_injected_learns_why(run: Run, mode: str | None, annotations: Json, says: str) -> None:
    done = _ask(run, _cluster(_pod(injected=False, annotations=annotations), mode=mode))
    [(state, text)] = _lines(done, "injection")
    assert (done.code, state, says in text) == (1, "failed", True), text


def test_the_rule_that_kept_it_from_being_injected_is_named(run: Run) -> None:
    plaintext = [{"name": "DB_PASSWORD", "value": PASSWORD}, {"name": "P", "value": "vault:secret/shop/db#password"}]
    done = _ask(run, _cluster(_pod(injected=False, annotations=_OPTS_IN, env=plaintext)))
    found = {text.partition("]")[0][1:]: state for state, text in _lines(done, "rule")}
    assert found["secrets/references"] == "failed"
    assert found["secrets/plaintext-env"] == "note"


def test_a_pod_without_a_node_and_its_events_are_shown(run: Run) -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}

    def event(reason: str, uid: str = "u-1", kind: str = "Warning") -> Json:
        about = {"kind": "Pod", "name": "web", "uid": uid}
        return {"type": kind, "reason": reason, "message": "no\x1b[2J room\nhere", "involvedObject": about}

    events = event("FailedScheduling"), event("OfAFormerPod", "u-0"), event("Pulled", kind="Normal")
    done = _ask(run, _cluster(_pod({"conditions": [condition]}), *events))
    assert _lines(done, "scheduling") == [("failed", "no node takes the pod: 0/3 nodes are available")]
    assert _lines(done, "events") == [("note", "FailedScheduling: no?[2J room here")]
    assert _lines(done, "init") == [("not-evaluated", "morphisms-init has not run yet")]


def test_a_pod_that_has_its_secrets_is_healthy(run: Run) -> None:
    done = _ask(run, _cluster(_pod(_init({"terminated": {"exitCode": 0}}))))
    assert (done.code, [state for state, _ in _lines(done, "init")]) == (0, ["ok"])
    running = {"initContainerStatuses": [{"name": "morphisms-init", "started": True, "state": {"running": {}}}]}
    assert _ask(run, _cluster(_pod(running))).code == 0
    running["initContainerStatuses"][0]["started"] = False
    assert _ask(run, _cluster(_pod(running))).code == 1


def test_an_application_that_its_exec_helper_did_not_start_is_told_apart(run: Run) -> None:
    status = _init({"terminated": {"exitCode": 0}})
    status["containerStatuses"] = [
        {"name": "app", "state": {"waiting": {}}, "lastState": {"terminated": {"exitCode": 82}}},
        {"name": "own", "state": {"terminated": {"exitCode": 1}}},
    ]
    done = _ask(run, _cluster(_pod(status)))
    assert _lines(done, "exec-helper") == [
        ("failed", "container app: the exec helper ended with exit code 82 before the application")
    ]


def test_events_that_may_not_be_listed_are_not_known(run: Run) -> None:
    cluster = _cluster(_pod(_init({"terminated": {"exitCode": 0}})))
    cluster.forbidden.add("/api/v1/namespaces/shop/events")
    done = _ask(run, cluster)
    assert (done.code, _lines(done, "events")[0][0]) == (1, "not-evaluated")


@pytest.mark.parametrize(
    "status",
    [
        {"initContainerStatuses": 7, "conditions": "x", "containerStatuses": [7]},
        {"initContainerStatuses": [{"name": "morphisms-init", "state": 7, "lastState": [1]}]},
        _init({"terminated": {"exitCode": "12", "message": 5}}),
        _init({"waiting": {"reason": "\x1b[31m" * 500}}),
    ],
)
def test_what_others_wrote_into_a_status_is_never_trusted(run: Run, status: Json) -> None:
    done = _ask(run, _cluster(_pod(status)))
    assert done.code == 1
    assert "\x1b" not in done.out


@pytest.mark.parametrize("name", ["absent", "../secrets/x", "web/log", "web?x=y"])
def test_a_pod_that_is_not_there_is_unusable_input(run: Run, name: str) -> None:
    cluster = _cluster(_pod())
    done = run(cluster, "doctor", name, "-n", "shop")
    assert (done.code, "there is no pod" in done.err) == (2, True)
    assert not any("secrets" in path or path.endswith("/log") for _, path in cluster.asked)


def test_it_only_reads(run: Run) -> None:
    cluster = _cluster(_pod())
    _ask(run, cluster)
    run(cluster, "doctor")
    assert {method for method, _ in cluster.asked} == {"GET"}
    assert not any("secrets" in path for _, path in cluster.asked)


def test_without_a_pod_it_says_what_of_the_installation_is_missing(run: Run) -> None:
    cluster = _cluster(_pod())
    done = run(cluster, "doctor", "-o", "json")
    assert (done.code, json.loads(done.out)["healthy"]) == (1, False)
    assert any("is absent, so nothing is" in text for state, text in _lines(done, "registration") if state == "failed")
    assert [state for state, _ in _lines(done, "templates")] == ["ok"]
    assert [state for state, _ in _lines(done, "verifier")] == ["not-evaluated"]
    assert _lines(done, "runtime-class")[0][0] == "ok"


def test_without_nodes_and_classes_the_installation_is_not_known(run: Run) -> None:
    cluster = _cluster(_pod())
    cluster.forbidden.add("/api/v1/nodes")
    done = run(cluster, "doctor")
    assert (done.code, "not read: nodes: the API server answers 403" in done.out) == (1, True)


def test_behind_a_hook_a_pod_that_is_not_ready_is_not_called_published(run: Run) -> None:
    """Without a startup probe the kubelet counts the container as started when it runs."""
    running = {"initContainerStatuses": [{"name": "morphisms-init", "started": True, "state": {"running": {}}}]}
    for ready_now, state in (("False", "not-evaluated"), ("True", "ok")):
        pod = _pod({**running, "conditions": [{"type": "Ready", "status": ready_now}]})
        pod["spec"]["initContainers"][0]["lifecycle"] = {"postStart": {"exec": {"command": ["x"]}}}
        assert [each for each, _ in _lines(_ask(run, _cluster(pod)), "init")] == [state]
