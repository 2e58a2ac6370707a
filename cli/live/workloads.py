"""Every workload of a cluster, evaluated: what was found, and which kinds could not be looked at."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from cli.live.cluster import LiveCluster
from server.kubernetes.client import Client
from server.kubernetes.errors import StatusError
from webhook.modes import Mode
from webhook.scanner.evaluation import Evaluator
from webhook.scanner.finding import Evaluation, Finding
from webhook.scanner.kinds import SCANNED_KINDS, counts
from webhook.scanner.lister import AbsentKindError, ClusterLister
from webhook.wellknown import UNREVIEWED_NAMESPACES


@dataclass(slots=True)
class Evaluations:
    """What was looked at. `outside` counts objects of namespaces that the webhook is never called for."""

    target: Mode
    modes: dict[str, Mode]
    evaluations: list[Evaluation] = field(default_factory=list)
    not_read: list[str] = field(default_factory=list)
    outside: int = 0

    @property
    def findings(self) -> list[Finding]:
        """Every finding, in the order of the listing."""
        return [finding for each in self.evaluations for finding in each.findings]

    def of(self, namespace: str) -> list[Evaluation]:
        """The evaluations of one namespace."""
        return [each for each in self.evaluations if each.object.namespace == namespace]

    @property
    def namespaces(self) -> list[str]:
        """Those that have a mode or a workload, sorted."""
        used = {each.object.namespace for each in self.evaluations}
        return sorted(used | {name for name, mode in self.modes.items() if mode is not Mode.ABSENT})

    def is_ready(self, namespace: str) -> bool:
        """Whether each of its workloads was looked at and complies, so that enforce admits their next pods."""
        return not self.not_read and all(each.is_ready for each in self.of(namespace))


async def evaluate_cluster(
    client: Client,
    cluster: LiveCluster,
    target: Mode,
    namespace: str | None,
    progress: Callable[[str, int], None] = lambda kind, objects: None,
    outside: Collection[str] = UNREVIEWED_NAMESPACES,
) -> Evaluations:
    """Evaluate each workload. A kind that the API server does not list is named, never left out in silence."""
    evaluator = Evaluator(cluster.configuration, cluster.snapshot)
    lister = ClusterLister(client)
    found = Evaluations(target, dict(cluster.modes), not_read=list(cluster.not_read))
    objects = 0
    for kind in SCANNED_KINDS:
        try:
            async for page in lister.pages(kind, namespace):
                for item in page:
                    objects += 1
                    where = str((item.get("metadata") or {}).get("namespace") or "")
                    if where in outside:
                        found.outside += 1
                    elif counts(item):
                        mode = cluster.modes.get(where, Mode.ABSENT)
                        evaluation = evaluator.evaluate(item, target=target, mode=mode)
                        if evaluation is not None:
                            found.evaluations.append(evaluation)
                progress(kind.resource, objects)
        except AbsentKindError:
            if not kind.is_optional:
                found.not_read.append(f"{kind.resource}: the cluster has no such kind")
        except StatusError as error:
            found.not_read.append(f"{kind.resource}: the API server answers {error.status} to a list")
    return found
