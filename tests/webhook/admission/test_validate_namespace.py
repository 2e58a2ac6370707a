"""Tightening the mode of a namespace lists the Revisions whose new pods would be refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.paths import REVIEWS
from webhook.configuration.model import Configuration
from webhook.decide import decide, lookup
from webhook.request import Request, User
from webhook.snapshot import Fetched, RuntimeClassRecord, Snapshot

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


def _warnings(old: str | None, new: str | None, revisions: tuple[Any, ...] | None) -> tuple[str, ...]:
    decision = decide(
        _request(old, new), Configuration(), Snapshot(runtime_classes=_CLASSES, fetched=Fetched(revisions=revisions))
    )
    assert decision.allowed
    return decision.warnings


def test_the_failing_revisions_are_listed_with_their_rules() -> None:
    clean = _revision("hello-00001")
    clean["spec"]["containers"][0]["env"] = []
    clean["metadata"]["name"] = "clean-00001"
    warnings = _warnings("audit", "enforce", (_revision("payments-00001"), clean))
    assert warnings == (
        "[mode] 1 of 2 routable Revisions would be refused at their next cold start in mode enforce:",
        "[mode] payments-00001: secrets/plaintext-env,secrets/kubernetes-secret-env",
    )


def test_revisions_without_routes_are_not_counted() -> None:
    assert _warnings("audit", "enforce", (_revision("payments-00001", "reserve"),)) == ()


def test_a_failed_look_up_gives_a_warning() -> None:
    assert "unavailable" in _warnings("audit", "enforce", None)[0]


def test_an_unreadable_revision_is_listed() -> None:
    assert "odd: cannot be read" in _warnings(None, "enforce", ({"metadata": {"name": "odd"}, "spec": 7},))[1]


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
        "[mode] 2 routable Revisions opt in in mode audit; their next pods are injected:",
        "[mode] own: opts in",
        "[mode] annotated: opts in",
    )
    assert _warnings(None, "audit", revisions)[-3:] == expected
    assert not [each for each in _warnings("audit", "inject", revisions) if "opt" in each]
    assert not [each for each in _warnings(None, "enforce", revisions) if "opt" in each]
