"""A Job's pod tried out as a dry run: a Job whose pod is refused never ends, and does not say why."""

from __future__ import annotations

from typing import Any, Final

from server.kubernetes.client import Client
from server.text import printable

_LONGEST: Final = 300


async def refusal_of_job(client: Client, namespace: str, job: dict[str, Any]) -> str:
    """Why a rule, a LimitRange, a quota or Pod Security would refuse the Job's pod; empty: none of them would."""
    metadata, template = job["metadata"], job["spec"]["template"]
    named = {**template["metadata"], "generateName": f"{metadata['name']}-"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": named, "spec": template["spec"]}
    status, said = await client.try_out(f"/api/v1/namespaces/{namespace}/pods", pod)
    # The Job's controller may create it, even where this user may not.
    if status in (200, 201) or may_not_create(status, said):
        return ""
    return printable(said)[:_LONGEST] or f"status {status}"


def may_not_create(status: int, said: str) -> bool:
    """Whether a pod's trial failed for this user's own rights, which says nothing about the pod."""
    return status == 403 and "cannot create resource" in said
