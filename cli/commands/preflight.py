"""`morphisms preflight`: whether a namespace can be switched to a mode, and what would break."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from attestation.verifier.configuration import load_configuration as load_verifier
from cli.live.cluster import read_cluster
from cli.live.connection import UNREACHABLE, add_cluster, with_cluster
from cli.preflight.gather import preflight
from cli.preflight.lines import Line, State, is_go
from cli.support.progress import Progress
from cli.support.terminal import CYAN, GREEN, RED, YELLOW, coloured, say, wants_colour
from server.files import UnusableInputError
from server.kubernetes.client import Client
from server.text import printable
from server.yaml.strict import ConfigurationError
from webhook import policy_version
from webhook.modes import Mode

HELP = "whether a namespace can be switched to enforce, and what would break; exit 0 go, 1 no-go"
EXAMPLE = "morphisms preflight shop --mode enforce"
DESCRIPTION = """\
Looks at every workload of the namespace (routable Revisions, Deployments, StatefulSets, DaemonSets, Jobs, CronJobs,
ReplicationControllers and pods that nothing makes anew) with the cluster's own configuration, and at what their next
pods need: RuntimeClass and nodes, a container template that all replicas know, room on a suitable node for requests
and overhead, and the API server's own answer to each injected pod: LimitRange, ResourceQuota and Pod Security.

It stores nothing. For that answer it creates pods as a dry run, which needs the right to create pods; without it the
line is `not-evaluated`. What only the cluster can reach (verifier, Vault, names, key set) it reads from the scanner's
probes (docs/operations.md); without them it is `not-evaluated` too.
A line that is not evaluated is no-go, unless --allow-unevaluated. Other admission plug-ins are named as not looked at.

-o json prints one object:
  {"version": 1, "namespace", "mode", "go", "lines": [{"check", "state", "text", "link"}]}
`state` is ok, failed, not-evaluated or note. Later versions may add members, and keep the meaning of these.

Exit codes: 0 go; 1 no-go; 2 unusable input; 3 no answer."""

GO, NO_GO, UNUSABLE = 0, 1, 2
_COLOURS = {State.OK: GREEN, State.FAILED: RED, State.NOT_EVALUATED: YELLOW, State.NOTE: CYAN}


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
    parser.add_argument(
        "--policy", choices=policy_version.RELEASES, help="the release whose rules deny, whatever `policy` says"
    )
    parser.add_argument(
        "--verifier-config",
        type=Path,
        metavar="FILE",
        help="the verifier's configuration, to compare the cluster's name and issuer with",
    )
    parser.add_argument(
        "--allow-unevaluated", action="store_true", help="go, though something is not known; failures stay no-go"
    )
    parser.add_argument("-o", "--output", default="text", choices=("text", "json"), help="default: text")


def run(arguments: argparse.Namespace) -> int:
    """Read, judge, print."""
    try:
        entries = None if arguments.verifier_config is None else _entries(arguments.verifier_config)
        lines = with_cluster(arguments, "preflight", lambda client: _lines(client, arguments, entries))
    except UnusableInputError as error:
        say(f"morphisms preflight: {error}")
        return UNUSABLE
    if lines is None:
        return UNREACHABLE
    go = is_go(lines, allow_unevaluated=arguments.allow_unevaluated)
    if arguments.output == "json":
        sys.stdout.write(_json(lines, arguments, go))
    else:
        _print(lines, arguments, go)
    return GO if go else NO_GO


def _entries(path: Path) -> Mapping[str, str]:
    try:
        return {each.name: each.issuer for each in load_verifier(path).clusters}
    except ConfigurationError as error:
        raise UnusableInputError("; ".join(error.problems)) from None


async def _lines(client: Client, arguments: argparse.Namespace, entries: Mapping[str, str] | None) -> list[Line]:
    name = arguments.namespace
    with Progress() as progress:
        now = datetime.now(UTC)
        cluster = await read_cluster(client, arguments.config, name, now, policy=arguments.policy)
        return await preflight(client, cluster, name, Mode(arguments.mode), entries, progress)


def _json(lines: Sequence[Line], arguments: argparse.Namespace, go: bool) -> str:
    document = {
        "version": 1,
        "namespace": arguments.namespace,
        "mode": arguments.mode,
        "go": go,
        "lines": [
            {"check": each.check, "state": each.state.value, "text": each.text, "link": each.link} for each in lines
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def _print(lines: Sequence[Line], arguments: argparse.Namespace, go: bool) -> None:
    colour = wants_colour(sys.stdout)
    for line in lines:
        state = coloured(f"{line.state.value:13}", _COLOURS[line.state], wanted=colour)
        needs_page = line.state in (State.FAILED, State.NOT_EVALUATED)
        print(f"{state} {line.check:13} {printable(line.text)}" + (f" [{line.link}]" if needs_page else ""))
    count = Counter(each.state for each in lines)
    word = coloured("go" if go else "no-go", GREEN if go else RED, wanted=colour)
    print(
        f"{word}: namespace {printable(arguments.namespace)} to {arguments.mode}: {count[State.FAILED]} failed,"
        f" {count[State.NOT_EVALUATED]} not evaluated"
    )
