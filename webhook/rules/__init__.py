"""The policy: one rule per file, named by its id. Admission evaluates `POD`, `BINDING` and `CONNECT`."""

from __future__ import annotations

from typing import Any

from webhook.rules.images import digest, replaced
from webhook.rules.isolation import (
    annotation_change,
    binding_metadata,
    capabilities,
    confinement,
    ephemeral_containers,
    exec,
    foreign_mounts,
    host_namespaces,
    host_path,
    hypervisor_annotations,
    initdata,
    key_server,
    knative_labels,
    measured_pod,
    privileged,
    process_namespace,
    reserved_names,
    user_namespace,
)
from webhook.rules.placement import (
    binding_target,
    node_affinity,
    node_name,
    operating_system,
    profile,
    reserved_nodes,
    runtime_class,
    runtime_handler,
    scheduler,
)
from webhook.rules.rule import BindingSubject, ConnectSubject, Rule, Subject
from webhook.rules.secrets import annotations as own_annotations
from webhook.rules.secrets import (
    consumers,
    foreign_injector,
    init_container,
    kubernetes_secret_env,
    kubernetes_secret_volume,
    last_applied,
    leased,
    node_fetched,
    on_change,
    plaintext_env,
    plaintext_fields,
    references,
    volumes,
)

POD: tuple[Rule[Subject], ...] = tuple(
    module.RULE
    for module in (
        profile,
        runtime_class,
        runtime_handler,
        node_affinity,
        node_name,
        operating_system,
        scheduler,
        reserved_nodes,
        host_namespaces,
        user_namespace,
        privileged,
        capabilities,
        confinement,
        host_path,
        process_namespace,
        hypervisor_annotations,
        ephemeral_containers,
        foreign_mounts,
        reserved_names,
        knative_labels,
        key_server,
        annotation_change,
        initdata,
        measured_pod,
        own_annotations,
        references,
        leased,
        consumers,
        on_change,
        foreign_injector,
        init_container,
        volumes,
        plaintext_env,
        plaintext_fields,
        kubernetes_secret_env,
        kubernetes_secret_volume,
        node_fetched,
        last_applied,
        digest,
        replaced,
    )
)
BINDING: tuple[Rule[BindingSubject], ...] = (binding_metadata.RULE, binding_target.RULE)
CONNECT: tuple[Rule[ConnectSubject], ...] = (exec.RULE,)

NEEDED_FOR_INJECTION: tuple[Rule[Subject], ...] = tuple(rule for rule in POD if rule.needed_for_injection)
_EVERY: tuple[Rule[Any], ...] = (*POD, *BINDING, *CONNECT)
BY_ID: dict[str, Rule[Any]] = {rule.id: rule for rule in _EVERY}

HELD_BY_GUARD: frozenset[str] = frozenset(
    {
        "isolation/host-namespaces",
        "placement/node-name",
        "placement/profile",
        "placement/runtime-class",
        "secrets/init-container",
    }
)
"""What the guard `injection-present` requires of a pod too; an API server that denies it knows no exceptions."""

_ABOUT_CHANGES: frozenset[str] = frozenset(
    {"images/replaced", "isolation/annotation-change", "isolation/ephemeral-containers"}
)
_ABOUT_IDENTITY: frozenset[str] = frozenset({"isolation/key-server", "isolation/knative-labels"})


def why_not_excepted(rule_id: str) -> str:
    """Why no exception of the configuration can cover the rule; empty where one can."""
    rule = BY_ID[rule_id]
    if rule_id in HELD_BY_GUARD:
        return "the guard injection-present holds it too, and knows no exceptions"
    if rule.needed_for_injection:
        return "injection depends on it"
    if rule_id in _ABOUT_CHANGES:
        return "it is about changes of a running pod, which do not come from the pod's controller"
    if rule_id in _ABOUT_IDENTITY:
        return "exceptions themselves depend on it to know whose a pod is"
    if rule in CONNECT:
        return "it is about people who reach into a pod; list their group in execGroups"
    return ""
