"""A Job that a command runs in a cluster: under a name of its own, waited for, read, and deleted in any case."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from server.kubernetes.client import Client
from server.kubernetes.errors import KubernetesError, StatusError
from server.kubernetes.untyped import controller_of, is_name, mapping, mappings, text

Json = dict[str, Any]

SECONDS: Final = 180
"""How long its pod may take, from the node that is found for it to its last line."""

RESTRICTED_POD: Final[Json] = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "fsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""A pod's securityContext that Pod Security's level `restricted` admits, with the containers' below."""

RESTRICTED_CONTAINER: Final[Json] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}

_POLL_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Ended:
    """The Job's pod as it was last seen, empty where there was none, and what its container printed."""

    pod: Mapping[str, Any]
    log: str


def make_job(prefix: str, spec: Json, annotations: Mapping[str, str]) -> Json:
    """A Job of one pod, which is tried once and deletes itself should nothing else do it. Its name ends at random.

    The name is ours and not the API server's, so that a Job can be deleted whose creation was never answered.
    """
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"{prefix}-{secrets.token_hex(4)}", "labels": {"app.kubernetes.io/name": prefix}},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": SECONDS,
            # Where the command ends before it deletes the Job.
            "ttlSecondsAfterFinished": SECONDS,
            "template": {"metadata": {"annotations": dict(annotations)}, "spec": {"restartPolicy": "Never", **spec}},
        },
    }


async def run_job(client: Client, namespace: str, job: Json, container: str, max_bytes: int) -> Ended:
    """Create it, wait for its end, read at most `max_bytes` of what `container` printed, and delete it in any case.

    Raises StatusError where the API server refuses the creation, and otherwise the client's errors.
    """
    collection, name = f"/apis/batch/v1/namespaces/{namespace}/jobs", job["metadata"]["name"]
    is_there = True  # also while it is not known: the command may be ended before the API server answers
    try:
        try:
            made = await client.post(collection, job)
        except StatusError:
            is_there = False
            raise
        pod = await _ended(client, namespace, name, text(mapping(made.get("metadata")).get("uid")))
        return Ended(pod, await _log(client, namespace, pod, container, max_bytes))
    finally:
        if is_there:
            await _delete(client, f"{collection}/{name}")


async def _ended(client: Client, namespace: str, name: str, uid: str) -> Mapping[str, Any]:
    """The Job's pod when it has ended, or as it was last seen at the deadline; empty where there was none.

    At about the deadline the Job's controller deletes a pod that has not ended, and with it the reason.
    """
    deadline = time.monotonic() + SECONDS
    pod: Mapping[str, Any] = {}
    query = [("labelSelector", f"batch.kubernetes.io/job-name={name}"), ("limit", "10")]
    while True:
        items = (await client.get(f"/api/v1/namespaces/{namespace}/pods", query)).get("items")
        # A label is quickly copied; the controller alone makes pods that the Job owns.
        own = (each for each in mappings(items) if controller_of(mapping(each.get("metadata"))).get("uid") == uid)
        pod = next(own, pod)
        ended = mapping(pod.get("status")).get("phase") in ("Succeeded", "Failed")
        if ended or time.monotonic() > deadline:
            return pod
        await asyncio.sleep(_POLL_SECONDS)


async def _log(client: Client, namespace: str, pod: Mapping[str, Any], container: str, max_bytes: int) -> str:
    name = text(mapping(pod.get("metadata")).get("name"))
    if not is_name(name):
        return ""
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/log"
    query = [("container", container), ("limitBytes", str(max_bytes))]
    try:
        return (await client.read(path, query, max_bytes=max_bytes, accept="*/*")).decode(errors="replace")
    except KubernetesError:  # a container that never started has none
        return ""


async def _delete(client: Client, path: str) -> None:
    with suppress(KubernetesError):  # it deletes itself (ttlSecondsAfterFinished)
        await client.delete(path, [("propagationPolicy", "Background")])
