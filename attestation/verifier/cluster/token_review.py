"""Asking a cluster's API server whether it still stands by a pod token (TokenReview, authentication.k8s.io/v1).

In addition to the local check and never in place of it: what no key of the cluster has signed is not worth a request,
and with one issuer in many clusters only the key tells whom to ask. What the review adds is that the token's pod, its
service account and the token itself were not deleted since. The identity stays the token's; the answer must agree.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from attestation.verifier.cluster.pod_token import PodIdentity
from attestation.verifier.peer import AskError, Peer
from attestation.verifier.reasons import Reason, RefusedError

PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
# What the service account authenticator says of a bound token, beside the user's name.
_POD_NAME, _POD_UID = "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"
_MAX_AT_ONCE = 32


class TokenReviewer:
    """Asks one cluster. `audiences`: the review is for these, and the answer must hold one of them."""

    def __init__(self, peer: Peer, audiences: frozenset[str]) -> None:
        self._peer = peer
        self._audiences = audiences
        self._places = asyncio.Semaphore(_MAX_AT_ONCE)

    async def confirm(self, token: str, pod: PodIdentity) -> None:
        """Return when the API server agrees.

        Raises RefusedError: TOKEN_WITHDRAWN, TOKEN_AUDIENCE, POD_MISMATCH, or POD_UNAVAILABLE for no usable answer.
        """
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": sorted(self._audiences)},
        }
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        try:
            async with asyncio.timeout(self._peer.timeout), self._places:
                answer = await self._peer.ask("POST", PATH, body=json.dumps(review).encode(), headers=headers)
        except (AskError, TimeoutError) as error:
            raise RefusedError(Reason.POD_UNAVAILABLE, str(error) or "too many reviews wait") from None
        if answer.status not in (200, 201):
            raise RefusedError(Reason.POD_UNAVAILABLE, f"TokenReview answered {answer.status}")
        try:
            document = json.loads(answer.body)
        except (ValueError, RecursionError):
            raise RefusedError(Reason.POD_UNAVAILABLE, "TokenReview's answer is not JSON") from None
        status = _mapping(document).get("status")
        if not isinstance(status, dict):
            raise RefusedError(Reason.POD_UNAVAILABLE, "TokenReview's answer has no status")
        self._check(status, pod)

    def _check(self, status: Mapping[str, Any], pod: PodIdentity) -> None:
        if status.get("authenticated") is not True:
            raise RefusedError(Reason.TOKEN_WITHDRAWN, f"by cluster {pod.cluster}")
        # A server that knows nothing of audiences leaves them out, and has not checked them.
        given = status.get("audiences")
        if not isinstance(given, list) or not self._audiences & {each for each in given if isinstance(each, str)}:
            raise RefusedError(Reason.TOKEN_AUDIENCE, f"in cluster {pod.cluster}'s review")
        user = _mapping(status.get("user"))
        extra = _mapping(user.get("extra"))
        if user.get("username") != f"system:serviceaccount:{pod.namespace}:{pod.service_account}":
            raise RefusedError(Reason.POD_MISMATCH, "TokenReview names another service account")
        if extra.get(_POD_NAME) != [pod.pod_name] or extra.get(_POD_UID) != [pod.pod_uid]:
            raise RefusedError(Reason.POD_MISMATCH, "TokenReview names another pod")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
