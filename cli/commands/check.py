"""`morphisms check`: the rules over manifests, for authors and CI."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cli.support.findings import Checker, CheckResult, Finding, holds_pod, not_evaluated
from cli.support.manifests import (
    ForeignFile,
    Manifest,
    add_namespace,
    add_time,
    guessed_namespace,
    load_configuration,
    load_snapshot,
    read_all,
    unlisted_namespaces,
)
from cli.support.sarif import sarif
from cli.support.terminal import RED, YELLOW, coloured, say, wants_colour
from server.files import UnusableInputError
from server.text import printable
from server.yaml.kubernetes import STDIN
from webhook import policy_version
from webhook.configuration_file import without_effect
from webhook.errors import MalformedError
from webhook.modes import Mode
from webhook.rules.rule import Severity

HELP = "check manifests against the rules; exit 0 clean, 1 violations, 2 unusable input"
EXAMPLE = "morphisms check -f manifests/ -o sarif > morphisms.sarif"
DESCRIPTION = """\
Evaluates the rules on the pods of Pods, Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs, CronJobs and of
Knative's Services, Configurations and Revisions as they would look after injection, so every finding needs a change by
the author. Objects of other kinds are not checked: the summary counts them by kind, and names each that has a pod
template in it. Of a folder, files without Kubernetes objects (a chart's templates and values) are skipped, named and
counted; a broken manifest ends the command.

Without --snapshot every namespace counts as one of mode `enforce`, and rules that depend on the cluster are not
evaluated. With it the namespace's own mode counts, and pods that are exempt there are skipped. --mode says the mode of
every namespace in either case: `--snapshot cluster.yaml --mode enforce` is what enforce would do in this cluster.
--at says at which time: `--at 2027-02-01` shows what an exception covers today and no longer on that day.

-o json prints one object:
  {"version": 1,
   "violations": [{"file", "line", "kind", "namespace", "name", "rule", "severity", "action", "field", "message"}],
   "notes": [{"file", "object", "note"}],
   "notEvaluated": [RULE],
   "excepted": [{"file", "line", "kind", "namespace", "name", "rule", "field", "message", "reason", "expires"}],
   "notChecked": [{"apiVersion", "kind", "objects", "withPod"}],
   "skippedFiles": [{"file", "reason"}],
   "summary": {"objects", "violations", "denied", "excepted", "exempt", "notChecked", "skippedFiles",
               "namespaceGuessed"}}
`line` is where the YAML document starts; `severity` is critical, high, medium or low; `action` is deny or record;
`field` is in the object as written; a note is no violation, and says what the author may expect and does not happen,
such as Vault references of a pod that does not opt in; `excepted` violations do not count, because an exception of the
configuration covers them, until `expires`; `withPod` counts the objects in which a pod template stands.
Later versions may add members, and keep the meaning of these.

Exit codes: 0 clean, 1 violations, 2 unusable input."""

_VIOLATIONS, _UNUSABLE = 1, 2
_MAX_KIND: Final = 63


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = DESCRIPTION
    add_namespace(parser)
    parser.add_argument("--config", metavar="FILE", help="configuration; without it the documented defaults")
    parser.add_argument(
        "--snapshot", metavar="FILE", help="a List of namespaces, nodes, RuntimeClasses; the namespace's mode counts"
    )
    parser.add_argument(
        "-f",
        "--file",
        action="append",
        metavar="FILE|DIR|-",
        help="YAML or JSON, or a folder of such files; - is stdin, the default; may be given several times",
    )
    parser.add_argument(
        "--mode",
        choices=[mode.value for mode in Mode if mode is not Mode.ABSENT],
        help="the mode of every namespace, whatever the snapshot says",
    )
    add_time(parser)
    parser.add_argument(
        "--policy",
        choices=policy_version.RELEASES,
        help="the release whose rules deny, whatever the configuration says: what the next `policy` would deny",
    )
    parser.add_argument("-o", "--output", default="text", choices=("text", "json", "sarif"), help="default: text")


def run(arguments: argparse.Namespace) -> int:
    """Check every object, then print."""
    try:
        configuration, snapshot = load_configuration(arguments.config), load_snapshot(arguments.snapshot)
        if arguments.policy is not None:
            configuration = configuration.model_copy(update={"policy": arguments.policy})
        mode = None if arguments.mode is None else Mode(arguments.mode)
        now = arguments.at or datetime.now(UTC)
        report = _check(arguments.file or [STDIN], arguments.namespace, Checker(configuration, snapshot, mode, now))
    except UnusableInputError as error:
        say(f"morphisms check: {error}")
        return _UNUSABLE
    skipped = not_evaluated(snapshot)
    if arguments.output == "json":
        sys.stdout.write(_json(report, skipped))
    elif arguments.output == "sarif":
        sys.stdout.write(sarif([*report.findings, *report.covered], skipped, report.noted))
    else:
        colour = wants_colour(sys.stdout)
        for finding in report.findings:
            print(_line(finding, colour=colour))
        for finding in report.covered:
            print(_covered_line(finding))
        for source, title, note in report.notes:
            print(f"{source}: {title}: note: {note}")
    for foreign in report.skipped_files:
        say(f"{foreign.path}: skipped: {foreign.reason}")
    for manifest in report.pods_unchecked:
        say(
            f"{manifest.source}: {manifest.title}: not checked, but it has a pod template; check the pods that it makes"
        )
    for problem in without_effect(configuration, now):
        say(problem)
    if (guessed := guessed_namespace(manifest for manifest, _ in report.checked)) is not None:
        say(guessed)
    unlisted = unlisted_namespaces((manifest for manifest, _ in report.checked), snapshot if mode is None else None)
    if unlisted is not None:
        say(unlisted)
    say(_summary(report, skipped))
    return _VIOLATIONS if report.findings else 0


@dataclass(frozen=True, slots=True)
class _Report:
    """Everything that was looked at: what was checked, and what was not."""

    checked: Sequence[tuple[Manifest, CheckResult]]
    unchecked: Sequence[Manifest]
    skipped_files: Sequence[ForeignFile]

    @property
    def findings(self) -> list[Finding]:
        """Every finding, in the order of the input."""
        return [finding for _, result in self.checked for finding in result.findings]

    @property
    def covered(self) -> list[Finding]:
        """Every violation that an exception covers."""
        return [finding for _, result in self.checked for finding in result.covered]

    @property
    def notes(self) -> list[tuple[str, str, str]]:
        """(file, object, note) of every note."""
        return [(manifest.source, manifest.title, note) for manifest, note in self.noted]

    @property
    def noted(self) -> list[tuple[Manifest, str]]:
        """(object, note) of every note."""
        return [(manifest, note) for manifest, result in self.checked for note in result.notes]

    @property
    def denied(self) -> int:
        """How many findings deny."""
        return sum(finding.action == "deny" for finding in self.findings)

    @property
    def exempt(self) -> int:
        """How many objects are outside the policy."""
        return sum(bool(result.exempt) for _, result in self.checked)

    @property
    def pods_unchecked(self) -> list[Manifest]:
        """The objects of other kinds in which a pod template stands."""
        return [manifest for manifest in self.unchecked if holds_pod(manifest.object)]

    @property
    def kinds_unchecked(self) -> list[tuple[tuple[str, str], int]]:
        """((apiVersion, kind), how many objects), sorted."""
        kinds = Counter((str(each.object["apiVersion"]), each.kind) for each in self.unchecked)
        return sorted(kinds.items())


def _check(paths: Sequence[str], namespace: str | None, checker: Checker) -> _Report:
    checked, unchecked, skipped_files = [], [], []
    for path in paths:
        manifests, foreign = read_all(path, namespace)
        skipped_files += foreign
        for manifest in manifests:
            result = _check_one(manifest, checker)
            if result is None:
                unchecked.append(manifest)
            else:
                checked.append((manifest, result))
    return _Report(checked, unchecked, skipped_files)


def _check_one(manifest: Manifest, checker: Checker) -> CheckResult | None:
    try:
        return checker.check(manifest)
    except MalformedError as error:
        raise manifest.unusable(error) from None


def _line(finding: Finding, *, colour: bool) -> str:
    code = RED if finding.rule.severity in (Severity.CRITICAL, Severity.HIGH) else YELLOW
    rule = coloured(f"[{finding.rule.id}]", code, wanted=colour)
    manifest = finding.manifest
    return f"{manifest.source}: {manifest.title}: {rule} {finding.message} ({finding.field or 'object'})"


def _covered_line(finding: Finding) -> str:
    manifest, exception = finding.manifest, finding.exception
    until = "" if exception is None else f"{exception.expires:%Y-%m-%dT%H:%M:%SZ}: {exception.reason}"
    return (
        f"{manifest.source}: {manifest.title}: [{finding.rule.id}] excepted until {until} ({finding.field or 'object'})"
    )


def _json(report: _Report, skipped: Sequence[str]) -> str:
    violations = [
        {
            "file": finding.manifest.source,
            "line": finding.manifest.line,
            "kind": finding.manifest.kind,
            "namespace": finding.manifest.namespace,
            "name": finding.manifest.name,
            "rule": finding.rule.id,
            "severity": finding.rule.severity.value,
            "action": finding.action,
            "field": finding.field,
            "message": finding.message,
        }
        for finding in report.findings
    ]
    with_pod = Counter((str(each.object["apiVersion"]), each.kind) for each in report.pods_unchecked)
    document = {
        "version": 1,
        "violations": violations,
        "notes": [{"file": file, "object": title, "note": note} for file, title, note in report.notes],
        "notEvaluated": list(skipped),
        "excepted": [
            {
                "file": each.manifest.source,
                "line": each.manifest.line,
                "kind": each.manifest.kind,
                "namespace": each.manifest.namespace,
                "name": each.manifest.name,
                "rule": each.rule.id,
                "field": each.field,
                "message": each.message,
                "reason": each.exception.reason,
                "expires": f"{each.exception.expires:%Y-%m-%dT%H:%M:%SZ}",
            }
            for each in report.covered
            if each.exception is not None
        ],
        "notChecked": [
            {"apiVersion": at[0], "kind": at[1], "objects": count, "withPod": with_pod[at]}
            for at, count in report.kinds_unchecked
        ],
        "skippedFiles": [{"file": each.path, "reason": each.reason} for each in report.skipped_files],
        "summary": {
            "objects": len(report.checked),
            "violations": len(violations),
            "denied": report.denied,
            "excepted": len(report.covered),
            "exempt": report.exempt,
            "notChecked": len(report.unchecked),
            "skippedFiles": len(report.skipped_files),
            "namespaceGuessed": sum(manifest.is_namespace_guessed for manifest, _ in report.checked),
        },
    }
    return json.dumps(document, indent=2) + "\n"


def _summary(report: _Report, skipped: Sequence[str]) -> str:
    parts = [f"{len(report.checked)} objects, {len(report.findings)} violations ({report.denied} of them denied)"]
    if report.covered:
        parts.append(f"{len(report.covered)} violations are excepted")
    if report.exempt:
        parts.append(f"{report.exempt} objects are outside the policy")
    if report.unchecked:
        kinds = ", ".join(f"{count} {printable(kind[:_MAX_KIND])}" for (_, kind), count in report.kinds_unchecked)
        parts.append(f"not checked: {kinds}")
    if report.skipped_files:
        parts.append(f"skipped files: {len(report.skipped_files)}")
    if skipped:
        parts.append(f"not evaluated: {', '.join(skipped)}")
    return "; ".join(parts)
