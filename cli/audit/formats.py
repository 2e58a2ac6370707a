"""A report as text, JSON, SARIF and JUnit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from cli.audit.words import CLASSES, SEVERITIES, mode_word
from cli.live.workloads import Evaluations
from cli.support.junit import xml_document, xml_text
from cli.support.sarif import LEVELS, sarif_log, suppression
from cli.support.terminal import GREEN, RED, YELLOW, coloured
from server.text import printable
from webhook.modes import Mode
from webhook.rules import POD
from webhook.rules.rule import Severity
from webhook.scanner.finding import Evaluation, Finding, FindingClass
from webhook.scanner.never_looked_at import NEVER_LOOKED_AT


def counts_against(finding: Finding, fail_on: Severity) -> bool:
    """Whether the finding lets the command fail: not what injection mends, and at least this grave."""
    grave = SEVERITIES.index(finding.severity) <= SEVERITIES.index(fail_on)
    return finding.kind is not FindingClass.FIXED_BY_INJECTION and grave


def text(found: Evaluations, *, colour: bool) -> str:
    """A paragraph per namespace, and a summary."""
    lines = []
    for namespace in found.namespaces:
        lines += [*_namespace(found, namespace, colour=colour), ""]
    lines += [f"not looked at: {printable(each)}" for each in found.not_read]
    lines += [f"never looked at: {each}" for each in NEVER_LOOKED_AT]
    if found.outside:
        lines.append(f"{found.outside} objects are in namespaces that admission never looks at")
    return "\n".join([*lines, summary(found)]) + "\n"


def summary(found: Evaluations) -> str:
    """One line: how much was looked at, and how much of it is ready."""
    ready = sum(found.is_ready(each) for each in found.namespaces)
    classes = Counter(each.kind for each in found.findings)
    parts = [f"{classes[kind]} {word}" for kind, word in CLASSES.items()]
    return (
        f"{len(found.evaluations)} workloads in {len(found.namespaces)} namespaces, {ready} of them ready for"
        f" {mode_word(found.target)}; findings: {', '.join(parts)}"
    )


def _namespace(found: Evaluations, namespace: str, *, colour: bool) -> Iterator[str]:
    workloads = found.of(namespace)
    ready = sum(each.is_ready for each in workloads)
    mode = mode_word(found.modes.get(namespace, Mode.ABSENT))
    is_ready = found.is_ready(namespace)
    word = coloured("ready" if is_ready else "not ready", GREEN if is_ready else RED, wanted=colour)
    name = printable(namespace)
    yield f"{name} ({mode}): {word} for {mode_word(found.target)}: {ready} of {len(workloads)} workloads"
    for each in workloads:
        yield from _workload(each, colour=colour)


def _workload(evaluation: Evaluation, *, colour: bool) -> Iterator[str]:
    title = printable(str(evaluation.object))
    fixed = [each for each in evaluation.findings if each.kind is FindingClass.FIXED_BY_INJECTION]
    for finding in evaluation.findings:
        if finding.kind is FindingClass.FIXED_BY_INJECTION:
            continue
        grave = finding.severity in (Severity.CRITICAL, Severity.HIGH)
        rule = coloured(f"[{finding.rule}]", RED if grave else YELLOW, wanted=colour)
        yield f"  {title}: {rule} {CLASSES[finding.kind]}: {finding.message} ({finding.field or 'object'})"
    for finding in evaluation.excepted:
        until = "" if finding.exception is None else f" until {finding.exception.expires:%Y-%m-%d}"
        yield f"  {title}: [{finding.rule}] excepted{until} ({finding.field or 'object'})"
    if evaluation.exempt:
        yield f"  {title}: outside the policy: {evaluation.exempt}"
    for note in evaluation.notes:
        yield f"  {title}: note: {note}"
    if fixed:
        rules = ", ".join(dict.fromkeys(each.rule for each in fixed))
        yield f"  {title}: {CLASSES[FindingClass.FIXED_BY_INJECTION]}: {rules}"


def as_json(found: Evaluations) -> str:
    """One object; later versions may add members, and keep the meaning of these."""
    document = {
        "version": 1,
        "target": found.target.value,
        "namespaces": [
            {
                "name": name,
                "mode": mode_word(found.modes.get(name, Mode.ABSENT)),
                "ready": found.is_ready(name),
                "workloads": len(found.of(name)),
                "readyWorkloads": sum(each.is_ready for each in found.of(name)),
            }
            for name in found.namespaces
        ],
        "workloads": [_workload_object(each) for each in found.evaluations],
        "notLookedAt": found.not_read,
        "neverLookedAt": list(NEVER_LOOKED_AT),
        "objectsOutside": found.outside,
    }
    return json.dumps(document, indent=2) + "\n"


def _workload_object(evaluation: Evaluation) -> dict[str, Any]:
    item = evaluation.object
    return {
        "apiVersion": item.api_version,
        "kind": item.kind,
        "namespace": item.namespace,
        "name": item.name,
        "ready": evaluation.is_ready,
        "exempt": evaluation.exempt,
        "notes": list(evaluation.notes),
        "findings": [_finding_object(each) for each in (*evaluation.findings, *evaluation.excepted)],
    }


def _finding_object(finding: Finding) -> dict[str, Any]:
    exception = finding.exception
    return {
        "rule": finding.rule,
        "severity": finding.severity.value,
        "class": finding.kind.value,
        "field": finding.field,
        "message": finding.message,
        "action": finding.action,
        "actionNow": finding.action_now,
        "link": finding.link,
        "exceptedUntil": None if exception is None else f"{exception.expires:%Y-%m-%dT%H:%M:%SZ}",
    }


def sarif(found: Evaluations) -> str:
    """A result per finding that injection does not mend; its place is the object, because there is no file."""
    places = {rule.id: index for index, rule in enumerate(POD)}
    results = [
        _result(finding, places)
        for evaluation in found.evaluations
        for finding in (*evaluation.findings, *evaluation.excepted)
        if finding.kind is not FindingClass.FIXED_BY_INJECTION
    ]
    notes = [{"level": "warning", "message": {"text": f"not looked at: {each}"}} for each in found.not_read]
    return sarif_log(results, notes)


def _result(finding: Finding, places: dict[str, int]) -> dict[str, Any]:
    item = finding.object
    name = f"{item.kind}/{item.namespace}/{item.name}"
    index = {"ruleIndex": places[finding.rule]} if finding.rule in places else {}
    excepted = {} if finding.exception is None else {"suppressions": [suppression(finding.exception)]}
    return {
        "ruleId": finding.rule,
        **index,
        "level": LEVELS[finding.severity],
        "message": {"text": f"{name}: {finding.message}"},
        "locations": [{"logicalLocations": [{"fullyQualifiedName": f"{name}/{finding.field}", "kind": "member"}]}],
        **excepted,
    }


def junit(found: Evaluations, fail_on: Severity) -> str:
    """A suite per namespace, a case per workload; what could not be looked at is an error of its own suite."""
    root = ElementTree.Element("testsuites", name="morphisms audit")
    for namespace in found.namespaces:
        workloads = found.of(namespace)
        suite = ElementTree.SubElement(root, "testsuite", name=xml_text(namespace), tests=str(len(workloads)))
        failures = 0
        for each in workloads:
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname=xml_text(f"{namespace}.{each.object.kind}"),
                name=xml_text(each.object.name),
            )
            against = [finding for finding in each.findings if counts_against(finding, fail_on)]
            if against:
                failures += 1
                failure = ElementTree.SubElement(case, "failure", message=f"{len(against)} findings")
                failure.text = xml_text(
                    "\n".join(f"[{one.rule}] {one.message} ({one.field or 'object'})" for one in against)
                )
        suite.set("failures", str(failures))
    if found.not_read:
        suite = ElementTree.SubElement(root, "testsuite", name="not looked at", tests=str(len(found.not_read)))
        suite.set("errors", str(len(found.not_read)))
        for what in found.not_read:
            case = ElementTree.SubElement(suite, "testcase", classname="not looked at", name=xml_text(what))
            ElementTree.SubElement(case, "error", message="not looked at")
    return xml_document(root)
