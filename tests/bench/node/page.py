"""docs/benchmarks.md, from a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import fill
from typing import Final

from tests.bench.node.starts import PHASES, Run, counted, variants_of

_WIDTH: Final = 120
_BUDGET: Final = ("wrapped", 400)
"""The variant that has a budget, and how many milliseconds it may add to one start."""


def write(run: Run) -> str:
    """The page's text."""
    parts = [
        "# Benchmarks: cold starts on a real node",
        _HEAD,
        _where(run),
        f"![The starts by phase; the tables below have the figures]({_PLOT})",
        "## From the pod's creation to its being ready",
        _CLOCKS,
        *_levels(run),
        "## What Morphisms adds",
        _ADDED,
        *_added(run),
        "## Where the time goes",
        _PHASES,
        *(f"- *{name}*: {what}." for name, (_, _, what) in PHASES.items()),
        *_phases(run),
    ]
    return "\n\n".join(_wrapped(part) for part in parts).replace(".\n\n- *", ".\n- *") + "\n"


def table(run: Run) -> str:
    """What the command prints: the totals, and what was left out."""
    return "\n".join([*_levels(run), *_added(run)])


_PLOT: Final = "benchmarks.svg"
_HEAD: Final = """\
`make bench-node`, as root on Debian, brings up the node of the node tier (a kubelet, containerd, stock Knative,
OpenBao, the verifier and Morphisms) and writes this page. Evidence is simulated there and every runtime handler is
plain runc: a VM's start and the security processor's report are not in these figures. Everything shares one machine,
the control plane too. All images lie on the node, so no figure has an image pull in it."""
_CLOCKS: Final = """\
A start begins when the API server receives the pod and ends when it has stored that the pod is ready. A level of N is
one new Revision with `initial-scale: N`, so N pods are created at once; each start is timed by itself. The variants
take turns within each round, in an order that turns from round to round. Of more than one pod at once, nothing is left
of one variant when the next begins; a single pod begins while the one before ends. In each turn one pod's application
shows that it has its secret. Times are the API server's audit log's (microseconds), containerd's log's and the
container logs' (nanoseconds), all of one machine's clock; pod conditions, which have whole seconds, are not used. An
agent's line is timed when containerd has read it. The kubelet notices the end of an init container when it looks at all
containers, once a second, and probes a native sidecar one, two … seconds after it took the pod up; so single starts
spread over a second whatever runs in them, and the rounds begin at evenly spread moments of a second. Where a hook
stands for the probe (a Service with a variable), the application's container starts meanwhile and waits in its helper.
`bao agent` stands for Vault Agent Injector's container; the Injector's own webhook is not run."""
_ADDED: Final = """\
To the Service as it is, beyond the image pull: *added* is the difference of the medians. Of the difference of the
means, *work* is admission, scheduling and the agent (its container, attestation, Vault), and *kubelet* is the rest,
which for one start is waiting: for the next look at the containers after an init container has ended, or for the next
probe of a native sidecar."""
_PHASES: Final = "Means in milliseconds, which add up to the mean of the whole:"


def _where(run: Run) -> str:
    facts = "; ".join(f"{name}: {_plain(value)}" for name, value in run.machine.items())
    levels = ", ".join(map(str, run.levels))
    text = f"Measured {run.date}. {facts}. Run were {levels} starts at once"
    for level, why in run.left_out.items():
        text += f"; {level} were left out: {_plain(why)}"
    return f"{text}."


def _levels(run: Run) -> list[str]:
    found = []
    for level in run.levels:
        rows = [
            f"| {_plain(run.titles[key])} | {len(run.of(key, level))} | {run.median(key, level):,.0f} "
            f"| {run.p90(key, level):,.0f} | {run.median(key, level) / run.median(run.base, level):.2f} "
            f"| {run.added(key, level):+,.0f} |"
            for key in variants_of(run)
        ]
        head = ("variant", "starts", "median ms", "p90 ms", "ratio", "added ms")
        found.append(f"{level} at once, {counted(run.rounds(level))}:")
        found.append(_table(head, rows))
    return found


def _added(run: Run) -> list[str]:
    others = [key for key in variants_of(run) if key != run.base]
    rows = [
        f"| {_plain(run.titles[key])} | {level} | {run.added(key, level):+,.0f} | {run.worked(key, level):+,.0f} "
        f"| {run.waited(key, level):+,.0f} |"
        for key in others
        for level in run.levels
    ]
    found = [_table(("variant", "at once", "added ms", "work ms", "kubelet ms"), rows)]
    variant, most = _BUDGET
    if variant in others and 1 in run.levels:
        added = run.added(variant, 1)
        said = "met" if added <= most else f"missed by {added - most:,.0f} ms"
        found.append(f"The budget for one start of *{run.titles[variant]}* is {most} ms added: {said}.")
    return found


def _phases(run: Run) -> list[str]:
    found = []
    for level in run.levels:
        rows = [
            f"| {_plain(run.titles[key])} | "
            + " | ".join(f"{run.mean(key, level, phase):,.0f}" for phase in PHASES)
            + " |"
            for key in variants_of(run)
        ]
        found.append(f"{level} at once:")
        found.append(_table(("variant", *PHASES), rows))
    return found


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows])


def _plain(text: str) -> str:
    """As text of one line in a cell."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))


def _wrapped(part: str) -> str:
    if part.startswith(("|", "#", "!")):
        return part
    indent = "  " if part.startswith("- ") else ""
    return fill(part, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
