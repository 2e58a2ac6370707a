"""What a preflight reads of a cluster, and the lines that come of it.

It lists and gets, tries pods out, and with a ProbeJob makes a Job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cli.live.cluster import NODES, RUNTIME_CLASSES, LiveCluster, every
from cli.live.trial import may_not_create
from cli.preflight import checks
from cli.preflight.injected_pod import as_anyones, injected_pod
from cli.preflight.lines import Line, State
from cli.preflight.probe_job import probe_by_job
from server.kubernetes.client import Client
from server.kubernetes.errors import KubernetesError, StatusError
from webhook.configuration.profiles import Profile
from webhook.modes import Mode
from webhook.scanner.evaluation import Evaluator
from webhook.scanner.finding import Evaluation
from webhook.scanner.kinds import SCANNED_KINDS, ScannedKind, counts
from webhook.scanner.lister import AbsentKindError, ClusterLister
from webhook.scanner.probes.published import Published, about, read_published
from webhook.wellknown import PROBES_CONFIG_MAP, SYSTEM_NAMESPACE, UNREVIEWED_NAMESPACES

_PODS: Final = ScannedKind("v1", "Pod", "pods")
_ADMISSION: Final = "admissionregistration.k8s.io/v1"
_PLUGINS: Final = tuple(
    ScannedKind(_ADMISSION, kind, resource)
    for kind, resource in (
        ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
        ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations"),
        ("ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
    )
)
_ISSUER: Final = "/.well-known/openid-configuration"
_MOST_TRIED: Final = 100
_ROLLOUT: Final = "docs/rollout.md#what-preflight-looks-at"


@dataclass(frozen=True, slots=True)
class ProbeJob:
    """A Job that probes, where the scanner's probes say nothing of now. `image`: in place of the webhook's."""

    image: str | None = None


async def preflight(
    client: Client,
    cluster: LiveCluster,
    namespace: str,
    target: Mode,
    entries: Mapping[str, str] | None,
    progress: Callable[[str, int, int], None],
    probe: ProbeJob | None = None,
) -> list[Line]:
    """Every line, in the order in which they are best read. Raises the client's errors, but for refusals."""
    if namespace in UNREVIEWED_NAMESPACES:
        return [Line("namespace", State.FAILED, f"admission never looks at namespace {namespace}", _ROLLOUT)]
    lister = ClusterLister(client)
    items, lines = await _workloads(lister, namespace, progress)
    evaluator = Evaluator(cluster.configuration, cluster.snapshot)
    mode = cluster.modes.get(namespace, Mode.ABSENT)
    evaluations: list[Evaluation] = []
    for item in items:
        evaluation = evaluator.evaluate(item, target=target, mode=mode)
        if evaluation is not None:
            evaluations.append(evaluation)
    lines += checks.workloads(evaluations, target)
    lines += checks.rollouts(items)
    by_name = cluster.configuration.profile_by_name
    profiles = [by_name[name] for name in cluster.configuration.profiles_allowed_in(namespace) if name in by_name]
    lines += checks.placement(cluster, profiles)
    plugins = {kind.kind: await _listed(lister, kind) for kind in _PLUGINS}
    lines += checks.registration(plugins)
    lines += checks.templates(cluster)
    ready = {(each.object.kind, each.object.name) for each in evaluations if each.is_ready and not each.exempt}
    pods = list(_pods(cluster, namespace, [each for each in items if _key(each) in ready]))
    progress("room on the nodes", 1, 3)
    lines += await _capacity(lister, cluster, pods, profiles)
    progress("the API server's own admission", 2, 3)
    lines += await _tried(client, namespace, pods)
    if entries is not None:
        lines += checks.same_names(cluster.configuration.cluster, await _issuer(client), entries)
    progress("what only the cluster reaches", 2, 3)
    lines += await _from_within(client, cluster, namespace, mode, probe, names=entries is None)
    lines += checks.other_plugins(plugins)
    return lines


async def _from_within(
    client: Client, cluster: LiveCluster, namespace: str, mode: Mode, probe: ProbeJob | None, *, names: bool
) -> list[Line]:
    """By the scanner's probes; where they say nothing of now, by a Job, if one is wanted."""
    published, problem = await published_probes(client)
    subject, lines = about(cluster.configuration), []
    if published is not None:
        problem = published.why_not_counted(subject, client.clock.now())
    if problem and probe is not None:
        published, problem = await probe_by_job(client, cluster, namespace, mode, probe.image)
        if published is not None:
            lines.append(checks.probed_by_job(namespace))
    return lines + list(checks.only_from_within(published, problem, subject, client.clock.now(), names=names))


def _key(item: dict[str, Any]) -> tuple[str, str]:
    return str(item.get("kind")), str((item.get("metadata") or {}).get("name"))


async def _workloads(
    lister: ClusterLister, namespace: str, progress: Callable[[str, int, int], None]
) -> tuple[list[dict[str, Any]], list[Line]]:
    items: list[dict[str, Any]] = []
    lines: list[Line] = []
    for number, kind in enumerate(SCANNED_KINDS):
        progress(kind.resource, number, len(SCANNED_KINDS))
        try:
            items += [item async for item in every(lister, kind, namespace) if counts(item)]
        except StatusError as error:
            text = f"{kind.resource}: the API server answers {error.status} to a list"
            lines.append(Line("workload", State.NOT_EVALUATED, text, _ROLLOUT))
    return items, lines


def _pods(cluster: LiveCluster, namespace: str, items: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for item in items:
        pod = injected_pod(item, namespace, cluster.configuration, cluster.snapshot)
        if pod is not None:
            yield "/".join(_key(item)), pod


async def _capacity(
    lister: ClusterLister, cluster: LiveCluster, pods: list[tuple[str, dict[str, Any]]], profiles: list[Profile]
) -> list[Line]:
    if cluster.snapshot is None:
        return [Line("capacity", State.NOT_EVALUATED, "nodes and RuntimeClasses were not read", _ROLLOUT)]
    running = await _listed(lister, _PODS)
    nodes, classes = cluster.objects[NODES.kind], cluster.objects[RUNTIME_CLASSES.kind]
    return list(checks.capacity(pods, {each.name: each for each in profiles}, nodes, running, classes))


async def _listed(lister: ClusterLister, kind: ScannedKind) -> list[dict[str, Any]] | None:
    try:
        return [item async for item in every(lister, kind)]
    except (StatusError, AbsentKindError):
        return None


async def _tried(client: Client, namespace: str, pods: list[tuple[str, dict[str, Any]]]) -> list[Line]:
    """What the API server answers to each injected pod, in a dry run: LimitRange, ResourceQuota, Pod Security."""
    lines = []
    admitted = 0
    for title, pod in pods[:_MOST_TRIED]:
        try:
            status, said = await client.try_out(f"/api/v1/namespaces/{namespace}/pods", as_anyones(pod))
        except KubernetesError as error:
            lines.append(checks.dry_run(title, None, f"the dry run got no answer: {error}"))
            continue
        if status in (200, 201):
            admitted += 1
        elif may_not_create(status, said):
            text = "not tried out, because this user may not create pods here, not even in a dry run"
            return [*lines, checks.dry_run("injected pods", None, text)]
        else:
            lines.append(checks.dry_run(title, status, said or f"status {status}"))
    if admitted:
        text = f"injected pods that LimitRanges, quotas and Pod Security admit, in a dry run: {admitted}"
        lines.append(Line("api-server", State.OK, text, _ROLLOUT))
    if len(pods) > _MOST_TRIED:
        text = f"{len(pods) - _MOST_TRIED} more pods were not tried out"
        lines.append(Line("api-server", State.NOT_EVALUATED, text, _ROLLOUT))
    return lines


async def published_probes(client: Client) -> tuple[Published | None, str]:
    """What the scanner publishes; without it, the reason."""
    what = f"ConfigMap {SYSTEM_NAMESPACE}/{PROBES_CONFIG_MAP}"
    try:
        found = await client.find(f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/configmaps/{PROBES_CONFIG_MAP}")
    except StatusError as error:
        return None, f"{what}: the API server answers {error.status}"
    except KubernetesError as error:
        return None, f"{what}: {error}"
    if found is None:
        return None, "the scanner publishes no probes; add the component scanner-probes"
    try:
        return read_published(found.get("data")), ""
    except ValueError as error:
        return None, f"{what} {error}"


async def _issuer(client: Client) -> str | None:
    try:
        found = (await client.get(_ISSUER)).get("issuer")
    except KubernetesError:
        return None
    return found if isinstance(found, str) else None
