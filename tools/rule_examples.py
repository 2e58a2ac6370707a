"""The examples of docs/rule-examples.yaml, and what admission decides on them in mode enforce."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from measured.initdata import write_initdata
from measured.measured_document import write_document
from webhook.configuration.model import Configuration
from webhook.decide import decide
from webhook.decision import Decision
from webhook.modes import Mode
from webhook.review import read_review
from webhook.snapshot import Snapshot, snapshot_of_objects
from webhook.wellknown import INITDATA

DOCS: Final = Path(__file__).parent.parent / "docs"

Json = dict[str, Any]

_IMAGE: Final = "registry.example/app@sha256:" + "0123456789abcdef" * 4
_POD: Final[Json] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {"containers": [{"name": "app", "image": _IMAGE, "command": ["/app"]}]},
}
_CLASS: Final = "kata-qemu-snp"
_SNP: Final = {"amd.feature.node.kubernetes.io/snp": "true"}
_CLUSTER: Final[list[Json]] = [
    {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "snp-0", "labels": _SNP}},
    {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "plain-0", "labels": {}}},
    {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": _CLASS}, "handler": _CLASS},
]


def examples() -> dict[str, Json]:
    """By rule, a fragment that violates it (`bad`) and one that does not (`good`), as texts of YAML."""
    found: dict[str, Json] = yaml.safe_load((DOCS / "rule-examples.yaml").read_text())
    return found


def decided(example: Json, which: str, *, as_written: bool) -> Decision:
    """The decision in mode enforce on the object itself, or on what injection makes of it.

    Raises ValueError when injection is refused.
    """
    of, fragment = example.get("of", "pod"), yaml.safe_load(example[which])
    objects, configuration = copy.deepcopy(_CLUSTER), Configuration.model_validate({"execGroups": ["on-call"]})
    request: Json = {"uid": "1", "operation": "CREATE", "namespace": "shop", "userInfo": {"username": "dev"}}
    path = "/validate/pod"
    if of == "binding":
        path = "/validate/binding"
        request |= {"subResource": "binding", "object": {"apiVersion": "v1", "kind": "Binding", **fragment}}
        request["object"].setdefault("metadata", {})["name"] = "web"
    elif of == "connect":
        path = "/validate/connect"
        request |= {"operation": "CONNECT", "subResource": "exec", "name": "web"}
        request["userInfo"] |= fragment
        request["object"] = {"apiVersion": "v1", "kind": "PodExecOptions", "command": ["sh"]}
    elif of == "class":
        (runtime_class,) = [each for each in objects if each["metadata"]["name"] == _CLASS]
        runtime_class |= fragment
        pod = copy.deepcopy(_POD)
        pod["spec"]["runtimeClassName"] = _CLASS
        request["object"] = pod
    else:
        request["object"] = _laid_over(copy.deepcopy(_POD), fragment)
        request["namespace"] = request["object"]["metadata"]["namespace"]
        if example.get("measured") and which == "bad":
            data = {"version": 1, "containers": [], "images": {}, "automountsToken": True, "pod": {}}
            annotations = request["object"]["metadata"].setdefault("annotations", {})
            annotations[INITDATA] = write_initdata(write_document(data, {}))
    snapshot = replace(snapshot_of_objects(objects), now=datetime(2027, 1, 1, tzinfo=UTC))
    snapshot = replace(
        snapshot, namespaces={**snapshot.namespaces, "shop": Mode.ENFORCE, "morphisms-kms": Mode.ENFORCE}
    )
    if of == "update":
        old = _injected(copy.deepcopy(_POD), request, configuration, snapshot)
        request |= {"operation": "UPDATE", "oldObject": old, "object": _laid_over(copy.deepcopy(old), fragment)}
    elif path == "/validate/pod" and not as_written:
        request["object"] = _injected(request["object"], request, configuration, snapshot)
    return _decide(path, request, configuration, snapshot)


def _injected(pod: Json, request: Json, configuration: Configuration, snapshot: Snapshot) -> Json:
    decision = _decide("/mutate/pod", {**request, "object": pod}, configuration, snapshot)
    if decision.denial is not None:
        raise ValueError(decision.denial.message)
    return pod if decision.result is None else copy.deepcopy(decision.result)


def _decide(path: str, request: Json, configuration: Configuration, snapshot: Snapshot) -> Decision:
    kind = request["object"]["kind"]
    whole = {
        "kind": {"group": "", "version": "v1", "kind": kind},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        **request,
    }
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": whole}
    return decide(read_review(json.dumps(review).encode(), path), configuration, snapshot)


def _laid_over(base: Json, fragment: Json) -> Json:
    """The object with the fragment's fields; lists of named things are joined by name."""
    for key, value in fragment.items():
        old = base.get(key)
        if value is None:
            base.pop(key, None)
        elif isinstance(value, dict) and isinstance(old, dict):
            _laid_over(old, value)
        elif isinstance(value, list) and isinstance(old, list):
            for each in value:
                same = [one for one in old if isinstance(each, dict) and one.get("name") == each.get("name")]
                if same:
                    _laid_over(same[0], each)
                else:
                    old.append(each)
        else:
            base[key] = value
    return base
