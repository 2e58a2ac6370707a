"""Whether the installation as a whole works: what the scanner's report says of the cluster, seen now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cli.live.cluster import LiveCluster
from cli.preflight import checks
from cli.preflight.gather import published_probes
from cli.preflight.lines import Line, State
from server.kubernetes.client import Client
from webhook.configuration.templates_map import read_map
from webhook.scanner.cluster.facts import ClusterFacts, read_facts
from webhook.scanner.cluster.findings import cluster_findings
from webhook.scanner.finding import link_of
from webhook.scanner.probes.published import about

_STATES: Final = {"pass": State.OK, "fail": State.FAILED, "error": State.NOT_EVALUATED}


async def installation(client: Client, cluster: LiveCluster) -> list[Line]:
    """Every line. It gets and lists, and changes nothing. Raises the client's errors, but for refusals."""
    configuration = cluster.configuration
    default = configuration.profile_by_name[configuration.defaultProfile]
    lines = list(checks.placement(cluster, [default]))
    lines += _cluster(cluster, await read_facts(client))
    lines += checks.templates(cluster)
    published, problem = await published_probes(client)
    subject, now = about(configuration), client.clock.now()
    lines += checks.only_from_within(published, problem, subject, now, names=True)
    return lines


def _cluster(cluster: LiveCluster, facts: ClusterFacts) -> Iterator[Line]:
    if cluster.snapshot is None:  # the lines on placement say why
        return
    templates = cluster.templates or read_map(None)
    for result in cluster_findings(cluster.configuration, cluster.snapshot, facts, templates):
        subject = "" if result.resource is None else f"{result.resource}: "
        state = _STATES.get(result.result, State.NOTE)
        yield Line(result.rule.partition("/")[2], state, subject + result.message, link_of(result.rule))
