"""`morphisms graduate`: a namespace goes on only when nothing would break, and nothing else is ever written."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from cli.commands.graduate import duration
from tests.cli.audit.found import PASSWORD, deployment
from tests.cli.live.conftest import Run
from tests.cli.live.reported import API, LEASE, NAMESPACE, REPORT, report, reported
from tests.cli.live.stand_in import StandIn
from tests.support.done import Done
from webhook.wellknown import MODE_LABEL

Json = dict[str, Any]
_PLAINTEXT: Json = {"env": [{"name": "DB_PASSWORD", "value": PASSWORD}]}
_ANY_TIME = ("--clean-for", "0", "--allow-unevaluated")
_DAY = ("--clean-for", "24h", "--allow-unevaluated")


def _mode(cluster: StandIn) -> str | None:
    found: str | None = cluster.objects[NAMESPACE]["metadata"]["labels"].get(MODE_LABEL)
    return found


def _steps(done: Done) -> list[tuple[str, str, str]]:
    return [(each["from"], each["to"], each["outcome"]) for each in json.loads(done.out)["steps"]]


def test_a_clean_namespace_goes_one_step_and_then_waits(run: Run) -> None:
    cluster = reported(deployment("shop", "web"))
    done = run(cluster, "graduate", "shop", *_DAY)
    assert (done.code, _mode(cluster)) == (0, "inject"), done.out
    assert "done: namespace shop: audit -> inject" in done.out
    assert "the next step is not due before" in done.out


def test_with_no_time_asked_for_it_goes_all_the_way(run: Run) -> None:
    cluster = reported(deployment("shop", "web"), mode=None, clean=0)
    done = run(cluster, "graduate", "shop", *_ANY_TIME, "--dry-run")
    assert done.out.endswith("\nnamespace shop has no mode; goal: enforce\n")
    done = run(cluster, "graduate", "shop", *_ANY_TIME, "-o", "json")
    assert _steps(done) == [("no mode", "audit", "taken"), ("audit", "inject", "taken"), ("inject", "enforce", "taken")]
    assert (done.code, json.loads(done.out)["mode"], _mode(cluster)) == (0, "enforce", "enforce")
    done = run(cluster, "graduate", "shop", *_ANY_TIME)
    assert (done.code, len(cluster.patched)) == (0, 3)


def test_it_stops_where_it_was_told_to(run: Run) -> None:
    cluster = reported(deployment("shop", "web"))
    assert run(cluster, "graduate", "shop", "--to", "inject", *_ANY_TIME).code == 0
    assert _mode(cluster) == "inject"


def test_the_mode_is_the_one_thing_that_is_written(run: Run) -> None:
    cluster = reported(deployment("shop", "web"))
    run(cluster, "graduate", "shop", *_DAY)
    assert cluster.patched == [(NAMESPACE, {"metadata": {"resourceVersion": "1", "labels": {MODE_LABEL: "inject"}}})]
    writes = {each for each in cluster.asked if each[0] != "GET"}
    assert writes == {("POST", f"{NAMESPACE}/pods"), ("PATCH", NAMESPACE)}  # the pods in a dry run
    assert not any("secrets" in path for _, path in cluster.asked)


@pytest.mark.parametrize("mode", ["audit", "inject"])
def test_a_workload_that_would_be_refused_holds_its_namespace_back(run: Run, mode: str) -> None:
    bad = deployment("shop", "web", _PLAINTEXT)
    cluster = reported(bad, mode=mode)
    cluster.objects[REPORT] = report(mode, 0, "fail")
    done = run(cluster, "graduate", "shop", *_ANY_TIME)
    assert (done.code, _mode(cluster), cluster.patched) == (1, mode, [])
    assert "the report is not clean: 1 of 1 workloads are not ready for mode enforce" in done.out
    if mode == "inject":
        assert "Deployment/web: [secrets/plaintext-env]" in done.out


def test_what_no_report_has_seen_yet_counts_too(run: Run) -> None:
    """The scanner looks every few minutes; a workload that came since then is looked at by the command itself."""
    cluster = reported(deployment("shop", "new", _PLAINTEXT), mode="inject")
    done = run(cluster, "graduate", "shop", *_DAY)
    assert (done.code, _mode(cluster)) == (1, "inject")
    assert "Deployment/new: [secrets/plaintext-env]" in done.out


def test_what_is_not_known_holds_it_back_unless_it_is_allowed(run: Run) -> None:
    cluster = reported(deployment("shop", "web"))
    done = run(cluster, "graduate", "shop", "--clean-for", "0")
    assert (done.code, cluster.patched, "--allow-unevaluated goes on" in done.out) == (1, [], True)


@pytest.mark.parametrize(
    ("clean", "since", "says"),
    [
        (23.9, 1000.0, "and not yet for 1 day"),
        (1000.0, 23.9, "and not yet for 1 day"),
        (1000.0, None, "no record since when"),
    ],
)
def test_a_report_has_to_be_clean_long_enough_in_the_present_mode(
    run: Run, clean: float, since: float | None, says: str
) -> None:
    cluster = reported(deployment("shop", "web"), clean=clean, since=since)
    done = run(cluster, "graduate", "shop", *_DAY)
    assert (done.code, cluster.patched, says in done.out) == (1, [], True), done.out
    assert run(cluster, "graduate", "shop", *_ANY_TIME).code == 0


def test_a_day_is_enough(run: Run) -> None:
    assert run(reported(deployment("shop", "web"), clean=24.1, since=24.1), "graduate", "shop", *_DAY).code == 0


def _no_scanner(cluster: StandIn) -> None:
    cluster.objects.pop(LEASE)


def _released(cluster: StandIn) -> None:
    cluster.objects[LEASE]["spec"]["holderIdentity"] = ""


def _dead_scanner(cluster: StandIn) -> None:
    cluster.objects[LEASE]["spec"]["renewTime"] = "2026-01-01T00:00:00.000000Z"


def _no_kind(cluster: StandIn) -> None:
    cluster.objects.pop(API)


def _no_report(cluster: StandIn) -> None:
    cluster.objects.pop(REPORT)


def _not_in_it(cluster: StandIn) -> None:
    cluster.objects[REPORT]["results"].pop()


def _may_not(cluster: StandIn) -> None:
    cluster.forbidden.add(REPORT)


def _hostile(cluster: StandIn) -> None:
    cluster.objects[REPORT] = {"results": [7, {"rule": "ready", "resources": 7}, {"rule": "ready", "resources": [7]}]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_no_scanner, "no scanner runs"),
        (_released, "no scanner runs"),
        (_dead_scanner, "no scanner runs"),
        (_no_kind, "install the definitions of openreports.io"),
        (_no_report, "run the scanner with --reports"),
        (_not_in_it, "has not looked at namespace shop"),
        (_may_not, "the API server answers 403"),
        (_hostile, "has not looked at namespace shop"),
    ],
)
def test_without_a_report_nothing_is_called_clean(run: Run, change: Any, says: str) -> None:
    cluster = reported(deployment("shop", "web"))
    change(cluster)
    done = run(cluster, "graduate", "shop", *_ANY_TIME)
    assert (done.code, cluster.patched, says in done.out) == (1, [], True), done.out


def test_a_scanner_that_has_not_looked_since_the_last_step_is_waited_for(run: Run) -> None:
    cluster = reported(deployment("shop", "web"), mode="inject")
    cluster.objects[REPORT] = report("audit", 1000)
    done = run(cluster, "graduate", "shop", *_DAY)
    assert (done.code, "has not looked since the namespace has mode inject" in done.out) == (1, True)


def _while_pods_are_tried(cluster: StandIn, change: Any) -> None:
    def meanwhile(method: str, path: str) -> None:
        if method == "POST":
            change(cluster.objects[NAMESPACE]["metadata"])

    cluster.meanwhile = meanwhile


@pytest.mark.parametrize(
    "change",
    [
        lambda metadata: metadata["labels"].update({MODE_LABEL: "enforce"}),
        lambda metadata: metadata["labels"].pop(MODE_LABEL, None),
        lambda metadata: metadata["labels"].update({"pod-security.kubernetes.io/enforce": "restricted"}),
        lambda metadata: metadata.update(uid="another"),
        lambda metadata: metadata.update(deletionTimestamp="2027-01-01T00:00:00Z"),
    ],
    ids=["tightened", "loosened", "another label", "made anew", "being deleted"],
)
def test_a_namespace_that_changes_while_it_is_looked_at_is_left_alone(run: Run, change: Any) -> None:
    cluster = reported(deployment("shop", "web"))
    _while_pods_are_tried(cluster, change)
    done = run(cluster, "graduate", "shop", *_DAY)
    assert (done.code, cluster.patched) == (1, [])
    assert "changed meanwhile; run the command again" in done.out


def test_a_change_in_the_last_moment_wins(run: Run) -> None:
    """Somebody writes the label between the last look and the patch, which names the version that it is based on."""
    cluster = reported(deployment("shop", "web"))

    def meanwhile(method: str, path: str) -> None:
        if method == "PATCH":
            cluster.objects[NAMESPACE]["metadata"].update(resourceVersion="7", labels={MODE_LABEL: "enforce"})

    cluster.meanwhile = meanwhile
    done = run(cluster, "graduate", "shop", *_DAY)
    assert (done.code, cluster.patched, _mode(cluster)) == (1, [], "enforce")
    assert "changed meanwhile" in done.out


def test_annotations_that_others_write_do_not_disturb_it(run: Run) -> None:
    cluster = reported(deployment("shop", "web"))
    _while_pods_are_tried(cluster, lambda metadata: metadata.update(resourceVersion="7", annotations={"seen": "now"}))
    assert run(cluster, "graduate", "shop", *_DAY).code == 0
    assert _mode(cluster) == "inject"


def test_a_user_who_may_not_change_the_namespace_is_told_which_right_is_missing(run: Run) -> None:
    cluster = reported(deployment("shop", "web"))

    def meanwhile(method: str, path: str) -> None:
        if method == "PATCH":
            cluster.forbidden.add(NAMESPACE)

    cluster.meanwhile = meanwhile
    done = run(cluster, "graduate", "shop", *_DAY)
    assert (done.code, _mode(cluster)) == (1, "audit")
    assert "answers 403" in done.out
    assert "needs the verb patch" in done.out


def test_a_dry_run_stores_nothing_and_asks_the_api_server_all_the_same(run: Run) -> None:
    cluster = reported(deployment("shop", "web"))
    done = run(cluster, "graduate", "shop", "--dry-run", *_DAY, "-o", "json")
    assert (done.code, _steps(done), cluster.patched) == (0, [("audit", "inject", "possible")], [])
    assert ("PATCH", NAMESPACE) in cluster.asked
    assert _mode(cluster) == "audit"


@pytest.mark.parametrize(
    ("mode", "options", "says"),
    [
        ("enforce", ("--to", "inject"), "never loosens"),
        ("inject", ("--to", "audit"), "never loosens"),
        ("Enforce", (), "is none of audit, inject or enforce"),
    ],
)
def test_a_mode_that_it_cannot_go_on_from(run: Run, mode: str, options: tuple[str, ...], says: str) -> None:
    cluster = reported(deployment("shop", "web"), mode=mode)
    done = run(cluster, "graduate", "shop", *options, *_ANY_TIME)
    assert (done.code, cluster.patched, says in done.err) == (2, [], True)


@pytest.mark.parametrize("name", ["none", "../shop", "shop/status", "shop?x=y", "Shop", ""])
def test_a_name_never_reaches_another_object(run: Run, name: str) -> None:
    cluster = reported(deployment("shop", "web"))
    assert run(cluster, "graduate", name, *_ANY_TIME).code == 2
    assert cluster.patched == []
    assert {method for method, _ in cluster.asked} <= {"GET"}


def test_a_system_namespace_is_refused(run: Run) -> None:
    cluster = reported(deployment("shop", "web"))
    cluster.add("kube-system", None)
    assert run(cluster, "graduate", "kube-system", *_ANY_TIME).code == 1
    assert cluster.patched == []


def test_times_are_written_as_kubernetes_writes_them() -> None:
    assert duration("1h30m") == timedelta(minutes=90)
    assert duration("0") == timedelta()
    for wrong in ("", "1", "1d", "-1h", "1e9h", "99999999999999h"):
        with pytest.raises(Exception, match="expected a time such as 24h"):
            duration(wrong)
