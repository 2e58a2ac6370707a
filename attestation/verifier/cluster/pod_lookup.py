"""Looking a pod up at its cluster's API server: is it alive, and to which Knative Service does it belong?

Bounded: one GET with a deadline, and a limited number at a time. The answer is the control plane's word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from attestation.verifier.cluster.pod_token import PodIdentity
from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.untrusted_json import mapping, read_json
from server.kubernetes.client import Client
from server.kubernetes.errors import KubernetesError, StatusError

SERVICE_LABEL = "serving.knative.dev/service"
REVISION_LABEL = "serving.knative.dev/revision"
_MAX_AT_ONCE = 32
_MAX_IMAGES = 16
_MAX_BYTES = 1 << 20


class PodLookup:
    """Looks pods of one cluster up."""

    def __init__(self, client: Client, seconds: float) -> None:
        self._client = client
        self._seconds = seconds
        self._places = asyncio.Semaphore(_MAX_AT_ONCE)

    async def look_up(self, pod: PodIdentity) -> PodIdentity:
        """The identity, with the live pod's labels and images. Raises RefusedError: POD_MISMATCH or POD_UNAVAILABLE."""
        path = f"/api/v1/namespaces/{quote(pod.namespace, safe='')}/pods/{quote(pod.pod_name, safe='')}"
        try:
            async with asyncio.timeout(self._seconds), self._places:
                content = await self._client.read(path, seconds=self._seconds, max_bytes=_MAX_BYTES)
        except StatusError as error:
            if error.status == 404:
                raise RefusedError(Reason.POD_MISMATCH, "the API server knows no such pod") from None
            raise RefusedError(Reason.POD_UNAVAILABLE, f"the API server answered {error.status}") from None
        except KubernetesError as error:
            raise RefusedError(Reason.POD_UNAVAILABLE, str(error)) from None
        except TimeoutError:
            raise RefusedError(Reason.POD_UNAVAILABLE, "too many lookups wait") from None
        try:
            document = read_json(content)
        except ValueError:
            raise RefusedError(Reason.POD_UNAVAILABLE, "the API server's answer is not JSON") from None
        return _merged(pod, mapping(document))


def _merged(pod: PodIdentity, live: Mapping[str, Any]) -> PodIdentity:
    metadata, spec, status = (mapping(live.get(name)) for name in ("metadata", "spec", "status"))
    if metadata.get("uid") != pod.pod_uid:
        raise RefusedError(Reason.POD_MISMATCH, "another pod has this name now")
    if spec.get("serviceAccountName") != pod.service_account:
        raise RefusedError(Reason.POD_MISMATCH, "the pod has another service account")
    if metadata.get("deletionTimestamp") is not None or status.get("phase") in ("Succeeded", "Failed"):
        raise RefusedError(Reason.POD_MISMATCH, "the pod has ended or is about to")
    labels = mapping(metadata.get("labels"))
    return replace(
        pod,
        service=_text(labels.get(SERVICE_LABEL)),
        revision=_text(labels.get(REVISION_LABEL)),
        images=_images(status),
        node=_text(spec.get("nodeName")),
    )


def _images(status: Mapping[str, Any]) -> tuple[str, ...]:
    """Digests of the images that run already."""
    statuses = status.get("containerStatuses")
    found = [_text(mapping(each).get("imageID")) for each in statuses] if isinstance(statuses, list) else []
    return tuple(sorted({image.rpartition("@")[2] for image in found if "@sha256:" in image}))[:_MAX_IMAGES]


def _text(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= 512 and value.isprintable() else ""
