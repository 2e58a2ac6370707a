"""`POST /cluster`: says to the cluster's own scanner whether this verifier knows the cluster (`kbs.known_cluster`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from attestation.verifier.cluster.pod_token import TrustedCluster
from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.responses import invalid
from attestation.verifier.source_pace import SourcePace
from kbs.known_cluster import (
    CLUSTER_PATH,
    MAX_CLUSTER_SIZE,
    ClusterAnswer,
    ClusterQuestion,
    read_cluster_question,
    write_cluster_answer,
)
from kbs.messages import WireError
from server.messages import Intake, RequestInfo, Response


class KnownClusters:
    """Answers the call. It costs no more than a token with an unknown key id: one fetch of keys now and then."""

    def __init__(self, clusters: Sequence[TrustedCluster], pace: SourcePace) -> None:
        self._clusters = {each.name: each for each in clusters}
        self._pace = pace

    def routes(self) -> dict[tuple[str, str], Callable[[bytes, RequestInfo], Awaitable[Response]]]:
        """(method, path) to handler."""
        return {("POST", CLUSTER_PATH): self.known}

    def intakes(self) -> dict[str, Intake]:
        """The conditions that hold before the body is read."""
        screen = self._pace.screen("cluster", MAX_CLUSTER_SIZE)
        return {CLUSTER_PATH: Intake(body_bytes=MAX_CLUSTER_SIZE, screen=screen)}

    async def known(self, body: bytes, _info: RequestInfo) -> Response:
        """Which of the caller's public values this verifier has."""
        try:
            question = read_cluster_question(body)
        except WireError as error:
            return invalid("cluster", error)
        cluster = self._clusters.get(question.cluster)
        if cluster is None:
            return Response(200, write_cluster_answer(ClusterAnswer(False, False, False, ())))
        answer = ClusterAnswer(
            True,
            cluster.issuer == question.issuer,
            question.audience in cluster.audiences,
            await _known_keys(cluster, question),
        )
        return Response(200, write_cluster_answer(answer))


async def _known_keys(cluster: TrustedCluster, question: ClusterQuestion) -> tuple[str, ...] | None:
    """Those of the question's keys that count now; None while there are no keys."""
    found = []
    for each in question.keys:
        try:
            key = await cluster.keys.key(each)
        except RefusedError as error:
            if error.reason is Reason.KEYS_UNAVAILABLE:
                return None
            continue
        if key is not None:
            found.append(each)
    return tuple(found)
