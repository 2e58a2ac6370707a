"""Laws of exceptions: they cover what the oracle says that a controller made, and nothing that one may not cover."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.webhook.properties.oracle import workloads_of
from tests.webhook.properties.pods import pods
from tests.webhook.properties.worlds import CLUSTERS, NAMESPACE, review
from webhook.configuration.model import Configuration
from webhook.decide import decide
from webhook.modes import Mode
from webhook.review import read_review
from webhook.rules import BY_ID, why_not_excepted

Json = dict[str, Any]

_COVERABLE = sorted(rule for rule in BY_ID if not why_not_excepted(rule))
_ENDS = datetime(2027, 1, 31, tzinfo=UTC)
_HASH = "5455455bfd"

_ACCOUNTS = {
    "ReplicaSet": "replicaset-controller",
    "StatefulSet": "statefulset-controller",
    "DaemonSet": "daemon-set-controller",
    "Job": "job-controller",
}
_LABELS = {
    "pod-template-hash": _HASH,
    "serving.knative.dev/revision": "payments-00001",
    "serving.knative.dev/service": "payments",
}


def _owner(kind: str, name: str) -> Json:
    return {
        "apiVersion": "batch/v1" if kind == "Job" else "apps/v1",
        "kind": kind,
        "name": name,
        "controller": True,
    }


# A workload as an exception names it, and the owner in the pods that its controller makes.
_MATCHING = st.sampled_from(
    [
        ({"service": "payments"}, _owner("ReplicaSet", f"payments-00001-deployment-{_HASH}")),
        ({"owner": "Deployment/web"}, _owner("ReplicaSet", f"web-{_HASH}")),
        ({"owner": f"ReplicaSet/web-{_HASH}"}, _owner("ReplicaSet", f"web-{_HASH}")),
        ({"owner": "StatefulSet/web"}, _owner("StatefulSet", "web")),
        ({"owner": "DaemonSet/web"}, _owner("DaemonSet", "web")),
        ({"owner": "Job/web"}, _owner("Job", "web")),
        ({"owner": "CronJob/web"}, _owner("Job", "web-29392321")),
    ]
)
# What an attacker, or chance, changes in one member of the owner, one label, the user, or the exception.
_CHANGES = st.one_of(
    st.just(("", "", "")),
    st.tuples(st.just("owner"), st.just("apiVersion"), st.sampled_from(["v1", "evil.example/v1", "apps/v1"])),
    st.tuples(st.just("owner"), st.just("kind"), st.sampled_from([*_ACCOUNTS, "Rollout", "Node"])),
    st.tuples(st.just("owner"), st.just("controller"), st.just(False)),
    st.tuples(
        st.just("owner"),
        st.just("name"),
        st.sampled_from([f"web-{_HASH}", f"payments-00001-deployment-{_HASH}", "web", f"web-x-{_HASH}", "web-1"]),
    ),
    st.tuples(st.just("labels"), st.sampled_from(list(_LABELS)), st.sampled_from([f"x-{_HASH}", "web", ""])),
    st.tuples(
        st.just("user"),
        st.just(""),
        st.sampled_from(
            [
                *(f"system:serviceaccount:kube-system:{name}" for name in _ACCOUNTS.values()),
                "system:kube-controller-manager",
                "dev@example.com",
                "system:serviceaccount:shop:replicaset-controller",
            ]
        ),
    ),
    st.tuples(st.just("exception"), st.just("namespace"), st.just("other")),
)


@settings(max_examples=300)
@given(
    pods(),
    _MATCHING,
    _CHANGES,
    st.lists(st.sampled_from(_COVERABLE), min_size=1, max_size=12, unique=True),
    st.sampled_from([-1, -1, 0, 1]),
    st.sampled_from([Mode.ENFORCE, Mode.ENFORCE, Mode.INJECT, Mode.AUDIT]),
)
def test_an_exception_covers_what_its_workloads_controller_made_and_nothing_else(
    pod: Json, matching: tuple[Json, Json], change: tuple[str, str, Any], rules: list[str], seconds: int, mode: Mode
) -> None:
    workload, owner = matching
    where, key, value = change
    user = value if where == "user" else f"system:serviceaccount:kube-system:{_ACCOUNTS[owner['kind']]}"
    pod["metadata"]["ownerReferences"] = [owner | ({key: value} if where == "owner" else {})]
    labels = _LABELS | ({key: value} if where == "labels" else {})
    pod["metadata"]["labels"] = {**(pod["metadata"].get("labels") or {}), **labels}
    namespace = "other" if where == "exception" else NAMESPACE
    entry = {"namespace": namespace, "rules": rules, "reason": "SEC-123", "expires": "2027-01-31", **workload}
    used = Configuration.model_validate({"exceptions": [entry]})
    body = json.loads(review(pod, "/validate/pod"))
    body["request"]["userInfo"]["username"] = user
    request = read_review(json.dumps(body).encode(), "/validate/pod")
    snapshot = replace(CLUSTERS[mode], now=_ENDS + timedelta(seconds=seconds))

    without, decision = (decide(request, each, snapshot) for each in (Configuration(), used))

    (named,) = workload.values()
    named = named if "/" in named else f"Service/{named}"
    meant = namespace == NAMESPACE and seconds < 0 and named in workloads_of(pod, user)
    event(f"covered: {bool(decision.covered)}")
    if not meant:
        assert decision == without
        return
    assert {each.violation.rule.id for each in decision.covered} <= set(rules)
    assert not {each.rule.id for each in decision.violations} & set(rules)
    assert {each.rule.id for each in without.violations} - set(rules) <= {each.rule.id for each in decision.violations}
    if not decision.allowed:
        assert not without.allowed
