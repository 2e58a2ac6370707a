"""Findings about the cluster itself: what a guarantee rests on, what was seen, and what to do. Pure.

Where nothing can be seen from inside the cluster, such as an API server's encryption at rest, the result is `error`
(not evaluated) with what to look at: it is never a guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from server.kubernetes.untyped import mapping, mappings
from webhook.configuration.model import Configuration
from webhook.configuration.templates_map import TemplatesMap
from webhook.pod.container import display_name
from webhook.scanner.cluster.facts import CLUSTER_GUARDS, GUARDS, ClusterFacts
from webhook.scanner.cluster.guard_texts import DIGESTS, digest_of
from webhook.scanner.finding import ObjectId, link_of
from webhook.scanner.reports.results import Result
from webhook.snapshot import Snapshot
from webhook.wellknown import KMS_NAMESPACE, UNREVIEWED_NAMESPACES

_OUT_OF_A_KUBELETS_REACH: Final = "node-restriction.kubernetes.io/"
_ENTRIES: Final = {
    "mutating": {
        "mutate-pod": ("enforce", "inject-asks", "inject", "audit-asks", "audit", "absent-asks"),
        "mutate-service": ("enforce", "inject-asks", "inject", "audit-asks", "audit", "absent-asks", "absent"),
    },
    "validating": {
        "validate-pod": ("enforce", "inject-asks", "inject", "audit-asks", "audit", "absent-asks", "absent"),
        "validate-service": ("enforce", "inject", "audit", "absent"),
        "validate-binding": ("enforce", "inject", "audit"),
        "validate-connect": ("enforce", "inject", "audit"),
    },
}
_DATA_PATH: Final = frozenset({"activator", "queue-proxy", "autoscaler"})
_MOST_NAMES: Final = 10


def registered_entries(kind: str) -> dict[str, tuple[str, str]]:
    """(path, failure policy) of each entry that the registration must have, by its name."""
    found = {}
    for stem, modes in _ENTRIES[kind].items():
        for mode in modes:
            segment = mode.removesuffix("-asks").replace("absent", "none")
            policy = "Fail" if mode == "enforce" or mode.endswith("-asks") else "Ignore"
            found[f"{stem}.{mode}.morphisms.dev"] = (f"/{stem.replace('-', '/', 1)}/{segment}", policy)
    return found


def cluster_findings(
    configuration: Configuration, snapshot: Snapshot, facts: ClusterFacts, templates: TemplatesMap
) -> Iterator[Result]:
    """Every finding, in the order of what a reader should look at first."""
    for what in facts.unread:
        yield _result("cluster/not-read", "error", "medium", f"not evaluated: {what} could not be read")
    yield from _registration(facts)
    yield from _guards(facts)
    yield from _runtime_classes(configuration, snapshot)
    yield from _labels(configuration)
    yield from _templates(templates)
    yield from _data_path(facts)
    yield from _system_pods(configuration, snapshot, facts)
    yield from _key_server(configuration, facts)
    yield from _encryption_at_rest(facts)


def _registration(facts: ClusterFacts) -> Iterator[Result]:
    if "registration" in facts.unread:
        return
    for kind in _ENTRIES:
        found = facts.registrations.get(kind)
        resource = ObjectId("admissionregistration.k8s.io/v1", f"{kind.title()}WebhookConfiguration", "", "morphisms")
        if found is None:
            message = "is absent, so nothing is injected and nothing is refused; apply the manifests again"
            yield _result("cluster/registration", "fail", "critical", message, resource)
            continue
        entries = {str(each.get("name")): each for each in mappings(found.get("webhooks"))}
        for name, (path, policy) in registered_entries(kind).items():
            entry = entries.get(name)
            if entry is None:
                message = f"the entry {name} is absent, so its requests are not reviewed; apply the manifests again"
                yield _result("cluster/registration", "fail", "critical", message, resource)
                continue
            client = mapping(entry.get("clientConfig"))
            if policy == "Fail" and entry.get("failurePolicy") != "Fail":
                message = f"the entry {name} fails open: while the webhook is away, pods pass; set failurePolicy: Fail"
                yield _result("cluster/fails-open", "fail", "critical", message, resource)
            if mapping(client.get("service")).get("path") != path:
                message = f"the entry {name} calls another path than {path}; apply the manifests again"
                yield _result("cluster/registration", "fail", "critical", message, resource)
            if not client.get("caBundle"):
                message = (
                    f"the entry {name} has no caBundle, so the API server cannot call it; see docs/certificates.md"
                )
                yield _result("cluster/registration", "fail", "high", message, resource)
            left_out = sorted(_left_out(entry) - UNREVIEWED_NAMESPACES)
            if left_out:
                message = f"the entry {name} leaves out namespaces: {_names(left_out)}; nothing is reviewed there"
                yield _result("cluster/registration", "warn", "high", message, resource)


def _left_out(entry: Mapping[str, Any]) -> set[str]:
    expressions = mapping(entry.get("namespaceSelector")).get("matchExpressions")
    return {
        str(value)
        for each in mappings(expressions)
        if each.get("key") == "kubernetes.io/metadata.name" and each.get("operator") == "NotIn"
        for value in (each.get("values") or ())
    }


def _guards(facts: ClusterFacts) -> Iterator[Result]:
    if "guards" in facts.unread:
        return
    for name in (*GUARDS, *CLUSTER_GUARDS):
        policy, binding = facts.policies.get(name), facts.bindings.get(name)
        resource = ObjectId(
            "admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding", "", f"{name}.morphisms.dev"
        )
        severity = "high" if name in GUARDS else "medium"
        if policy is None or binding is None:
            where = "manifests/base/guards" if name in GUARDS else "manifests/components/cluster-guards"
            what = "policy" if policy is None else "binding"
            message = f"the {what} of the guard {name} is absent, so it holds nothing; apply {where}"
            yield _result("cluster/guard", "fail", severity, message, resource)
            continue
        spec, bound = mapping(policy.get("spec")), mapping(binding.get("spec"))
        edited = [
            what
            for what, is_so in (
                ("failurePolicy is not Fail", spec.get("failurePolicy") != "Fail"),
                ("the policy has no validations", not spec.get("validations")),
                ("the policy's text is not that of this release", digest_of(policy) != DIGESTS[name]),
                ("the binding does not deny", "Deny" not in (bound.get("validationActions") or ())),
                ("the binding is for another policy", bound.get("policyName") != f"{name}.morphisms.dev"),
                ("the binding leaves objects out", bool(bound.get("matchResources"))),
            )
            if is_so
        ]
        if edited:
            message = (
                f"the guard {name} was edited: {'; '.join(edited)}; apply it again (morphisms guards --config FILE)"
            )
            yield _result("cluster/guard", "fail", severity, message, resource)


def _runtime_classes(configuration: Configuration, snapshot: Snapshot) -> Iterator[Result]:
    used = {configuration.default_profile_of(name) for name in (*snapshot.namespaces, "")}
    for name in sorted(used):
        profile = configuration.profile_by_name[name]
        for runtime_class in profile.runtimeClasses:
            record = snapshot.runtime_classes.get(runtime_class)
            resource = ObjectId("node.k8s.io/v1", "RuntimeClass", "", runtime_class)
            if record is None:
                message = f"profile {name} uses RuntimeClass {runtime_class}, which is absent; install Kata's"
                yield _result("cluster/runtime-class", "fail", "high", message, resource)
            elif profile.handlers and record.handler not in profile.handlers:
                message = (
                    f"RuntimeClass {runtime_class} has another handler than profile {name} accepts"
                    f" ({', '.join(profile.handlers)}), so its pods would not be confidential; restore the handler"
                )
                yield _result("cluster/runtime-class", "fail", "critical", message, resource)
        if profile.requirements and not any(profile.suits(node) for node in snapshot.nodes.values()):
            message = f"no node suits profile {name}, so its pods stay Pending; label the nodes that host SNP guests"
            yield _result("cluster/nodes", "fail", "high", message)


def _labels(configuration: Configuration) -> Iterator[Result]:
    """With a wrong label a Kata pod does not start, because its guest proves itself; a node-vm has no other proof."""
    for name, profile in sorted(configuration.profile_by_name.items()):
        keys = [each.key for each in profile.requirements if each.operator != "NotIn"]
        if keys and not any(_is_trusted(key) for key in keys):
            severity = "high" if profile.isolation == "node-vm" else "low"
            message = (
                f"profile {name} finds its nodes by labels alone that a kubelet may set on itself; set trustedLabel to"
                f" one below {_OUT_OF_A_KUBELETS_REACH}, and label the nodes with it"
            )
            yield _result("cluster/spoofable-labels", "warn", severity, message)


def _is_trusted(key: str) -> bool:
    return f"{key.partition('/')[0]}/".endswith(_OUT_OF_A_KUBELETS_REACH)


def _templates(templates: TemplatesMap) -> Iterator[Result]:
    for key in sorted(templates.problems):
        message = f"the container templates hold an entry that is none: {display_name(key)}; the webhook writes no such"
        yield _result("cluster/templates", "fail", "high", message)
    current = templates.templates.current
    behind = [name for name in sorted(templates.known) if current and not templates.is_known_to(name, current)]
    if behind:
        message = f"replicas disagree: {_names(behind)} have not read the template of new pods; look at their logs"
        yield _result("cluster/replicas", "warn", "medium", message)


def _data_path(facts: ClusterFacts) -> Iterator[Result]:
    if facts.network is None:
        return
    value = facts.network.get("system-internal-tls", facts.network.get("internal-encryption"))
    if str(value).lower() not in ("enabled", "true"):
        message = (
            "requests travel from the ingress through the activator to the pods without Knative's own encryption"
            " (system-internal-tls in config-network is not Enabled); enable it, or have a mesh encrypt them, which is"
            " not looked at here"
        )
        yield _result(
            "cluster/data-path",
            "warn",
            "high",
            message,
            ObjectId("v1", "ConfigMap", "knative-serving", "config-network"),
        )


def _system_pods(configuration: Configuration, snapshot: Snapshot, facts: ClusterFacts) -> Iterator[Result]:
    profile = configuration.profile_by_name.get("system")
    if profile is None or not facts.system_pods:
        return
    plain = []
    for pod in facts.system_pods:
        metadata, spec = mapping(pod.get("metadata")), mapping(pod.get("spec"))
        node = snapshot.nodes.get(str(spec.get("nodeName")))
        if mapping(metadata.get("labels")).get("app") in _DATA_PATH and node is not None and not profile.suits(node):
            plain.append(str(metadata.get("name")))
    if plain:
        message = (
            f"{_names(plain)} run on nodes that do not suit profile system, and see every request in plain text; see"
            " docs/install.md#what-sees-requests"
        )
        yield _result(
            "cluster/system-pods", "warn", "high", message, ObjectId("v1", "Namespace", "", "knative-serving")
        )


def _key_server(configuration: Configuration, facts: ClusterFacts) -> Iterator[Result]:
    if configuration.verifier.attest is None:
        message = (
            "pods trust the verifier by its certificate alone, so a holder of its key can pose as it; set"
            " verifier.attest, so that each pod attests the verifier first"
        )
        yield _result("cluster/verifier-unattested", "warn", "high", message)
    for workload in facts.key_server:
        spec = mapping(mapping(mapping(workload.get("spec")).get("template")).get("spec"))
        secrets = [
            mapping(each.get("secret")).get("secretName")
            for each in mappings(spec.get("volumes"))
            if each.get("secret")
        ]
        if secrets:
            metadata = mapping(workload.get("metadata"))
            kind = "StatefulSet" if "serviceName" in mapping(workload.get("spec")) else "Deployment"
            message = (
                f"takes keys from Kubernetes Secrets ({_names(sorted(map(str, secrets)))}), so etcd and its backups"
                " hold them; see docs/kms.md for a key server without keys in files"
            )
            resource = ObjectId("apps/v1", kind, KMS_NAMESPACE, str(metadata.get("name")), str(metadata.get("uid", "")))
            yield _result("cluster/keys-in-etcd", "warn", "high", message, resource)


def _encryption_at_rest(facts: ClusterFacts) -> Iterator[Result]:
    """What an API server's own arguments show is evidence of an option, not of what lies on a disk."""
    if not facts.api_servers:
        message = (
            "not evaluated: whether etcd is encrypted at rest; no API server's pod is visible here. Ask the provider"
            " for envelope encryption by a KMS and for encrypted disks and backups"
        )
        yield _result("cluster/encryption-at-rest", "error", "medium", message)
        return
    without = [
        str(mapping(pod.get("metadata")).get("name"))
        for pod in facts.api_servers
        if not any(
            str(argument).startswith("--encryption-provider-config")
            for container in mappings(mapping(pod.get("spec")).get("containers"))
            for argument in (*(container.get("command") or ()), *(container.get("args") or ()))
        )
    ]
    if without:
        message = (
            f"{_names(without)} has no --encryption-provider-config, so etcd holds Secrets in plain text; add one, and"
            " encrypt etcd's disk and backups"
        )
        yield _result("cluster/encryption-at-rest", "fail", "high", message)


def _result(rule: str, result: str, severity: str, message: str, resource: ObjectId | None = None) -> Result:
    return Result(rule, result, severity, message, (("link", link_of(rule)),), resource)


def _names(names: list[str]) -> str:
    shown = [display_name(name) for name in names[:_MOST_NAMES]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
