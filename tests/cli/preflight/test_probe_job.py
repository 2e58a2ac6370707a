"""`morphisms preflight --probe`: a Job asks what only the cluster reaches, and is gone afterwards."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cli.live import job
from cli.main import main
from tests.cli.audit.found import deployment
from tests.cli.live.conftest import Run
from tests.cli.live.conftest import run as run
from tests.cli.live.job_runner import JOBS, WEBHOOK_IMAGE, JobRunner, RealJobRunner, probed_namespace
from tests.cli.live.stand_in import SYSTEM, StandIn, ready, serving
from tests.support.done import Done
from webhook.configuration.model import Configuration
from webhook.scanner.probes.once import VARIABLE, read_question, write_question
from webhook.scanner.probes.probe import OwnTokens
from webhook.scanner.probes.published import KEY, Check, Probe, ProbeState, Published, about, write_published

Json = dict[str, Any]

_PODS = "/api/v1/namespaces/shop/pods"
_PROBES = f"{SYSTEM}/morphisms-probes"
# Nothing listens there, and what a plan's `$(NAME)` would be expanded to is known.
_CONFIGURATION = """\
version: 1
cluster: prod
verifier: {url: "https://127.0.0.1:1/$(HOME)"}
vault: {url: "https://127.0.0.1:1"}
"""
_ABOUT = about(
    Configuration.model_validate(
        {
            "cluster": "prod",
            "verifier": {"url": "https://127.0.0.1:1/$(HOME)"},
            "vault": {"url": "https://127.0.0.1:1"},
        }
    )
)


def _published(state: ProbeState = ProbeState.OK, digest: str = _ABOUT, at: datetime | None = None) -> str:
    probes = {check: Probe(state, "seen") for check in Check}
    return write_published(Published(at or datetime.now(UTC), digest, probes))


def _shop(mode: str | None = "audit", log: str = "", **status: Any) -> JobRunner:
    return probed_namespace(JobRunner.on(ready(), log, **status), _CONFIGURATION, mode, deployment("shop", "web"))


def _ask(run: Run, cluster: StandIn, *options: str) -> Done:
    return run(cluster, "preflight", "shop", "-o", "json", "--probe", *options)


def _lines(done: Done) -> dict[str, tuple[str, str]]:
    return {each["check"]: (each["state"], each["text"]) for each in json.loads(done.out)["lines"]}


def _probed(done: Done) -> set[str]:
    found = _lines(done)
    return {found[check.value][0] for check in Check}


@pytest.mark.parametrize("mode", [None, "audit", "inject"])
def test_the_job_answers_where_the_scanner_has_no_probes_and_is_gone(run: Run, mode: str | None) -> None:
    cluster = _shop(mode, _published())
    done = _ask(run, cluster)
    assert (_probed(done), done.code) == ({"ok"}, 0), done.out
    assert _lines(done)["probe"][0] == "note"
    assert cluster.deleted == [(f"{JOBS}/{cluster.name}", {"propagationPolicy": ["Background"]})]
    # It says which Job, before there is one.
    assert f"creating Job {cluster.name} in namespace shop" in done.err


def test_what_a_probe_found_wrong_is_no_go(run: Run) -> None:
    done = _ask(run, _shop("audit", _published(ProbeState.FAILED)), "--allow-unevaluated")
    assert (_probed(done), done.code) == ({"failed"}, 1)


def test_the_jobs_pod_has_no_token_no_volume_and_no_privilege(run: Run) -> None:
    cluster = _shop("audit", _published())
    _ask(run, cluster)
    [made] = cluster.jobs
    assert (made["spec"]["backoffLimit"], made["spec"]["ttlSecondsAfterFinished"] > 0) == (0, True)
    template = made["spec"]["template"]
    pod = template["spec"]
    [container] = pod["containers"]
    assert template["metadata"]["annotations"] == {"morphisms.dev/inject": "false"}
    assert (pod["automountServiceAccountToken"], "volumes" in pod, "serviceAccountName" in pod) == (False, False, False)
    assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["seccompProfile"]["type"]) == (
        True,
        "RuntimeDefault",
    )
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["image"] == WEBHOOK_IMAGE
    [variable] = container["env"]
    assert "$" not in variable["value"]  # which the kubelet would expand
    configuration, own = read_question(variable["value"])
    assert (about(configuration), own) == (_ABOUT, OwnTokens("https://issuer.example", ("key-1",)))


def test_the_container_prints_what_the_command_reads(run: Run) -> None:
    done = _ask(run, RealJobRunner(**vars(_shop())))
    found = _lines(done)
    assert found["verifier"][0] == found["vault"][0] == "failed"
    assert "compare vault.url with the Service" in found["vault"][1]


@pytest.mark.parametrize("damage", ["absent", "old", "of another configuration"])
def test_a_job_is_made_only_where_the_scanners_probes_say_nothing_of_now(run: Run, damage: str) -> None:
    cluster = _shop("audit", _published())
    cluster.objects[_PROBES] = {"data": {KEY: _published()}}
    assert _probed(_ask(run, cluster)) == {"ok"}
    assert cluster.jobs == []
    if damage == "absent":
        del cluster.objects[_PROBES]
    elif damage == "old":
        cluster.objects[_PROBES] = {"data": {KEY: _published(at=datetime.now(UTC) - timedelta(hours=1))}}
    else:
        cluster.objects[_PROBES] = {"data": {KEY: _published(digest="0" * 64)}}
    assert _probed(_ask(run, cluster)) == {"ok"}
    assert len(cluster.jobs) == 1


@pytest.mark.parametrize(
    ("log", "says"),
    [
        ("", "printed something else"),
        ("ok", "printed something else"),
        ("[" * 16_000, "printed something else"),
        ("x" * (1 << 20), "printed something else"),
        (_published() + "\n" + _published(), "printed something else"),
        (_published().replace('"seen"', '"' + "x" * 401 + '"'), "printed something else"),
        (_published().replace('"ok"', '"go"'), "printed something else"),
        (_published(digest="0" * 64), "the Job's pod probed another configuration"),
    ],
    ids=["nothing", "text", "deep", "endless", "twice", "long text", "other state", "of another configuration"],
)
def test_a_log_of_another_form_says_nothing(run: Run, log: str, says: str) -> None:
    cluster = _shop("audit", log)
    done = _ask(run, cluster)
    assert (_probed(done), done.code) == ({"not-evaluated"}, 1)
    assert says in _lines(done)["vault"][1]
    assert len(done.out) < 20_000
    assert len(cluster.deleted) == 1


def test_a_node_whose_clock_is_wrong_does_not_make_the_answer_old(run: Run) -> None:
    assert _probed(_ask(run, _shop("audit", _published(at=datetime(2020, 1, 1, tzinfo=UTC))))) == {"ok"}


def test_a_pod_that_only_copied_the_label_is_not_believed(run: Run) -> None:
    """A tenant makes a pod with the Job's label, and an owner of its own, that says that all is well."""
    cluster = _shop("audit", phase="Failed")
    owner = {"kind": "Job", "name": "own", "uid": "uid-of-another", "controller": True}
    cluster.forged = [{"metadata": {"name": "forged", "ownerReferences": [owner]}, "status": {"phase": "Succeeded"}}]
    cluster.objects[f"{_PODS}/forged/log"] = json.loads(_published())
    done = _ask(run, cluster)
    assert _probed(done) == {"not-evaluated"}
    assert "did not end well" in _lines(done)["vault"][1]


def test_a_pod_that_gets_no_node_is_told_with_the_schedulers_reason(run: Run) -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: 1 Insufficient cpu."}
    done = _ask(run, _shop("audit", phase="Failed", conditions=[condition]))
    assert _probed(done) == {"not-evaluated"}
    assert "the Job's pod got no node: 0/1 nodes are available: 1 Insufficient cpu." in _lines(done)["vault"][1]


def test_a_pod_that_its_controller_deletes_at_the_deadline_is_told_as_it_was(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "SECONDS", 0.5)
    monkeypatch.setattr(job, "_POLL_SECONDS", 0)
    cluster = _Vanishing(**vars(_shop("audit", phase="Pending")))
    assert "(phase Pending)" in _lines(_ask(run, cluster))["vault"][1]


class _Vanishing(JobRunner):
    """The Job's pod is there the first time that it is asked for."""

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Json) -> tuple[int, Json | str]:
        if "labelSelector" in query and self.made.is_set():
            return 200, {"items": []}
        return super().answer(method, path, query, body)


def test_a_namespace_that_refuses_the_pod_gets_no_job(run: Run) -> None:
    cluster = _shop("audit", _published())
    cluster.refusals[WEBHOOK_IMAGE] = (403, "exceeded quota: x")
    done = _ask(run, cluster)
    assert "would refuse the Job's pod: exceeded quota: x" in _lines(done)["vault"][1]
    assert (cluster.jobs, cluster.deleted) == ([], [])


def test_in_enforce_no_job_is_made(run: Run) -> None:
    """Its pod would be injected, and the verifier knows no such workload."""
    cluster = _shop("enforce", _published())
    assert "no Job in mode enforce" in _lines(_ask(run, cluster))["vault"][1]
    assert cluster.jobs == []


def test_without_rights_the_line_says_what_is_missing(run: Run) -> None:
    cluster = _shop("audit", _published())
    cluster.forbidden.add(JOBS)
    assert "create on jobs" in _lines(_ask(run, cluster))["vault"][1]
    assert cluster.deleted == []
    cluster.forbidden = {"/apis/apps/v1/namespaces/morphisms-system/deployments/morphisms-webhook"}
    assert "--probe-image" in _lines(_ask(run, cluster))["vault"][1]
    assert _probed(_ask(run, cluster, "--probe-image", "registry.example/own:1")) == {"ok"}
    assert run(cluster, "preflight", "shop", "--probe-image", "x").code == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
def test_a_person_who_interrupts_leaves_no_job(tmp_path: Path, number: signal.Signals) -> None:
    cluster = _shop("audit", phase="Pending")
    with serving(cluster, tmp_path) as kubeconfig:
        command = [sys.executable, "-m", "cli.main", "preflight", "shop", "--probe", "--kubeconfig", str(kubeconfig)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            assert cluster.made.wait(120)
            running.send_signal(number)
            out, said = running.communicate(timeout=120)
        assert (running.returncode, out) == (128 + number, "")
        assert "Traceback" not in said
        assert cluster.deleted == [(f"{JOBS}/{cluster.name}", {"propagationPolicy": ["Background"]})]


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "[" * 100_000, json.dumps({"version": 2}), '{"version": 1, "cluster": "x"}']
    + [
        write_question(Configuration(), OwnTokens("https://issuer", ("a",))).replace(*change)
        for change in (
            ('"version": 1', '"version": 2'),
            ('["a"]', "[1]"),
            ('"https://issuer"', "1"),
            ("https:", "ftp:"),
        )
    ],
)
def test_a_question_of_another_form_is_unusable(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=VARIABLE):
        read_question(text)
    monkeypatch.setenv(VARIABLE, text[:1000])
    assert main(["scanner", "--probe-once"]) == 2


def test_a_question_keeps_what_decides() -> None:
    configuration = Configuration.model_validate({"cluster": "prod", "verifier": {"audience": "other"}})
    for own in (None, OwnTokens("https://issuer", ("a", "b"))):
        found, tokens = read_question(write_question(configuration, own))
        assert (about(found), tokens) == (about(configuration), own)
