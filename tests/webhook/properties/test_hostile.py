"""Every input gets an answer: `read_review` raises at most ReviewError, and `decide` raises nothing."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.webhook.properties import rfc6902
from tests.webhook.properties.pods import pods
from tests.webhook.properties.services import services
from tests.webhook.properties.worlds import CLUSTERS, NAMESPACE, SNP_LABEL, WORLDS, World, ask, modes, review, worlds
from webhook.decide import PATHS, decide, lookup
from webhook.errors import ReviewError
from webhook.modes import Mode
from webhook.request import Request, User
from webhook.review import read_review, write_review
from webhook.snapshot import LISTED_KINDS, Fetched, Listing

Json = dict[str, Any]

_texts = st.one_of(
    st.sampled_from(
        ["", "true", "vault:", "${vault:", "morphisms-init", "$(A)", "[" * 3000, "1" * 5000, "\x00", "a/b#c"]
    ),
    st.text(max_size=8),
)
_leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2), st.sampled_from([10**30, -(2**63), 1e300, 0.5]), _texts
)
_json = st.recursive(
    _leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_texts, inner, max_size=3)),
    max_leaves=6,
)


def _places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for step, child in items for place in _places(child, (*path, step)))]


def _spoil(item: Json, data: st.DataObject, most: int = 2) -> Any:
    """The object with random JSON in place of a few of its parts."""
    holder = {"": copy.deepcopy(item)}
    for _ in range(data.draw(st.integers(1, most))):
        *parents, last = data.draw(st.sampled_from([("", *place) for place in _places(holder[""])]))
        here: Any = holder
        for step in parents:
            here = here[step]
        here[last] = data.draw(_json)
    return holder[""]


def _answer(item: Any, path: str, world: World, mode: Mode) -> Json:
    try:
        request = read_review(review(item, path), path)
    except ReviewError:
        return {}
    return json.loads(write_review("u", decide(request, world.configuration, CLUSTERS[mode])))  # type: ignore[no-any-return]


@settings(max_examples=200)
@given(pods(), worlds, modes, st.sampled_from(["/mutate/pod", "/validate/pod"]), st.data())
def test_a_malformed_pod_is_answered(pod: Json, world: World, mode: Mode, path: str, data: st.DataObject) -> None:
    _answer(_spoil(pod, data), path, world, mode)


@given(pods(), worlds, st.data())
def test_a_malformed_injected_pod_is_answered(pod: Json, world: World, data: st.DataObject) -> None:
    decision = ask(pod, "/mutate/pod", world, Mode.INJECT)
    after = _spoil(rfc6902.apply(pod, decision.operations), data)
    for path in ("/mutate/pod", "/validate/pod"):
        _answer(after, path, world, Mode.ENFORCE)


@given(services(), worlds, modes, st.data())
def test_a_malformed_service_is_answered(service: Json, world: World, mode: Mode, data: st.DataObject) -> None:
    for path in ("/mutate/service", "/validate/service"):
        request = Request(
            "u",
            path,
            ("serving.knative.dev", "v1", "Service"),
            ("serving.knative.dev", "v1", "services"),
            "",
            data.draw(st.sampled_from(["CREATE", "UPDATE"])),
            "payments",
            NAMESPACE,
            User("dev"),
            _object(_spoil(service, data)),
            _object(_spoil(service, data)),
        )
        write_review("u", decide(request, world.configuration, CLUSTERS[mode]))


def _object(item: Any) -> Json | None:
    return item if isinstance(item, dict) else None


def _rich_pod() -> Json:
    """One pod that uses every field that a decision reads."""
    return {
        "metadata": {
            "namespace": NAMESPACE,
            "labels": {"serving.knative.dev/service": "payments", "serving.knative.dev/revision": "payments-1"},
            "annotations": {
                "morphisms.dev/inject": "true",
                "morphisms.dev/secret-db": "~/db#password@2",
                "morphisms.dev/env-from": "secret/a,secret/b@2",
                "morphisms.dev/containers": "app,warm",
                "morphisms.dev/agent": "sidecar",
                "morphisms.dev/on-change": "signal:SIGHUP:app",
                "morphisms.dev/status": '{"injector":1}',
                "kubectl.kubernetes.io/last-applied-configuration": '{"env":[{"name":"A","value":"b"}]}',
                "traffic.sidecar.istio.io/excludeOutboundPorts": "15020",
            },
        },
        "spec": {
            "runtimeClassName": "gvisor",
            "overhead": {"memory": "1Mi"},
            "nodeSelector": {"sandbox/kind": "gvisor"},
            "nodeName": "",
            "schedulerName": "default-scheduler",
            "serviceAccountName": "payments",
            "hostNetwork": False,
            "hostUsers": True,
            "shareProcessNamespace": True,
            "os": {"name": "linux"},
            "securityContext": {"runAsUser": 1000, "fsGroup": None},
            "tolerations": [{"key": "a", "operator": "Exists", "value": "", "effect": "NoSchedule"}],
            "imagePullSecrets": [{"name": "other"}],
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {"matchExpressions": [{"key": SNP_LABEL, "operator": "In", "values": ["true"]}]},
                            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]},
                        ]
                    }
                }
            },
            "initContainers": [
                {"name": "istio-validation", "restartPolicy": "Never"},
                {"name": "warm", "command": ["x"], "env": [{"name": "A", "value": "vault:a/b#c"}]},
            ],
            "containers": [
                {
                    "name": "app",
                    "image": "app@sha256:" + "0" * 64,
                    "command": ["/bin/app"],
                    "args": ["$(HOME)"],
                    "env": [
                        {"name": "DB", "value": "x${vault:a/b#c}"},
                        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
                    ],
                    "envFrom": [{"secretRef": {"name": "a"}}],
                    "ports": [{"name": "user-port", "containerPort": 8080}],
                    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1"}},
                    "securityContext": {"runAsUser": 1000, "privileged": False},
                    "volumeMounts": [{"name": "keys", "mountPath": "/keys", "readOnly": True}],
                },
                {"name": "queue-proxy", "image": "q"},
            ],
            "ephemeralContainers": [{"name": "debugger", "image": "x"}],
            "volumes": [
                {"name": "keys", "projected": {"sources": [{"secret": {"name": "a"}}]}},
                {"name": "host", "hostPath": {"path": "/"}},
                {"name": "more", "secret": {"secretName": "a"}},
            ],
        },
    }


_ODD_VALUES: list[Any] = [
    None,
    True,
    -1,
    10**30,
    1.5,
    "",
    "x" * 300,
    "[" * 100_000,
    [],
    [None],
    [[]],
    [{}],
    {},
    {"a": {}},
]


@pytest.mark.parametrize("odd", _ODD_VALUES, ids=lambda odd: repr(odd)[:12])
@pytest.mark.parametrize("injected", [False, True], ids=["as written", "injected"])
def test_odd_values_in_every_field_are_answered(odd: Any, injected: bool) -> None:
    pod, world = _rich_pod(), WORLDS[-1]
    if injected:
        pod["spec"].update(runtimeClassName=None, nodeSelector=None, overhead=None, ephemeralContainers=None)
        decision = ask(pod, "/mutate/pod", world, Mode.ENFORCE)
        assert decision.outcome == "mutated", decision.denial
        pod = rfc6902.apply(pod, decision.operations)
    raised = []
    for place in _places(pod)[1:]:
        spoiled = copy.deepcopy(pod)
        here: Any = spoiled
        for step in place[:-1]:
            here = here[step]
        here[place[-1]] = odd
        for path in ("/mutate/pod", "/validate/pod"):
            try:
                _answer(spoiled, path, world, Mode.ENFORCE)
            except Exception as error:
                raised.append((path, place, repr(error)[:80]))
    assert raised == []


_KINDS = [(kind, path) for path, accepted in PATHS.items() for kind in sorted(accepted.kinds)]


@settings(max_examples=200)
@given(st.sampled_from(_KINDS), _json, _json, st.data(), worlds, modes)
def test_random_objects_are_answered_on_every_path(
    target: tuple[tuple[str, str, str], str], new: Any, old: Any, data: st.DataObject, world: World, mode: Mode
) -> None:
    kind, path = target
    shells: list[Json] = [
        {"metadata": new, "target": old},
        {"metadata": {"labels": new, "annotations": old, "name": "x"}, "target": {"name": "n"}},
        {"metadata": {"annotations": {"morphisms.dev/inject": "true"}}, "spec": new},
        {"spec": {"template": new}},
        {"spec": {"containers": [{"name": "a", "env": new, "volumeMounts": old}], "volumes": new}},
        {"spec": {"template": {"metadata": old, "spec": {"containers": [{"image": new}]}}}},
    ]
    objects = st.sampled_from([*shells, None, new if isinstance(new, dict) else {}])
    operation = data.draw(st.sampled_from(["CREATE", "UPDATE", "DELETE", "CONNECT", ""]))
    item, before = data.draw(objects), data.draw(objects)
    request = Request("u", path, kind, kind, "exec", operation, "x", NAMESPACE, User("u"), item, before)
    fetched = Fetched(
        pod=data.draw(objects),
        workloads=tuple(
            Listing(kind, tuple(each for each in (item, before) if each is not None)) for kind in LISTED_KINDS
        ),
    )
    write_review("u", decide(request, world.configuration, CLUSTERS[mode].with_fetched(fetched)))
    write_review("u", decide(request, world.configuration, None, offline_mode=mode))


@settings(max_examples=200)
@given(st.one_of(st.binary(max_size=200), _json.map(lambda value: json.dumps(value).encode())))
@example(b"")
@example(b"\xff\xfe")
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b'{"kind":"AdmissionReview","kind":"AdmissionReview"}')
@example(b"1" * 100_000)
@example(b"-" + b"9" * 5000 + b"e999999999")
@example(b'"\\ud800"')
@example(b'{"\\udfff":1}')
@example(b"NaN")
@example(b"\xef\xbb\xbf{}")
def test_random_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(ReviewError):
        read_review(body, "/mutate/pod")


_SERVICE: Json = {
    "apiVersion": "serving.knative.dev/v1",
    "kind": "Service",
    "metadata": {"name": "payments", "annotations": {"morphisms.dev/inject": "true"}},
    "spec": {"template": {"metadata": {"annotations": {}}, "spec": {"containers": [{"image": "a", "env": []}]}}},
}


@pytest.fixture
def recursion_limit_of_a_server() -> Iterator[None]:
    """Python's own limit, above the frames of pytest: Hypothesis raises the limit of the whole process."""
    before, frames, frame = sys.getrecursionlimit(), 0, sys._getframe()
    while frame.f_back is not None:
        frames, frame = frames + 1, frame.f_back
    sys.setrecursionlimit(1000 + frames)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.parametrize("kind", ["objects", "lists"])
@pytest.mark.parametrize("depth", [90, 330, 950, 20_000])
@pytest.mark.parametrize("place", ["object", "both"])
def test_deep_nesting_is_answered_on_every_path(
    depth: int, place: str, kind: str, recursion_limit_of_a_server: None
) -> None:
    """Through the bytes on the wire, as the server reads and writes them, and as the commands call `decide`."""
    deep = "DEEP"
    text = '{"a":' * depth + "1" + "}" * depth if kind == "objects" else "[" * depth + "1" + "]" * depth
    for (group, version, name), path in _KINDS:
        if path.endswith("service"):
            item: Json = {**copy.deepcopy(_SERVICE), "kind": name}
            if name == "Revision":
                item = {**item["spec"]["template"], "kind": name}
        else:
            item = _rich_pod() if name == "Pod" else {"metadata": {"name": "x"}, "target": {"name": "n"}}
        spoiled = copy.deepcopy(item)
        for part in _places(item)[1:]:
            here: Any = spoiled
            for step in part[:-1]:
                here = here[step]
            if not isinstance(here, dict):
                continue
            here["odd"] = deep
            request = {
                "uid": "u",
                "kind": {"group": group, "version": version, "kind": name},
                "operation": "UPDATE",
                "name": "x",
                "namespace": NAMESPACE,
                "userInfo": {"username": "u"},
                "object": spoiled,
                "oldObject": spoiled if place == "both" else item,
            }
            whole = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
            # Compact, as the API server writes it: the reader of other JSON refuses a depth of 200.
            body = json.dumps(whole, separators=(",", ":"))
            del here["odd"]
            try:
                parsed = read_review(body.replace(f'"{deep}"', text).encode(), path)
            except ReviewError:
                continue
            for mode in (Mode.ENFORCE, Mode.INJECT):
                lookup(parsed, WORLDS[0].configuration, CLUSTERS[mode])
                write_review("u", decide(parsed, WORLDS[0].configuration, CLUSTERS[mode]))


@given(pods(), st.data())
def test_a_malformed_review_is_read_or_refused(pod: Json, data: st.DataObject) -> None:
    spoiled = _spoil(json.loads(review(pod, "/mutate/pod")), data)
    try:
        request = read_review(json.dumps(spoiled).encode(), "/mutate/pod")
    except ReviewError as error:
        said = str(error)
    else:
        said = ""
        write_review(request.uid, decide(request, WORLDS[0].configuration, None))
    assert "kanarie" not in said


@pytest.mark.parametrize("member", ["object", "uid", "kind", "namespace"])
def test_a_duplicate_member_is_refused(member: str) -> None:
    body = review({"spec": {}}, "/mutate/pod").replace(b'"request": {', f'"request": {{"{member}": null,'.encode(), 1)
    with pytest.raises(ReviewError, match="twice"):
        read_review(body, "/mutate/pod")


@pytest.mark.parametrize(
    "body",
    [b'{"spec":{"nodeName":"\\ud800"}}', b'{"spec":{"nodeName":"\xed\xa0\x80"}}', b'{"spec":{"nodeName":"\xff"}}'],
    ids=["lone surrogate, escaped", "lone surrogate", "not UTF-8"],
)
def test_text_that_is_not_unicode_is_refused(body: bytes) -> None:
    whole = review("POD", "/mutate/pod").replace(b'"POD"', body)
    with pytest.raises(ReviewError):
        read_review(whole, "/mutate/pod")
