"""`morphisms graduate`: takes a namespace to a stricter mode, step by step; the only thing it writes is that label."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from cli.audit.words import mode_phrase, mode_word
from cli.graduation.steps import Goal, Outcome, Step, due, graduate, said
from cli.knative.go_values import parse_duration
from cli.live.connection import UNREACHABLE, add_cluster, with_cluster
from cli.preflight import formats
from cli.preflight.lines import State
from cli.preflight.options import add_questions, issuers
from cli.support.progress import Progress
from cli.support.terminal import GREEN, RED, coloured, say, wants_colour
from server.files import UnusableInputError
from server.kubernetes.client import Client
from server.text import printable
from webhook.modes import Mode

HELP = "take a namespace from audit over inject to enforce, each step only when nothing would break; exit 0 or 1"
EXAMPLE = "morphisms graduate shop --clean-for 72h"
DESCRIPTION = """\
Takes a namespace to the next mode: none -> audit -> inject -> enforce. Before each step it looks at everything that
`morphisms preflight` looks at, for the next mode, and at the cluster's report, which the scanner writes: all workloads
of the namespace have to be ready for enforce, for --clean-for, and in the present mode. From no mode to audit no report
is asked for, because the scanner reports on namespaces with a mode. --clean-for 0 takes all steps in one run.

A run that may not take the step says what is left, and writes nothing. The one thing that it ever writes is the
namespace's label morphisms.dev/mode, in one request, and only where neither that nor any other label of the namespace
changed since it was looked at. It needs what preflight needs, the verb patch on the namespace, and get on the Lease
morphisms-scanner and on the report.

--dry-run looks at the next step alone, and asks the API server to try the change without storing it.

-o json prints one object:
  {"version": 1, "namespace", "goal", "mode", "steps": [{"from", "to", "outcome", "lines": [as preflight's]}]}
`outcome` is taken, possible (a dry run), refused, overtaken, denied or unknown. Later versions may add members.

Exit codes: 0 the mode is reached, or a step was taken or is possible; 1 the step may not be taken; 2 unusable input;
3 no answer."""

DONE, REFUSED, UNUSABLE = 0, 1, 2
_NANOSECONDS = 1_000_000_000


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = DESCRIPTION
    parser.add_argument("namespace", metavar="NAMESPACE", help="that is to be taken further")
    parser.add_argument(
        "--to",
        choices=[mode.value for mode in Mode if mode is not Mode.ABSENT],
        default=Mode.ENFORCE.value,
        help="how far; default: %(default)s",
    )
    parser.add_argument(
        "--clean-for",
        type=duration,
        default="24h",
        metavar="TIME",
        help="how long its report has to be clean before each step, such as 90m; default: %(default)s",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what the next step would be; store nothing")
    add_cluster(parser)
    add_questions(parser)
    parser.add_argument("-o", "--output", default="text", choices=("text", "json"), help="default: text")


def duration(text: str) -> timedelta:
    """A time such as 24h, 1h30m or 0."""
    try:
        return timedelta(seconds=parse_duration(text) / _NANOSECONDS)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError("expected a time such as 24h, 90m or 0") from None


def run(arguments: argparse.Namespace) -> int:
    """Look, write where nothing is left, print."""
    steps: list[Step] = []
    is_text = arguments.output == "text"
    goal = Goal(
        arguments.namespace,
        Mode(arguments.to),
        arguments.clean_for,
        issuers(arguments.verifier_config),
        arguments.config,
        arguments.policy,
        arguments.allow_unevaluated,
        arguments.dry_run,
    )

    def done(step: Step) -> None:
        steps.append(step)
        if is_text:
            _print(step, goal)

    problem, mode = "", None
    try:
        mode = with_cluster(arguments, "graduate", lambda client: _graduate(client, goal, done))
    except UnusableInputError as error:
        problem = str(error)
    if not is_text and (steps or not problem):
        sys.stdout.write(json.dumps(_document(goal, mode, steps), indent=2) + "\n")
    if problem:
        say(f"morphisms graduate: {problem}")
        return UNUSABLE
    if mode is None or (steps and steps[-1].outcome is Outcome.UNKNOWN):
        return UNREACHABLE
    if is_text:
        _print_end(goal, mode, steps)
    may = not steps or steps[-1].outcome in (Outcome.TAKEN, Outcome.POSSIBLE)
    return DONE if may else REFUSED


async def _graduate(client: Client, goal: Goal, done: Callable[[Step], None]) -> Mode:
    with Progress() as progress:
        return await graduate(client, goal, progress, done)


def _print(step: Step, goal: Goal) -> None:
    colour = wants_colour(sys.stdout)
    for line in formats.text(step.lines, colour=colour):
        print(line)
    good = step.outcome in (Outcome.TAKEN, Outcome.POSSIBLE)
    print(coloured(said(step, goal), GREEN if good else RED, wanted=colour) + f" ({formats.counts(step.lines)})")
    sys.stdout.flush()


def _print_end(goal: Goal, mode: Mode, steps: list[Step]) -> None:
    name = printable(goal.namespace)
    print(f"namespace {name} has {mode_phrase(mode)}" + ("" if mode is goal.mode else f"; goal: {goal.mode.value}"))
    if steps and steps[-1].outcome is Outcome.TAKEN and mode is not goal.mode:
        print(due(goal, datetime.now(UTC)))
    left = [line for step in steps[-1:] if step.outcome is Outcome.REFUSED for line in step.lines]
    if not any(line.state is State.FAILED for line in left) and left:
        print("nothing failed; --allow-unevaluated goes on where you have looked at the rest yourself")


def _document(goal: Goal, mode: Mode | None, steps: list[Step]) -> dict[str, Any]:
    return {
        "version": 1,
        "namespace": goal.namespace,
        "goal": goal.mode.value,
        "mode": None if mode is None else mode_word(mode),
        "steps": [
            {
                "from": mode_word(step.before),
                "to": step.after.value,
                "outcome": step.outcome.value,
                "lines": formats.objects(step.lines),
            }
            for step in steps
        ],
    }
