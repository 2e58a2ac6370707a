"""`morphisms doctor`: why a pod got no secrets, or whether the installation works; reads only."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from typing import Any

from cli.diagnosis.installation import installation
from cli.diagnosis.job import PAGE, doctor_lines, job_of
from cli.diagnosis.pod import examine
from cli.live.cluster import LiveCluster, read_cluster
from cli.live.connection import UNREACHABLE, add_cluster, with_cluster
from cli.live.job import SECONDS
from cli.live.trial import refusal_of_job
from cli.preflight import formats
from cli.preflight.lines import Line, State, is_go
from cli.support.terminal import GREEN, RED, coloured, say, wants_colour
from server.files import UnusableInputError
from server.kubernetes.client import Client
from server.kubernetes.errors import StatusError
from server.kubernetes.untyped import is_name, mapping, mappings
from server.text import printable
from webhook.modes import Mode
from webhook.scanner.evaluation import Evaluator

HELP = "why a pod got no secrets, and whom to ask; without a pod, whether the installation works"
EXAMPLE = "morphisms doctor payments-00001-deployment-5d9f-x7k2p -n shop"
DESCRIPTION = """\
With POD it reads the pod, its namespace and the Events about it, and says at which step it stands: not injected and
why, no node, morphisms-init with its reason, or the exec helper; then whom to ask, and with which correlation id the
verifier's operators find it. The pages that it names say what to do.

Without POD it looks at the installation: registration, guards, RuntimeClasses, nodes, container templates, the way to
the verifier and Vault as the scanner probed it, and what else the guarantees rest on.

It gets and lists alone, no Secret among it, and changes nothing. With --job it also runs `morphisms-init --doctor` in a
guest: it creates a Job in the pod's namespace, with the pod's plan and service account, prints what the doctor found,
and deletes the Job. That needs create and delete on jobs, and get on pods/log. With the right to create pods it tries
the Job's pod out as a dry run before, and says at once what refuses it. A refusal of the Job's own pod by the verifier
is skipped: it says nothing about the workload's pods (docs/doctor.md).

-o json prints one object:
  {"version": 1, "pod", "namespace", "healthy", "lines": [{"check", "state", "text", "link"}]}
`state` is ok, failed, not-evaluated or note. Later versions may add members, and keep the meaning of these.

Exit codes: 0 nothing is wrong; 1 something failed or is not known; 2 unusable input; 3 no answer."""

HEALTHY, TROUBLE, UNUSABLE = 0, 1, 2


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = DESCRIPTION
    parser.add_argument("pod", metavar="POD", nargs="?", help="that got no secrets; without it: the installation")
    parser.add_argument("-n", "--namespace", metavar="NAME", default="default", help="the pod's; default: %(default)s")
    parser.add_argument(
        "--job", action="store_true", help="create a Job that checks each step in a guest; deleted after"
    )
    add_cluster(parser)
    parser.add_argument(
        "--allow-unevaluated", action="store_true", help="exit with 0 though something is not known; failures stay 1"
    )
    parser.add_argument("-o", "--output", default="text", choices=("text", "json"), help="default: text")


def run(arguments: argparse.Namespace) -> int:
    """Read, print."""
    try:
        lines = with_cluster(arguments, "doctor", lambda client: _lines(client, arguments))
    except UnusableInputError as error:
        say(f"morphisms doctor: {error}")
        return UNUSABLE
    if lines is None:
        return UNREACHABLE
    healthy = is_go(lines, allow_unevaluated=arguments.allow_unevaluated)
    if arguments.output == "json":
        document = {
            "version": 1,
            "pod": arguments.pod,
            "namespace": arguments.namespace if arguments.pod else None,
            "healthy": healthy,
            "lines": formats.objects(lines),
        }
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        _print(lines, arguments, healthy)
    return HEALTHY if healthy else TROUBLE


def _print(lines: list[Line], arguments: argparse.Namespace, healthy: bool) -> None:
    colour = wants_colour(sys.stdout)
    for line in formats.text(lines, colour=colour):
        print(line)
    what = f"pod {printable(arguments.namespace)}/{printable(arguments.pod)}" if arguments.pod else "installation"
    word = coloured("nothing is wrong" if healthy else "trouble", GREEN if healthy else RED, wanted=colour)
    print(f"{word}: {what}: {formats.counts(lines)}")


async def _lines(client: Client, arguments: argparse.Namespace) -> list[Line]:
    now = datetime.now(UTC)
    if arguments.pod is None:
        if arguments.job:
            raise UnusableInputError("--job needs the pod whose plan is checked, such as: morphisms doctor POD --job")
        return await installation(client, await read_cluster(client, arguments.config, None, now))
    namespace, name = arguments.namespace, arguments.pod
    cluster = await read_cluster(client, arguments.config, namespace, now)
    path = f"/api/v1/namespaces/{namespace}/pods/{name}"
    pod = await client.find(path) if is_name(name) else None
    if pod is None:
        raise UnusableInputError(
            f"there is no pod {name} in namespace {namespace}; where pods are refused, `kubectl describe` of the"
            " Service or Deployment says why, and so does morphisms preflight"
        )
    mode = cluster.modes.get(namespace, Mode.ABSENT)
    events = await _events(client, namespace, name, mapping(pod.get("metadata")).get("uid"))
    item = {**pod, "apiVersion": "v1", "kind": "Pod"}
    lines = list(examine(item, events, mode, cluster.configuration, cluster.snapshot))
    if arguments.job:
        lines += await _job(client, cluster, item, mode)
    return lines


async def _job(client: Client, cluster: LiveCluster, pod: dict[str, Any], mode: Mode) -> list[Line]:
    job, namespace = job_of(pod, mode), str(pod["metadata"]["namespace"])
    if job is None:
        return [Line("job", State.NOT_EVALUATED, "there is no plan to check: the pod has no morphisms-init", PAGE)]
    evaluator = Evaluator(cluster.configuration, cluster.snapshot)
    item = {**job, "metadata": {**job["metadata"], "namespace": namespace}}
    evaluation = evaluator.evaluate(item, target=mode, mode=mode)
    for finding in () if evaluation is None else evaluation.denying:
        words = f"the namespace would refuse the doctor's Job: [{finding.rule}] {finding.message}"
        return [Line("job", State.NOT_EVALUATED, words, finding.link, finding.rule)]
    if refusal := await refusal_of_job(client, namespace, job):
        words = f"the namespace would refuse the pod of the doctor's Job: {refusal}"
        return [Line("job", State.NOT_EVALUATED, words, PAGE)]
    name = job["metadata"]["name"]
    say(f"creating Job {name} in namespace {printable(namespace)}, which takes up to {SECONDS} s and is deleted then")
    return await doctor_lines(client, namespace, job, mode)


async def _events(client: Client, namespace: str, name: str, uid: object) -> list[Any] | None:
    """Those about this very pod, not a former one of its name; None: they could not be listed."""
    query = [("fieldSelector", f"involvedObject.kind=Pod,involvedObject.name={name}"), ("limit", "100")]
    try:
        found = await client.get(f"/api/v1/namespaces/{namespace}/events", query)
    except StatusError:
        return None
    return [each for each in mappings(found.get("items")) if mapping(each.get("involvedObject")).get("uid") == uid]
