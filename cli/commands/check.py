"""`morphisms check`: the rules over manifests, for authors and CI."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from cli.support.findings import Checker, CheckResult, Finding, not_evaluated
from cli.support.manifests import Manifest, files_in, load_configuration, load_snapshot, manifests_of
from cli.support.sarif import sarif
from cli.support.terminal import RED, YELLOW, coloured, say, wants_colour
from server.files import UnusableInputError
from server.yaml.kubernetes import STDIN, read_documents
from webhook.errors import MalformedError
from webhook.rules.rule import Severity

HELP = "check manifests against the rules; exit 0 clean, 1 violations, 2 unusable input"
EXAMPLE = "morphisms check -f manifests/ -o sarif > morphisms.sarif"
DESCRIPTION = """\
Evaluates the rules on the pods of Pods, Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs, CronJobs and of
Knative's Services, Configurations and Revisions as they would look after injection, so every finding needs a change by
the author. Other kinds are skipped.

Without --snapshot every namespace counts as one of mode `enforce`, and rules that depend on the cluster are not
evaluated. With it the namespace's own mode counts, and pods that are exempt there are skipped.

-o json prints one object:
  {"version": 1,
   "violations": [{"file", "line", "kind", "namespace", "name", "rule", "severity", "action", "field", "message"}],
   "notes": [{"file", "object", "note"}],
   "notEvaluated": [RULE],
   "summary": {"objects", "violations", "denied", "exempt"}}
`line` is where the YAML document starts; `severity` is critical, high, medium or low; `action` is deny or record;
`field` is in the object as written; a note is no violation, and says what the author may expect and does not happen,
such as Vault references of a pod that does not opt in. Later versions may add members, and keep the meaning of these.

Exit codes: 0 clean, 1 violations, 2 unusable input."""

_VIOLATIONS, _UNUSABLE = 1, 2


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = DESCRIPTION
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
    parser.add_argument("-o", "--output", default="text", choices=("text", "json", "sarif"), help="default: text")


def run(arguments: argparse.Namespace) -> int:
    """Check every object, then print."""
    try:
        configuration, snapshot = load_configuration(arguments.config), load_snapshot(arguments.snapshot)
        checker = Checker(configuration, snapshot)
        results = [result for file in arguments.file or [STDIN] for result in _check(file, checker)]
    except UnusableInputError as error:
        say(f"morphisms check: {error}")
        return _UNUSABLE
    findings = [finding for result in results for finding in result.findings]
    notes = _notes(results)
    skipped = not_evaluated(snapshot)
    if arguments.output == "json":
        sys.stdout.write(_json(results, findings, notes, skipped))
    elif arguments.output == "sarif":
        sys.stdout.write(sarif(findings, skipped))
    else:
        colour = wants_colour(sys.stdout)
        for finding in findings:
            print(_line(finding, colour=colour))
        for source, title, note in notes:
            print(f"{source}: {title}: note: {note}")
    say(_summary(results, findings, skipped))
    return _VIOLATIONS if findings else 0


def _check(path: str, checker: Checker) -> list[CheckResult]:
    return [
        result
        for file in files_in(path)
        for document in read_documents(file)
        for manifest in manifests_of(document)
        if (result := _check_one(manifest, checker)) is not None
    ]


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


def _notes(results: Sequence[CheckResult]) -> list[tuple[str, str, str]]:
    """(file, object, note) of every note."""
    return [
        (result.manifest.source, result.manifest.title, note)
        for result in results
        if result.manifest is not None
        for note in result.notes
    ]


def _json(
    results: Sequence[CheckResult],
    findings: Sequence[Finding],
    notes: Sequence[tuple[str, str, str]],
    skipped: Sequence[str],
) -> str:
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
        for finding in findings
    ]
    summary = {
        "objects": len(results),
        "violations": len(findings),
        "denied": _denied(findings),
        "exempt": _exempt(results),
    }
    document = {
        "version": 1,
        "violations": violations,
        "notes": [{"file": file, "object": title, "note": note} for file, title, note in notes],
        "notEvaluated": list(skipped),
        "summary": summary,
    }
    return json.dumps(document, indent=2) + "\n"


def _summary(results: Sequence[CheckResult], findings: Sequence[Finding], skipped: Sequence[str]) -> str:
    parts = [f"{len(results)} objects, {len(findings)} violations ({_denied(findings)} of them denied)"]
    if exempt := _exempt(results):
        parts.append(f"{exempt} objects are outside the policy")
    if skipped:
        parts.append(f"not evaluated: {', '.join(skipped)}")
    return "; ".join(parts)


def _denied(findings: Sequence[Finding]) -> int:
    return sum(finding.action == "deny" for finding in findings)


def _exempt(results: Sequence[CheckResult]) -> int:
    return sum(bool(result.exempt) for result in results)
