"""The registration against an expected table: which webhook is called for what, and what happens without an answer."""

from __future__ import annotations

from typing import Any

from tests.manifests.rendering import rendered
from webhook.decide import PATHS

_OWN = ["morphisms-system", "kube-system", "kube-node-lease"]
_MODES = ("audit", "inject", "enforce")

# Entry -> (path, failure policy, timeout, namespaces' modes).
_TABLE: dict[str, tuple[str, str, int, tuple[str, ...]]] = {
    **{
        f"{word}.{entry}": (path, policy, seconds, modes)
        for word, path in (("mutate-pod", "/mutate/pod"), ("validate-pod", "/validate/pod"))
        for entry, policy, seconds, modes in (
            ("enforce", "Fail", 5, ("enforce",)),
            ("inject-asks", "Fail", 5, ("inject",)),
            ("inject", "Ignore", 5, ("inject",)),
            ("audit-asks", "Fail", 2, ("audit",)),
            ("audit", "Ignore", 2, ("audit",)),
            ("absent-asks", "Fail", 5, ()),
        )
    },
    "validate-pod.absent": ("/validate/pod", "Ignore", 5, ()),
    "mutate-service.enforce": ("/mutate/service", "Fail", 5, ("enforce",)),
    "mutate-service.inject-asks": ("/mutate/service", "Fail", 5, ("inject",)),
    "mutate-service.inject": ("/mutate/service", "Ignore", 5, ("inject",)),
    "mutate-service.audit-asks": ("/mutate/service", "Fail", 2, ("audit",)),
    "mutate-service.audit": ("/mutate/service", "Ignore", 2, ("audit",)),
    "mutate-service.absent-asks": ("/mutate/service", "Fail", 5, ()),
    "mutate-service.absent": ("/mutate/service", "Ignore", 5, ()),
    "validate-service.enforce": ("/validate/service", "Fail", 5, ("enforce",)),
    "validate-service.inject": ("/validate/service", "Ignore", 5, ("inject",)),
    "validate-service.audit": ("/validate/service", "Ignore", 2, ("audit",)),
    "validate-service.absent": ("/validate/service", "Ignore", 5, ()),
    **{
        f"{word}.{mode}": (path, "Fail" if mode == "enforce" else "Ignore", 2 if mode == "audit" else 5, (mode,))
        for word, path in (("validate-binding", "/validate/binding"), ("validate-connect", "/validate/connect"))
        for mode in _MODES
    },
    "validate-namespace": ("/validate/namespace", "Ignore", 5, ("any",)),
}
_RESOURCES = {
    "/mutate/pod": {("pods", "CREATE")},
    "/validate/pod": {
        ("pods", "CREATE"),
        ("pods", "UPDATE"),
        ("pods/ephemeralcontainers", "UPDATE"),
        ("pods/status", "UPDATE"),
    },
    "/mutate/service": {("services", "CREATE"), ("services", "UPDATE")},
    "/validate/service": {
        (resource, operation)
        for resource in ("services", "configurations", "revisions")
        for operation in ("CREATE", "UPDATE")
    },
    "/validate/binding": {("pods/binding", "CREATE"), ("bindings", "CREATE")},
    "/validate/connect": {("pods/exec", "CONNECT"), ("pods/attach", "CONNECT"), ("pods/portforward", "CONNECT")},
    "/validate/namespace": {("namespaces", "CREATE"), ("namespaces", "UPDATE")},
}


def _webhooks() -> dict[str, dict[str, Any]]:
    kinds = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
    found = [each for each in rendered("install.yaml") if each["kind"] in kinds]
    assert [each["metadata"]["name"] for each in found] == ["morphisms", "morphisms"]
    return {
        webhook["name"].removesuffix(".morphisms.dev"): {**webhook, "mutates": item["kind"] == kinds[0]}
        for item in found
        for webhook in item["webhooks"]
    }


def test_the_table_is_registered_and_nothing_else() -> None:
    registered = {
        name: (each["clientConfig"]["service"]["path"], each["failurePolicy"], each["timeoutSeconds"], _modes(each))
        for name, each in _webhooks().items()
    }
    assert registered == _TABLE


def test_every_path_of_the_server_is_registered() -> None:
    webhooks = _webhooks().values()
    assert {each["clientConfig"]["service"]["path"] for each in webhooks} == set(PATHS)
    for each in webhooks:
        assert each["mutates"] is each["clientConfig"]["service"]["path"].startswith("/mutate/")


def test_each_path_is_asked_about_what_it_decides() -> None:
    for name, each in _webhooks().items():
        asked = {
            (resource, operation)
            for rule in each["rules"]
            for resource in rule["resources"]
            for operation in rule["operations"]
        }
        assert asked == _RESOURCES[each["clientConfig"]["service"]["path"]], name
        for rule in each["rules"]:
            assert rule["apiVersions"] == ["v1"]
            assert rule["scope"] == ("Cluster" if name == "validate-namespace" else "Namespaced")
            knative = each["clientConfig"]["service"]["path"].endswith("/service")
            assert rule["apiGroups"] == (["serving.knative.dev"] if knative else [""])


def test_nothing_of_the_clusters_own_is_touched() -> None:
    for each in _webhooks().values():
        name, *_ = each["namespaceSelector"]["matchExpressions"]
        assert name == {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": _OWN}


def test_what_holds_for_every_entry() -> None:
    for each in _webhooks().values():
        assert each["sideEffects"] == "None"
        assert each["matchPolicy"] == "Equivalent"
        assert each["admissionReviewVersions"] == ["v1"]
        assert each.get("reinvocationPolicy") == ("IfNeeded" if each["mutates"] else None)
        # Labels of an object are its author's; and for CONNECT any such selector matches nothing.
        assert "objectSelector" not in each
        assert "caBundle" not in each["clientConfig"], "it is the leader's to write"
        assert each["clientConfig"]["service"]["port"] == 443


def test_the_server_answers_before_anybody_gives_up() -> None:
    from webhook.server import _LIMITS

    assert min(each["timeoutSeconds"] for each in _webhooks().values()) > _LIMITS.deadline_seconds


def _modes(webhook: dict[str, Any]) -> tuple[str, ...]:
    """() for no mode."""
    _, *rest = webhook["namespaceSelector"]["matchExpressions"]
    if not rest:
        return ("any",)
    (mode,) = rest
    assert mode["key"] == "morphisms.dev/mode"
    if mode["operator"] == "NotIn":
        assert set(mode["values"]) == set(_MODES)
        return ()
    assert mode["operator"] == "In"
    return tuple(mode["values"])
