"""`morphisms preflight`: whether a namespace can be switched to a mode, and what would break."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from cli.live.cluster import read_cluster
from cli.live.connection import UNREACHABLE, add_cluster, with_cluster
from cli.preflight import formats
from cli.preflight.gather import ProbeJob, preflight
from cli.preflight.lines import Line, is_go
from cli.preflight.options import add_questions, issuers
from cli.support.progress import Progress
from cli.support.terminal import GREEN, RED, coloured, say, wants_colour
from server.files import UnusableInputError
from server.kubernetes.client import Client
from server.text import printable
from webhook.modes import Mode

HELP = "whether a namespace can be switched to enforce, and what would break; exit 0 go, 1 no-go"
EXAMPLE = "morphisms preflight shop --mode enforce"
DESCRIPTION = """\
Looks at every workload of the namespace (routable Revisions, Deployments, StatefulSets, DaemonSets, Jobs, CronJobs,
ReplicationControllers and pods that nothing makes anew) with the cluster's own configuration, and at what their next
pods need: RuntimeClass and nodes, a container template that all replicas know, room on a suitable node for requests
and overhead, and the API server's own answer to each injected pod: LimitRange, ResourceQuota and Pod Security.

Without --probe it stores nothing. For that answer it creates pods as a dry run, which needs the right to create pods;
without it the line is `not-evaluated`. What only the cluster can reach (verifier, Vault, names, key set) it reads from
the scanner's probes (docs/operations.md); without them it is `not-evaluated` too. With --probe a Job asks then: it says
which Job it creates in the namespace, waits for it, and deletes it, also after Ctrl-C or SIGTERM. The Job's pod has no
token and no volume, and Pod Security's level `restricted` admits it. That needs create and delete on jobs and get on
pods/log there, and get on the Deployment morphisms-system/morphisms-webhook or --probe-image.
A line that is not evaluated is no-go, unless --allow-unevaluated. Other admission plug-ins are named as not looked at.

-o json prints one object:
  {"version": 1, "namespace", "mode", "go", "lines": [{"check", "state", "text", "link"}]}
`state` is ok, failed, not-evaluated or note. Later versions may add members, and keep the meaning of these. SARIF has a
result for each failed and each not evaluated line, JUnit a case per line (with --allow-unevaluated the latter are
skipped), HTML is one file that needs no network.

Exit codes: 0 go; 1 no-go; 2 unusable input; 3 no answer."""

GO, NO_GO, UNUSABLE = 0, 1, 2


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = DESCRIPTION
    parser.add_argument("namespace", metavar="NAMESPACE", help="that is to be switched")
    parser.add_argument(
        "--mode",
        choices=[mode.value for mode in Mode if mode is not Mode.ABSENT],
        default=Mode.ENFORCE.value,
        help="to which; default: %(default)s",
    )
    add_cluster(parser)
    add_questions(parser)
    parser.add_argument(
        "--probe",
        action="store_true",
        help="where the scanner has no probes of now: create a Job in the namespace that probes; deleted after",
    )
    parser.add_argument(
        "--probe-image", metavar="IMAGE", help="of that Job; without it the webhook's, by its Deployment"
    )
    parser.add_argument(
        "-o", "--output", default="text", choices=("text", "json", "sarif", "junit", "html"), help="default: text"
    )


def run(arguments: argparse.Namespace) -> int:
    """Read, judge, print."""
    try:
        if arguments.probe_image is not None and not arguments.probe:
            raise UnusableInputError("--probe-image needs --probe")
        entries = issuers(arguments.verifier_config)
        lines = with_cluster(arguments, "preflight", lambda client: _lines(client, arguments, entries))
    except UnusableInputError as error:
        say(f"morphisms preflight: {error}")
        return UNUSABLE
    if lines is None:
        return UNREACHABLE
    go = is_go(lines, allow_unevaluated=arguments.allow_unevaluated)
    if arguments.output == "text":
        _print(lines, arguments, go)
    else:
        sys.stdout.write(_written(lines, arguments, go))
        say(_verdict(lines, arguments, go))
    return GO if go else NO_GO


async def _lines(client: Client, arguments: argparse.Namespace, entries: Mapping[str, str] | None) -> list[Line]:
    name = arguments.namespace
    with Progress() as progress:
        now = datetime.now(UTC)
        cluster = await read_cluster(client, arguments.config, name, now, policy=arguments.policy)
        probe = ProbeJob(arguments.probe_image) if arguments.probe else None
        return await preflight(client, cluster, name, Mode(arguments.mode), entries, progress, probe)


def _written(lines: Sequence[Line], arguments: argparse.Namespace, go: bool) -> str:
    name, allowed = arguments.namespace, arguments.allow_unevaluated
    if arguments.output == "sarif":
        return formats.sarif(lines, name)
    if arguments.output == "junit":
        return formats.junit(lines, name, allow_unevaluated=allowed)
    if arguments.output == "html":
        return formats.html(lines, name, arguments.mode, datetime.now(UTC), go=go)
    return _json(lines, arguments, go)


def _verdict(lines: Sequence[Line], arguments: argparse.Namespace, go: bool, *, colour: bool = False) -> str:
    word = coloured("go" if go else "no-go", GREEN if go else RED, wanted=colour)
    return f"{word}: namespace {printable(arguments.namespace)} to {arguments.mode}: {formats.counts(lines)}"


def _json(lines: Sequence[Line], arguments: argparse.Namespace, go: bool) -> str:
    document = {
        "version": 1,
        "namespace": arguments.namespace,
        "mode": arguments.mode,
        "go": go,
        "lines": formats.objects(lines),
    }
    return json.dumps(document, indent=2) + "\n"


def _print(lines: Sequence[Line], arguments: argparse.Namespace, go: bool) -> None:
    colour = wants_colour(sys.stdout)
    for line in formats.text(lines, colour=colour):
        print(line)
    print(_verdict(lines, arguments, go, colour=colour))
