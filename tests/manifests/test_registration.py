"""The registration against an expected table: which webhook is called for what, and what happens without an answer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import yaml

from certs.authority import make_authority
from certs.ca_bundle import bundle_patch
from certs.periods import Periods
from tests.manifests.rendering import PREVIOUS, rendered
from webhook.decide import PATHS
from webhook.modes import mode_of_label

_OWN = ["morphisms-system", "kube-system", "kube-node-lease"]
_MODES = ("audit", "inject", "enforce")

# Entry -> (path, failure policy, timeout, namespaces).
_TABLE: dict[str, tuple[str, str, int, str]] = {
    **{
        f"{word}.{entry}": (f"{path}/{mode}", policy, seconds, mode)
        for word, path in (("mutate-pod", "/mutate/pod"), ("validate-pod", "/validate/pod"))
        for entry, policy, seconds, mode in (
            ("enforce", "Fail", 5, "enforce"),
            ("inject-asks", "Fail", 5, "inject"),
            ("inject", "Ignore", 5, "inject"),
            ("audit-asks", "Fail", 2, "audit"),
            ("audit", "Ignore", 2, "audit"),
            ("absent-asks", "Fail", 5, "none"),
        )
    },
    "validate-pod.absent": ("/validate/pod/none", "Ignore", 5, "none"),
    "mutate-service.enforce": ("/mutate/service/enforce", "Fail", 5, "enforce"),
    "mutate-service.inject-asks": ("/mutate/service/inject", "Fail", 5, "inject"),
    "mutate-service.inject": ("/mutate/service/inject", "Ignore", 5, "inject"),
    "mutate-service.audit-asks": ("/mutate/service/audit", "Fail", 2, "audit"),
    "mutate-service.audit": ("/mutate/service/audit", "Ignore", 2, "audit"),
    "mutate-service.absent-asks": ("/mutate/service/none", "Fail", 5, "none"),
    "mutate-service.absent": ("/mutate/service/none", "Ignore", 5, "none"),
    "validate-service.enforce": ("/validate/service/enforce", "Fail", 5, "enforce"),
    "validate-service.inject": ("/validate/service/inject", "Ignore", 5, "inject"),
    "validate-service.audit": ("/validate/service/audit", "Ignore", 2, "audit"),
    "validate-service.absent": ("/validate/service/none", "Ignore", 5, "none"),
    **{
        f"{word}.{mode}": (
            f"{path}/{mode}",
            "Fail" if mode == "enforce" else "Ignore",
            2 if mode == "audit" else 5,
            mode,
        )
        for word, path in (("validate-binding", "/validate/binding"), ("validate-connect", "/validate/connect"))
        for mode in _MODES
    },
    "validate-namespace": ("/validate/namespace", "Ignore", 5, "any"),
}
# The namespaces of each mode, by their label: one that is not a mode counts as enforce.
_SELECTORS: dict[str, list[dict[str, Any]]] = {
    "any": [],
    "none": [{"key": "morphisms.dev/mode", "operator": "DoesNotExist"}],
    "audit": [{"key": "morphisms.dev/mode", "operator": "In", "values": ["audit"]}],
    "inject": [{"key": "morphisms.dev/mode", "operator": "In", "values": ["inject"]}],
    "enforce": [
        {"key": "morphisms.dev/mode", "operator": "Exists"},
        {"key": "morphisms.dev/mode", "operator": "NotIn", "values": ["audit", "inject"]},
    ],
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


def test_every_path_of_the_server_that_names_a_mode_is_registered() -> None:
    """Without the label, nothing is asked about bindings and connections. The other paths are the former release's."""
    webhooks = _webhooks().values()
    registered = {each["clientConfig"]["service"]["path"] for each in webhooks}
    wanted = {name for name, path in PATHS.items() if path.mode is not None or name == "/validate/namespace"}
    assert registered == wanted - {"/validate/binding/none", "/validate/connect/none"}
    for each in webhooks:
        assert each["mutates"] is each["clientConfig"]["service"]["path"].startswith("/mutate/")


def test_the_server_answers_the_paths_of_the_release_before_too() -> None:
    kinds = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
    former = [each for each in yaml.safe_load_all(PREVIOUS.read_text()) if each["kind"] in kinds]
    paths = {webhook["clientConfig"]["service"]["path"] for item in former for webhook in item["webhooks"]}
    assert paths <= set(PATHS)
    assert "/mutate/pod" in paths


def test_each_label_that_a_namespace_can_have_belongs_to_one_mode() -> None:
    """Typed wrong, in capitals, or empty: such a namespace counts as enforce and never as one without a mode."""
    for label in (None, "audit", "inject", "enforce", "Enforce", "mistyped", "none", "absent", ""):
        selected = [mode for mode, selector in _SELECTORS.items() if mode != "any" and _selects(selector, label)]
        assert selected == [mode_of_label(label).path_segment], label


def _selects(expressions: list[dict[str, Any]], label: str | None) -> bool:
    """As the API server reads a selector of one label: `NotIn` selects objects without it, too."""
    operators = {
        "Exists": lambda _: label is not None,
        "DoesNotExist": lambda _: label is None,
        "In": lambda values: label in values,
        "NotIn": lambda values: label not in values,
    }
    return all(operators[each["operator"]](each.get("values")) for each in expressions)


def test_each_path_is_asked_about_what_it_decides() -> None:
    for name, each in _webhooks().items():
        asked = {
            (resource, operation)
            for rule in each["rules"]
            for resource in rule["resources"]
            for operation in rule["operations"]
        }
        assert asked == _RESOURCES[PATHS[each["clientConfig"]["service"]["path"]].family], name
        for rule in each["rules"]:
            assert rule["apiVersions"] == ["v1"]
            assert rule["scope"] == ("Cluster" if name == "validate-namespace" else "Namespaced")
            knative = PATHS[each["clientConfig"]["service"]["path"]].family.endswith("/service")
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


def test_the_leader_writes_the_bundle_of_every_entry() -> None:
    authority = make_authority(datetime.now(UTC).replace(microsecond=0), Periods())
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        (item,) = (each for each in rendered("install.yaml") if each["kind"] == kind)
        live = {**item, "metadata": {**item["metadata"], "resourceVersion": "1"}}
        patched = {each["path"] for each in bundle_patch(live, [authority.certificate]) if each["op"] == "add"}
        assert patched == {f"/webhooks/{place}/clientConfig/caBundle" for place in range(len(item["webhooks"]))}


def test_the_server_answers_before_anybody_gives_up() -> None:
    from webhook.server import LIMITS

    assert min(each["timeoutSeconds"] for each in _webhooks().values()) > LIMITS.deadline_seconds


def _modes(webhook: dict[str, Any]) -> str:
    _, *rest = webhook["namespaceSelector"]["matchExpressions"]
    return next(mode for mode, selector in _SELECTORS.items() if selector == rest)
