"""`morphisms audit`: what the rules find in the workloads of a live cluster; reads only."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime

from cli.audit import formats
from cli.audit.page import page
from cli.audit.words import SEVERITIES
from cli.live.cluster import read_cluster
from cli.live.connection import UNREACHABLE, add_cluster, with_cluster
from cli.live.workloads import Evaluations, evaluate_cluster
from cli.support.progress import Progress
from cli.support.terminal import say, wants_colour
from server.files import UnusableInputError
from server.kubernetes.client import Client
from webhook import policy_version
from webhook.modes import Mode
from webhook.rules.rule import Severity
from webhook.scanner.kinds import SCANNED_KINDS
from webhook.scanner.never_looked_at import NEVER_LOOKED_AT

HELP = "evaluate the workloads of a live cluster by the rules; exit 0 clean, 1 findings, 2 unusable, 3 no answer"
EXAMPLE = "morphisms audit -A -o html > audit.html"
DESCRIPTION = """\
Reads Knative Services and their routable Revisions, Deployments, StatefulSets, DaemonSets, Jobs, CronJobs,
ReplicationControllers and pods that nothing makes anew, and evaluates each one's next pod as injection leaves it, by
the cluster's own configuration. It lists and gets alone, no Secret among them, and changes nothing.

Each finding is in one of three classes: fixed by injection; yours to change; not evaluated, because what it depends on
could not be read. A kind that could not be listed is named, and then nothing is called ready.

Without -n and -A it looks at the namespaces that have a mode.

-o json prints one object:
  {"version": 1, "target",
   "namespaces": [{"name", "mode", "ready", "workloads", "readyWorkloads"}],
   "workloads": [{"apiVersion", "kind", "namespace", "name", "ready", "exempt", "notes",
     "findings": [{"rule", "severity", "class", "field", "message", "action", "actionNow", "link", "exceptedUntil"}]}],
   "notLookedAt": [TEXT], "neverLookedAt": [TEXT], "objectsOutside"}
`action` is what the mode that is asked about does, `actionNow` what the namespace's present mode does.
Later versions may add members, and keep the meaning of these.

Exit codes: 0 nothing to change; 1 findings that are yours to change or not evaluated, from --fail-on on, or something
was not looked at; 2 unusable input; 3 no answer."""

CLEAN, FOUND, UNUSABLE = 0, 1, 2


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = DESCRIPTION
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-n", "--namespace", metavar="NAME", help="this namespace alone")
    where.add_argument("-A", "--all-namespaces", action="store_true", help="those without a mode too")
    add_cluster(parser)
    parser.add_argument(
        "--mode",
        choices=[mode.value for mode in Mode if mode is not Mode.ABSENT],
        default=Mode.ENFORCE.value,
        help="the mode that is asked about; default: %(default)s",
    )
    parser.add_argument(
        "--policy",
        choices=policy_version.RELEASES,
        help="the release whose rules deny, whatever `policy` says",
    )
    parser.add_argument(
        "--fail-on",
        choices=[each.value for each in SEVERITIES],
        default=Severity.LOW.value,
        help="the least severity that makes the exit code 1; default: %(default)s",
    )
    parser.add_argument(
        "-o", "--output", default="text", choices=("text", "json", "sarif", "junit", "html"), help="default: text"
    )


def run(arguments: argparse.Namespace) -> int:
    """Read, evaluate, print."""
    at = datetime.now(UTC)
    fail_on = Severity(arguments.fail_on)
    try:
        found = with_cluster(arguments, "audit", lambda client: _evaluate(client, arguments, at))
    except UnusableInputError as error:
        say(f"morphisms audit: {error}")
        return UNUSABLE
    if found is None:
        return UNREACHABLE
    sys.stdout.write(_written(found, arguments, at, fail_on))
    if arguments.output != "text":
        for each in found.not_read:
            say(f"not looked at: {each}")
        for each in NEVER_LOOKED_AT:
            say(f"never looked at: {each}")
        say(formats.summary(found))
    against = any(formats.counts_against(each, fail_on) for each in found.findings)
    return FOUND if against or found.not_read else CLEAN


async def _evaluate(client: Client, arguments: argparse.Namespace, at: datetime) -> Evaluations:
    namespace = arguments.namespace
    with Progress() as progress:
        cluster = await read_cluster(client, arguments.config, namespace, at, policy=arguments.policy)
        kinds = [kind.resource for kind in SCANNED_KINDS]

        def show(resource: str, objects: int) -> None:
            progress(resource, kinds.index(resource), len(kinds), f"{objects} objects")

        found = await evaluate_cluster(client, cluster, Mode(arguments.mode), namespace, show)
    if namespace is None and not arguments.all_namespaces:
        found.evaluations = [
            each for each in found.evaluations if found.modes.get(each.object.namespace, Mode.ABSENT) is not Mode.ABSENT
        ]
    return found


def _written(found: Evaluations, arguments: argparse.Namespace, at: datetime, fail_on: Severity) -> str:
    if arguments.output == "json":
        return formats.as_json(found)
    if arguments.output == "sarif":
        return formats.sarif(found)
    if arguments.output == "junit":
        return formats.junit(found, fail_on)
    if arguments.output == "html":
        return page(found, at, arguments.context or "")
    return formats.text(found, colour=wants_colour(sys.stdout))
