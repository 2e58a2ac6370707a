"""Tightening a namespace's mode lists the workloads whose new pods would be refused or begin to opt in."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.paths import REVIEWS
from webhook.configuration.model import Configuration
from webhook.decide import decide, lookup
from webhook.request import Request, User
from webhook.snapshot import LISTED_KINDS, Fetched, Listing, RuntimeClassRecord, Snapshot

_CLASSES = {"kata-qemu-snp": RuntimeClassRecord("kata-qemu-snp", "kata-qemu-snp")}


def _namespace(mode: str | None) -> dict[str, Any]:
    return {"kind": "Namespace", "metadata": {"name": "shop", "labels": {"morphisms.dev/mode": mode} if mode else {}}}


def _request(old: str | None, new: str | None) -> Request:
    return Request(
        uid="1",
        path="/validate/namespace",
        kind=("", "v1", "Namespace"),
        resource=("", "v1", "namespaces"),
        subresource="",
        operation="UPDATE",
        name="shop",
        namespace="shop",
        user=User("admin"),
        object=_namespace(new),
        old_object=_namespace(old),
    )


def _revision(name: str, state: str = "active") -> dict[str, Any]:
    revision = json.loads((REVIEWS / f"revisions-create-{name}-by-controller.json").read_text())["request"]["object"]
    revision["metadata"]["labels"]["serving.knative.dev/routingState"] = state
    return revision


def _answer(
    old: str | None, new: str | None, *listings: Listing, configuration: Configuration | None = None
) -> tuple[str, ...]:
    fetched = Fetched(workloads=listings)
    snapshot = Snapshot(runtime_classes=_CLASSES, fetched=fetched, now=datetime(2027, 1, 1, tzinfo=UTC))
    decision = decide(_request(old, new), configuration or Configuration(), snapshot)
    assert decision.allowed
    return decision.warnings


def _warnings(old: str | None, new: str | None, revisions: tuple[Any, ...] | None) -> tuple[str, ...]:
    return _answer(old, new, Listing("Revision", revisions))


def test_the_failing_revisions_are_listed_with_their_rules() -> None:
    clean = _revision("hello-00001")
    clean["spec"]["containers"][0]["env"] = []
    clean["metadata"]["name"] = "clean-00001"
    warnings = _warnings("audit", "enforce", (_revision("payments-00001"), clean))
    assert warnings == (
        "[mode] 1 of 2 workloads would be refused at their next start in mode enforce:",
        "[mode] Revision/payments-00001: secrets/plaintext-env,secrets/kubernetes-secret-env",
    )


def test_revisions_without_routes_are_not_counted() -> None:
    assert _warnings("audit", "enforce", (_revision("payments-00001", "reserve"),)) == ()


def test_a_failed_look_up_gives_a_warning() -> None:
    assert _warnings("audit", "enforce", None) == (
        "[mode] which Revisions would fail is not known: they could not be listed; see: morphisms check --help",
    )
    decision = decide(_request("audit", "enforce"), Configuration(), Snapshot())
    assert decision.warnings == (
        "[mode] the list of workloads that would fail is unavailable; see: morphisms check --help",
    )


def test_an_unreadable_revision_is_listed() -> None:
    assert "Revision/odd: cannot be read" in _warnings(None, "enforce", ({"metadata": {"name": "odd"}, "spec": 7},))[1]


@pytest.mark.parametrize(("old", "new"), [("enforce", "audit"), ("enforce", None), ("audit", "audit")])
def test_loosening_a_mode_gives_no_warning(old: str | None, new: str | None) -> None:
    assert _warnings(old, new, None) == ()
    assert lookup(_request(old, new), Configuration(), Snapshot()) is None


def test_an_invalid_mode_gives_a_warning() -> None:
    assert "use audit, inject or enforce" in _warnings(None, "enforced", None)[0]


def _clean(name: str, value: str, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    revision = _revision("hello-00001")
    revision["metadata"]["name"] = name
    revision["metadata"]["annotations"] = annotations or {}
    revision["spec"]["containers"][0] |= {"command": ["x"], "env": [{"name": "A", "value": value}]}
    return revision


def test_the_revisions_that_begin_to_opt_in_are_listed() -> None:
    revisions = (
        _clean("plain", "x"),
        _clean("bank-vaults", "vault:secret/data/db#password"),
        _clean("own", "vault:~/db#password"),
        _clean("annotated", "x", {"morphisms.dev/secret-db": "~/db"}),
        _clean("told", "x", {"morphisms.dev/inject": "true"}),
        {"metadata": {"name": "malformed"}, "spec": {"containers": "none"}},
    )
    expected = (
        "[mode] 2 workloads opt in in mode audit; their next pods are injected:",
        "[mode] Revision/own: opts in",
        "[mode] Revision/annotated: opts in",
    )
    assert _warnings(None, "audit", revisions)[-3:] == expected
    assert not [each for each in _warnings("audit", "inject", revisions) if "opt" in each]
    assert not [each for each in _warnings(None, "enforce", revisions) if "opt" in each]


def _pod_template(env: Any = (), annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    container = {"name": "app", "image": "example.com/app@sha256:" + "a" * 64, "command": ["/app"], "env": list(env)}
    return {"metadata": {"annotations": annotations or {}}, "spec": {"containers": [container], **spec}}


def _workload(kind: str, name: str = "web", template: dict[str, Any] | None = None, **members: Any) -> dict[str, Any]:
    template = template or _pod_template(hostNetwork=True)
    metadata = {"name": name, "namespace": "shop", **members.pop("metadata", {})}
    if kind == "Pod":
        metadata = {**template["metadata"], **metadata}
        spec = template["spec"]
    else:
        spec = {"template": template} if kind != "CronJob" else {"jobTemplate": {"spec": {"template": template}}}
    return {"apiVersion": LISTED_KINDS[kind][0], "kind": kind, "metadata": metadata, "spec": spec, **members}


_KINDS = [kind for kind in LISTED_KINDS if kind != "Revision"]


@pytest.mark.parametrize("kind", _KINDS)
def test_a_workload_of_each_kind_that_would_fail_is_listed(kind: str) -> None:
    good = _workload(kind, "good", _pod_template())
    assert _answer("audit", "enforce", Listing(kind, (_workload(kind, "bad"), good))) == (
        "[mode] 1 of 2 workloads would be refused at their next start in mode enforce:",
        f"[mode] {kind}/bad: isolation/host-namespaces",
    )


@pytest.mark.parametrize("kind", _KINDS)
def test_a_workload_of_each_kind_that_begins_to_opt_in_is_listed(kind: str) -> None:
    item = _workload(
        kind, template=_pod_template([{"name": "A", "value": "x"}], {"morphisms.dev/secret-a": "secret/a"})
    )
    assert _answer(None, "audit", Listing(kind, (item,)))[-1] == f"[mode] {kind}/web: opts in"


def test_what_another_workload_makes_is_not_listed_twice() -> None:
    def made_by(kind: str, version: str) -> dict[str, Any]:
        return {"ownerReferences": [{"apiVersion": version, "kind": kind, "name": "x", "controller": True}]}

    listings = (
        Listing("Deployment", (_workload("Deployment", metadata=made_by("Revision", "serving.knative.dev/v1")),)),
        Listing("ReplicaSet", (_workload("ReplicaSet", metadata=made_by("Deployment", "apps/v1")),)),
        Listing("Job", (_workload("Job", metadata=made_by("CronJob", "batch/v1")),)),
        Listing("Pod", (_workload("Pod", metadata=made_by("ReplicaSet", "apps/v1")),)),
    )
    assert _answer("audit", "enforce", *listings) == ()
    theirs = _workload("Pod", metadata=made_by("CloneSet", "apps.kruise.io/v1alpha1"))
    assert "Pod/web" in _answer("audit", "enforce", Listing("Pod", (theirs,)))[1]


def test_what_has_ended_is_not_listed() -> None:
    done, failed, running = (
        {"status": {"conditions": [{"type": "Complete", "status": "False"}, {"type": kind, "status": "True"}]}}
        for kind in ("Complete", "Failed", "Suspended")
    )
    of_kinds = {"done": done, "failed": failed, "running": running}
    jobs = Listing("Job", tuple(_workload("Job", name, **more) for name, more in of_kinds.items()))
    pods = Listing("Pod", (_workload("Pod", "done", status={"phase": "Succeeded"}), _workload("Pod", "running")))
    assert [line.split(":")[0] for line in _answer("audit", "enforce", jobs, pods)[1:]] == [
        "[mode] Job/running",
        "[mode] Pod/running",
    ]


def test_a_running_pod_is_not_blamed_for_the_node_that_the_scheduler_chose() -> None:
    template = _pod_template(nodeName="snp-0", ephemeralContainers=[{"name": "debug", "image": "busybox"}])
    assert _answer("audit", "enforce", Listing("Pod", (_workload("Pod", template=template),))) == ()


def test_more_than_were_listed_is_said() -> None:
    listing = Listing("Deployment", (_workload("Deployment"),), is_whole=False)
    lines = _answer("audit", "enforce", listing, Listing("Job", None))
    assert (
        lines[0] == "[mode] which Jobs would fail is not known: they could not be listed; see: morphisms check --help"
    )
    assert lines[1] == "[mode] there are more Deployments, which were not looked at; see: morphisms check --help"
    assert "1 of 1 workloads" in lines[2]


def test_each_kind_of_line_has_its_place_where_hundreds_fail() -> None:
    """kubectl shows 15 warnings at most, and the API server cuts them off without a word."""
    bad = _pod_template([{"name": "A", "value": "x"}], {"morphisms.dev/secret-a": "secret/a"}, hostNetwork=True)
    listing = Listing("Deployment", tuple(_workload("Deployment", f"web-{index}", bad) for index in range(300)))
    lines = _answer(None, "inject", listing, Listing("Job", None))
    assert len(lines) <= 15
    assert "300 of 300 workloads would be refused" in lines[1]
    assert "[mode] and 295 more" in lines
    assert "[mode] 300 workloads opt in in mode inject; their next pods are injected:" in lines
    assert lines[-1] == "[mode] and 297 more"


def test_the_work_is_bounded() -> None:
    items = tuple(_workload("Deployment", f"web-{index}", _pod_template()) for index in range(500))
    listings = [Listing(kind, tuple({**each, "kind": kind} for each in items)) for kind in ("Deployment", "DaemonSet")]
    listings.append(Listing("StatefulSet", (_workload("StatefulSet"),)))
    assert _answer("audit", "enforce", *listings) == (
        "[mode] 1 more workloads were not looked at; see: morphisms check --help",
    )


def test_an_exception_counts_as_it_will_when_the_pods_start() -> None:
    item = _workload("Deployment", template=_pod_template([{"name": "DB_PASSWORD", "value": "correct-horse-battery"}]))
    entry = {"namespace": "shop", "owner": "Deployment/web", "rules": ["secrets/plaintext-env"], "reason": "SEC-1"}
    assert len(_answer("audit", "enforce", Listing("Deployment", (item,)))) == 2
    for expires, lines in (("2027-02-01", 0), ("2026-12-31", 2)):
        used = Configuration.model_validate({"exceptions": [entry | {"expires": expires}]})
        assert len(_answer("audit", "enforce", Listing("Deployment", (item,)), configuration=used)) == lines


@pytest.mark.parametrize(
    "item", [{}, {"metadata": 7}, {"metadata": {"name": "x"}, "spec": None}, {"spec": {"template": 7}}]
)
@pytest.mark.parametrize("kind", LISTED_KINDS)
def test_an_object_that_cannot_be_read_is_listed_or_left_out(kind: str, item: dict[str, Any]) -> None:
    version = LISTED_KINDS[kind][0]
    lines = _answer("audit", "enforce", Listing(kind, ({"apiVersion": version, "kind": kind, **item},)))
    assert len(lines) in (0, 2)
