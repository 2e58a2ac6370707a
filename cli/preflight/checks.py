"""The lines of a preflight, of what was read of the cluster. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from cli.audit.words import mode_word
from cli.live.cluster import LiveCluster
from cli.preflight.injected_pod import requests
from cli.preflight.lines import Line, State
from server.text import printable
from webhook.configuration.profiles import Profile
from webhook.configuration.templates_map import TemplatesMap
from webhook.modes import Mode
from webhook.quantity import amount_of, quantity_text
from webhook.scanner.finding import Evaluation
from webhook.scanner.probes.published import Check, Published
from webhook.snapshot import RuntimeClassRecord, node_record

_PLACEMENT: Final = "docs/install.md"
_RULES: Final = "docs/rules.md"
_ROLLOUT: Final = "docs/rollout.md#what-preflight-looks-at"
_TEMPLATES: Final = "docs/operations.md#container-templates"
_PROBES: Final = "docs/operations.md#what-only-the-cluster-reaches"
_ONLY_FROM_WITHIN: Final = {
    Check.VERIFIER: ("whether pods reach the verifier and trust its certificate", _PROBES),
    Check.VAULT: ("whether pods reach Vault and trust its certificate", _PROBES),
    Check.CLUSTER_NAME: ("whether the verifier knows this cluster and its issuer", "docs/verifier.md"),
    Check.KEY_SET: ("whether the verifier has the cluster's present token keys", _PROBES),
}
# Kinds whose pod template the API server keeps as it was created.
_IN_PLACE_OF_A_CHANGE: Final = {
    "Revision": (
        "cannot be changed: change what makes it, then take away its traffic and tags, or"
        " `kubectl delete revisions.serving.knative.dev {where}`"
    ),
    "Pod": "cannot be changed: `kubectl delete pods {where}`, then create it with the change",
    "Job": "cannot be changed: `kubectl delete jobs {where}`, then create it with the change",
}
# In the status of each kind that replaces its pods step by step: all pods, and those of the present template.
_ROLLING: Final = {
    "Deployment": ("replicas", "updatedReplicas"),
    "StatefulSet": ("replicas", "updatedReplicas"),
    "DaemonSet": ("desiredNumberScheduled", "updatedNumberScheduled"),
}
# Our registrations and guards are called so (manifests/).
_OURS: Final = "morphisms"


def workloads(evaluations: Sequence[Evaluation], target: Mode) -> Iterator[Line]:
    """A line per workload that is not ready, with each rule; one line for those that are."""
    ready = 0
    for each in evaluations:
        title = printable(str(each.object))
        for finding in each.denying:
            place = f" ({finding.field})" if finding.field else ""
            text = f"{title}: [{finding.rule}] {finding.message}{place}"
            yield Line("workload", State.FAILED, text, finding.link, finding.rule)
        for finding in each.not_evaluated:
            if finding not in each.denying:
                text = f"{title}: [{finding.rule}] {finding.message}"
                yield Line("workload", State.NOT_EVALUATED, text, finding.link, finding.rule)
        if each.denying and (how := _IN_PLACE_OF_A_CHANGE.get(each.object.kind)):
            where = f"-n {printable(each.object.namespace)} {printable(each.object.name)}"
            yield Line("workload", State.NOTE, f"{title} {how.format(where=where)}", _ROLLOUT)
        if each.exempt:
            yield Line("workload", State.NOTE, f"{title}: outside the policy: {each.exempt}", _RULES)
        ready += each.is_ready
    if ready:
        text = f"{ready} of {len(evaluations)} workloads comply: {mode_word(target)} admits their next pods"
        yield Line("workload", State.OK, text, _RULES)
    elif not evaluations:
        yield Line("workload", State.OK, "the namespace has no workload", _RULES)


def rollouts(items: Iterable[dict[str, Any]]) -> Iterator[Line]:
    """A line per workload that still has pods of a former template: the pods that replace those are of it, too."""
    for item in items:
        status = item.get("status")
        kind = str(item.get("kind"))
        if kind not in _ROLLING or not isinstance(status, dict):
            continue
        metadata = item.get("metadata") or {}
        whole, updated = (_count(status.get(name)) for name in _ROLLING[kind])
        # Of a change that its controller has not seen yet, the status counts the former template's pods as updated.
        is_behind = 0 < _count(status.get("observedGeneration")) < _count(metadata.get("generation"))
        if whole > updated or is_behind:
            name, namespace = printable(str(metadata.get("name"))), printable(str(metadata.get("namespace")))
            text = f"{kind}/{name}: has pods of a former template, which is not looked at, until its rollout ends"
            command = f"kubectl rollout status -n {namespace} {kind.lower()}/{name}"
            yield Line("workload", State.NOT_EVALUATED, f"{text}: `{command}`", _ROLLOUT)


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def placement(cluster: LiveCluster, profiles: Sequence[Profile]) -> Iterator[Line]:
    """For each profile: its RuntimeClass with an accepted handler, and a node that suits it."""
    if cluster.snapshot is None:
        for each in cluster.not_read:
            yield Line("cluster", State.NOT_EVALUATED, f"not read: {each}", _ROLLOUT)
        return
    for profile in profiles:
        for name in profile.runtimeClasses[:1]:
            state, text = _runtime_class(profile, name, cluster.snapshot.runtime_classes.get(name))
            yield Line("runtime-class", state, text, _PLACEMENT)
        suitable = [each for each in cluster.snapshot.nodes.values() if profile.suits(each)]
        wanted = " and ".join(each.key for each in profile.requirements) or "nothing"
        if not suitable:
            text = f"no node suits profile {profile.name}, which requires {wanted}"
            yield Line("nodes", State.FAILED, text, _PLACEMENT)
            continue
        yield Line("nodes", State.OK, f"nodes that suit profile {profile.name}: {len(suitable)}", _PLACEMENT)
        if profile.requirements and profile.trustedLabel is None:
            text = f"profile {profile.name} has no trustedLabel: a kubelet can set {wanted} on its own node"
            yield Line("nodes", State.NOTE, text, _PLACEMENT)


def _runtime_class(profile: Profile, name: str, record: RuntimeClassRecord | None) -> tuple[State, str]:
    if record is None:
        return State.FAILED, f"RuntimeClass {name} of profile {profile.name} does not exist; install Kata with SNP"
    if profile.handlers and record.handler not in profile.handlers:
        accepted = ", ".join(profile.handlers)
        handler = printable(record.handler)
        return State.FAILED, f"RuntimeClass {name} has handler {handler}; profile {profile.name} accepts {accepted}"
    return State.OK, f"RuntimeClass {name} of profile {profile.name} exists"


def templates(cluster: LiveCluster) -> Iterator[Line]:
    """Whether every replica knows the container template that new pods get."""
    state, text = _templates(cluster.templates)
    yield Line("templates", state, text, _TEMPLATES)


def _templates(found: TemplatesMap | None) -> tuple[State, str]:
    if found is None:
        return State.NOT_EVALUATED, "the ConfigMap with the container templates was not read"
    current = found.templates.current
    if current is None:
        return State.FAILED, "no container template is marked as current; is the webhook running?"
    behind = sorted(name for name in found.known if not found.is_known_to(name, current))
    if behind:
        names = ", ".join(map(printable, behind))
        return State.FAILED, f"replicas that do not know the current container template: {names}"
    return State.OK, f"replicas that know the current container template: {len(found.known)}"


def capacity(
    pods: Iterable[tuple[str, dict[str, Any]]],
    profiles: Mapping[str, Profile],
    nodes: Sequence[dict[str, Any]],
    running: Sequence[dict[str, Any]] | None,
    classes: Sequence[dict[str, Any]],
) -> Iterator[Line]:
    """Whether a suitable node has room for the next pod of each workload, its RuntimeClass's overhead included.

    `pods` are (title, pod as injected), `running` all pods of the cluster; None: they could not be listed.
    """
    if running is None:
        yield Line("capacity", State.NOT_EVALUATED, "the pods on the nodes could not be listed", _ROLLOUT)
        return
    free = _free(nodes, running)
    overheads = {
        str((each.get("metadata") or {}).get("name")): (each.get("overhead") or {}).get("podFixed") or {}
        for each in classes
    }
    records = [node_record(each) for each in nodes]
    fitting = count = 0
    for title, pod in pods:
        count += 1
        spec = pod["spec"]
        name = str(spec.get("runtimeClassName") or "")
        profile = next((each for each in profiles.values() if name in each.runtimeClasses), None)
        suitable = [each.name for each in records if profile is None or profile.suits(each)]
        needed = requests(spec, overheads.get(name, {}))
        if any(all(free[node][key] >= amount for key, amount in needed.items()) for node in suitable):
            fitting += 1
            continue
        wanted = ", ".join(f"{quantity_text(amount, key)} {key}" for key, amount in needed.items())
        yield Line("capacity", State.FAILED, f"{printable(title)}: no suitable node has {wanted} left", _ROLLOUT)
    if fitting:
        text = f"workloads whose next pod fits a suitable node, each by itself: {fitting}"
        yield Line("capacity", State.OK, text, _ROLLOUT)


def _free(nodes: Sequence[dict[str, Any]], running: Sequence[dict[str, Any]]) -> dict[str, dict[str, Decimal]]:
    left = {}
    for node in nodes:
        allocatable = (node.get("status") or {}).get("allocatable") or {}
        name = str((node.get("metadata") or {}).get("name"))
        left[name] = {key: amount_of(allocatable.get(key)) or Decimal(0) for key in ("cpu", "memory")}
    for pod in running:
        spec = pod.get("spec") or {}
        here = left.get(str(spec.get("nodeName")))
        if here is not None and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            for key, amount in requests(spec, spec.get("overhead") or {}).items():
                here[key] -= amount
    return left


def registration(objects: Mapping[str, Sequence[dict[str, Any]] | None]) -> Iterator[Line]:
    """Whether the API server calls the webhook at all; by kind, None where the registrations were not listed."""
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        items = objects.get(kind)
        if items is None:
            yield Line("registration", State.NOT_EVALUATED, f"{kind}s could not be listed", _PLACEMENT)
        elif not any((each.get("metadata") or {}).get("name") == _OURS for each in items):
            text = f"there is no {kind} {_OURS}, so the API server does not call the webhook; apply the manifests"
            yield Line("registration", State.FAILED, text, _PLACEMENT)
        else:
            yield Line("registration", State.OK, f"{kind} {_OURS} is there", _PLACEMENT)


def other_plugins(objects: Mapping[str, Sequence[dict[str, Any]] | None]) -> Iterator[Line]:
    """The admission plug-ins of others, which are named and not looked at; by kind, None where they were not listed."""
    for kind, items in objects.items():
        if items is None:
            yield Line("other-plugins", State.NOTE, f"not looked at: {kind}, which could not be listed", _ROLLOUT)
            continue
        names = sorted(str((each.get("metadata") or {}).get("name")) for each in items)
        others = [printable(each) for each in names if each != _OURS and not each.endswith(f".{_OURS}.dev")]
        if others:
            text = f"not looked at: {kind} {', '.join(others)}"
            yield Line("other-plugins", State.NOTE, text, _ROLLOUT)


def only_from_within(
    published: Published | None, problem: str, about: str, now: datetime, *, names: bool
) -> Iterator[Line]:
    """What only the cluster reaches, by the scanner's probes. `problem` says why there are none.

    `about` is the digest of what this configuration has probed; `names`: also cluster name and issuer.
    """
    if published is not None:
        problem = published.why_not_counted(about, now)
    for check, (question, link) in _ONLY_FROM_WITHIN.items():
        if check is Check.CLUSTER_NAME and not names:
            continue
        probe = None if published is None or problem else published.probes.get(check)
        if probe is None:
            text = f"{question} is not known from here: {problem or 'the scanner has not probed it'}"
            yield Line(check.value, State.NOT_EVALUATED, text, link)
        else:
            yield Line(check.value, State(probe.state.value), printable(probe.text), link)


def probed_by_job(namespace: str) -> Line:
    """What the answers of a Job are worth."""
    text = f"by a Job in namespace {namespace}: an account that changes pods there can change its answers"
    return Line("probe", State.NOTE, text, _PROBES)


def same_names(cluster: str, issuer: str | None, entries: Mapping[str, str]) -> Iterator[Line]:
    """Whether the verifier's configuration, by its clusters' names and issuers, has this cluster and its issuer."""
    state, text = _same_names(cluster, issuer, entries)
    yield Line("cluster-name", state, text, "docs/verifier.md")


def _same_names(cluster: str, issuer: str | None, entries: Mapping[str, str]) -> tuple[State, str]:
    if cluster not in entries:
        known = ", ".join(map(printable, sorted(entries))) or "none"
        return State.FAILED, f"the verifier knows no cluster {cluster}; it knows {known}"
    if issuer is None:
        return State.NOT_EVALUATED, "the API server does not tell its tokens' issuer"
    if entries[cluster] != issuer:
        own = printable(issuer)
        return State.FAILED, f"the verifier expects another issuer of cluster {cluster} than the API server's {own}"
    return State.OK, f"the verifier knows cluster {cluster} and its issuer"


def dry_run(title: str, status: int | None, reason: str) -> Line:
    """What the API server answers to the injected pod, with LimitRanges, quotas and Pod Security; None: not asked."""
    if status is None:
        return Line("api-server", State.NOT_EVALUATED, f"{printable(title)}: {printable(reason)}", _ROLLOUT)
    text = f"{printable(title)}: the API server refuses the injected pod: {printable(reason)}"
    return Line("api-server", State.FAILED, text, _ROLLOUT)
