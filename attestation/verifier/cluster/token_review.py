"""Has a cluster's API server confirm that a pod token is still valid (TokenReview, authentication.k8s.io/v1).

In addition to the local check and never in place of it: a token that no key of the cluster has signed is not worth a
request, and with one issuer in many clusters only the key identifies the cluster. The review adds that the token's pod,
its service account and the token itself were not deleted since. The identity stays the token's; the answer must agree.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from attestation.verifier.cluster.pod_token import PodIdentity
from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.untrusted_json import mapping
from server.kubernetes.client import Client
from server.kubernetes.errors import KubernetesError, StatusError

PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
# Keys that the service account authenticator adds for a bound token, beside the user's name.
_POD_NAME, _POD_UID = "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"
_MAX_AT_ONCE = 32
_MAX_BYTES = 1 << 20


class TokenReviewer:
    """Confirms tokens of one cluster. `audiences`: the review is for these, and the answer must hold one of them."""

    def __init__(self, client: Client, audiences: frozenset[str], seconds: float) -> None:
        self._client = client
        self._seconds = seconds
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
        try:
            async with asyncio.timeout(self._seconds), self._places:
                document = await self._client.post(PATH, review, seconds=self._seconds, max_bytes=_MAX_BYTES)
        except StatusError as error:
            raise RefusedError(Reason.POD_UNAVAILABLE, f"TokenReview answered {error.status}") from None
        except KubernetesError as error:
            raise RefusedError(Reason.POD_UNAVAILABLE, str(error)) from None
        except TimeoutError:
            raise RefusedError(Reason.POD_UNAVAILABLE, "too many reviews wait") from None
        status = document.get("status")
        if not isinstance(status, dict):
            raise RefusedError(Reason.POD_UNAVAILABLE, "TokenReview's answer has no status")
        self._check(status, pod)

    def _check(self, status: Mapping[str, Any], pod: PodIdentity) -> None:
        if status.get("authenticated") is not True:
            raise RefusedError(Reason.TOKEN_WITHDRAWN, f"by cluster {pod.cluster}")
        # A server that does not support audiences leaves them out, and has not checked them.
        given = status.get("audiences")
        if not isinstance(given, list) or not self._audiences & {each for each in given if isinstance(each, str)}:
            raise RefusedError(Reason.TOKEN_AUDIENCE, f"in cluster {pod.cluster}'s review")
        user = mapping(status.get("user"))
        extra = mapping(user.get("extra"))
        if user.get("username") != f"system:serviceaccount:{pod.namespace}:{pod.service_account}":
            raise RefusedError(Reason.POD_MISMATCH, "TokenReview names another service account")
        if extra.get(_POD_NAME) != [pod.pod_name] or extra.get(_POD_UID) != [pod.pod_uid]:
            raise RefusedError(Reason.POD_MISMATCH, "TokenReview names another pod")
