"""`preflight --probe`: a Job that asks, from where the namespace's pods are, what only the cluster reaches.

It runs in the namespace that is looked at, because NetworkPolicies differ from one to the next, and because the right
to make pods in `morphisms-system` is the right to be the webhook. Its pod has no token and no volume: what the API
server says of its tokens is read by this command and passed on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from cli.live.cluster import CONFIGURATION, LiveCluster
from cli.live.job import RESTRICTED_CONTAINER, RESTRICTED_POD, SECONDS, Ended, make_job, run_job
from cli.live.trial import refusal_of_job
from cli.support.terminal import say
from server.kubernetes.client import Client
from server.kubernetes.errors import StatusError
from server.kubernetes.untyped import condition_of, mapping, mappings, text
from server.text import printable
from webhook.modes import Mode
from webhook.scanner.events.trouble import trouble_of_pod
from webhook.scanner.probes.once import VARIABLE, write_question
from webhook.scanner.probes.probe import read_own_tokens
from webhook.scanner.probes.published import KEY, MAX_BYTES, Published, about, read_published
from webhook.wellknown import PREFIX, SYSTEM_NAMESPACE

_CONTAINER: Final = "probe"
_ROOM: Final = {"cpu": "100m", "memory": "128Mi"}
_LONGEST: Final = 300


async def probe_by_job(
    client: Client, cluster: LiveCluster, namespace: str, mode: Mode, image: str | None
) -> tuple[Published | None, str]:
    """What the Job found; without it, the reason. The Job is gone afterwards. Raises the client's errors."""
    if mode is Mode.ENFORCE:
        return None, (
            "--probe makes no Job in mode enforce, where its pod would have to attest first; add the component"
            " scanner-probes, or run morphisms doctor POD --job"
        )
    image = image or await _webhook_image(client)
    if image is None:
        return None, (
            f"--probe could not read the image of Deployment {SYSTEM_NAMESPACE}/{CONFIGURATION}; give it with"
            " --probe-image"
        )
    question = write_question(cluster.configuration, await read_own_tokens(client))
    job = job_of(image, question)
    if refusal := await refusal_of_job(client, namespace, job):
        return None, f"namespace {namespace} would refuse the Job's pod: {refusal}"
    name = job["metadata"]["name"]
    say(f"creating Job {name} in namespace {namespace}, which takes up to {SECONDS} s and is deleted then")
    try:
        ended = await run_job(client, namespace, job, _CONTAINER, MAX_BYTES)
    except StatusError as error:
        words = f"the API server answers {error.status} to Job {name}; --probe needs create on jobs, and get on them"
        return None, words
    return read_answer(ended, about(cluster.configuration), client)


def job_of(image: str, question: str) -> dict[str, Any]:
    """The Job. Its pod opts out of injection, so that it needs no node for guests and no workload's identity."""
    container = {
        "name": _CONTAINER,
        "image": image,
        "args": ["scanner", "--probe-once"],
        "env": [{"name": VARIABLE, "value": question}],
        "resources": {"requests": _ROOM, "limits": _ROOM},
        "securityContext": RESTRICTED_CONTAINER,
    }
    spec = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "securityContext": RESTRICTED_POD,
        "containers": [container],
    }
    return make_job("morphisms-probe", spec, {f"{PREFIX}inject": "false"})


async def _webhook_image(client: Client) -> str | None:
    path = f"/apis/apps/v1/namespaces/{SYSTEM_NAMESPACE}/deployments/{CONFIGURATION}"
    try:
        found = await client.find(path)
    except StatusError:
        return None
    pod = mapping(mapping(mapping((found or {}).get("spec")).get("template")).get("spec"))
    return next((text(each.get("image")) for each in mappings(pod.get("containers"))), "") or None


def read_answer(ended: Ended, digest: str, client: Client) -> tuple[Published | None, str]:
    """The results that the Job's pod printed, one line as the scanner publishes them; without it, the reason.

    A pod's log is what its author likes: it is bounded, of one form, and about this very configuration. When it was
    made is counted by the API server's clock, not by the node's.
    """
    trouble = trouble_of_pod(ended.pod)
    phase = text(mapping(ended.pod.get("status")).get("phase"))
    if trouble is not None:
        return None, f"the Job's pod failed: {printable(trouble.message)[:_LONGEST]}"
    if phase != "Succeeded" and (unscheduled := _why_unscheduled(ended.pod)):
        return None, f"the Job's pod got no node: {printable(unscheduled)[:_LONGEST]}"
    if phase != "Succeeded":
        return None, f"the Job's pod did not end well in {SECONDS} s (phase {printable(phase)[:20] or 'none'})"
    try:
        published = read_published({KEY: ended.log})
    except ValueError:
        return None, "the Job's pod printed something else than results; is --probe-image this release's?"
    if published.about != digest:
        return None, "the Job's pod probed another configuration than this one"
    return replace(published, at=client.clock.now()), ""


def _why_unscheduled(pod: Mapping[str, Any]) -> str:
    """What the scheduler says of a pod that has no node; empty where it has one."""
    return text(condition_of(mapping(pod.get("status")), "PodScheduled", "False").get("message"))
