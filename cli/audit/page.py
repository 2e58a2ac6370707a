"""The report as one HTML file: no other file, no network, readable without a script, on a phone and on paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from cli.audit.words import CLASSES, SEVERITIES, edit_command, mode_word
from cli.live.workloads import Evaluations
from cli.support.page import cell, choice, findings, table, text, whole
from plan.layout import VERSION
from webhook.modes import Mode
from webhook.scanner.finding import Evaluation, Finding, FindingClass
from webhook.scanner.never_looked_at import NEVER_LOOKED_AT


def page(found: Evaluations, at: datetime, cluster: str) -> str:
    """The whole file. `cluster` is the name under which the reader knows the cluster."""
    title = f"Morphisms audit: {cluster}" if cluster else "Morphisms audit"
    lead = (
        f"<p>Read at {at:%Y-%m-%d %H:%M} UTC by morphisms {text(VERSION)}. Question: what would mode"
        f" <code>{mode_word(found.target)}</code> do?</p>"
    )
    body = [*_summary(found), *_namespaces(found), *_findings(found), *_others(found)]
    footer = "<p>A finding never holds a value of the cluster. What was not looked at is never called ready.</p>"
    return whole(title, lead, body, footer)


def _summary(found: Evaluations) -> Iterator[str]:
    classes = Counter(each.kind for each in found.findings)
    ready = sum(found.is_ready(each) for each in found.namespaces)
    yield '<section aria-labelledby="summary">\n<h2 id="summary">Summary</h2>\n<ul>\n'
    yield f"<li>{ready} of {len(found.namespaces)} namespaces are ready; {len(found.evaluations)} workloads</li>\n"
    for kind, word in CLASSES.items():
        yield f"<li>{classes[kind]} findings: {word}</li>\n"
    for each in found.not_read:
        yield f'<li class="bad">not looked at: {text(each)}</li>\n'
    for each in NEVER_LOOKED_AT:
        yield f"<li>never looked at: {text(each)}</li>\n"
    if found.outside:
        yield f"<li>{found.outside} objects are in namespaces that admission never looks at</li>\n"
    yield "</ul>\n</section>\n"


def _namespaces(found: Evaluations) -> Iterator[str]:
    yield '<section aria-labelledby="readiness">\n<h2 id="readiness">Namespaces</h2>\n'
    heads = ("Namespace", "Mode", "Ready", "Workloads")
    yield from table(
        "namespaces", "Which namespaces are ready", heads, (_namespace(found, each) for each in found.namespaces)
    )
    yield "</section>\n"


def _namespace(found: Evaluations, name: str) -> str:
    workloads = found.of(name)
    ready, every = sum(each.is_ready for each in workloads), len(workloads)
    word = '<span class="good">ready</span>' if found.is_ready(name) else '<span class="bad">not ready</span>'
    cells = (
        cell("Namespace", text(name)),
        cell("Mode", mode_word(found.modes.get(name, Mode.ABSENT))),
        cell("Ready", word),
        cell("Workloads", f"{ready} of {every} ready", every - ready),
    )
    return f"<tr>{''.join(cells)}</tr>\n"


def _findings(found: Evaluations) -> Iterator[str]:
    choices = (
        choice("namespace", "Namespace", [(each, each) for each in found.namespaces]),
        choice("severity", "Severity", [(each.value, each.value) for each in SEVERITIES]),
        choice("class", "Class", [(kind.value, word) for kind, word in CLASSES.items()]),
    )
    heads = ("Namespace", "Workload", "Severity", "Class", "Rule", "Line to change", "What to change")
    rows = (_finding(each, finding) for each in found.evaluations for finding in each.findings)
    yield from findings(heads, "Each finding, with the line to change", choices, rows)


def _finding(evaluation: Evaluation, finding: Finding) -> str:
    item = evaluation.object
    tone = {FindingClass.FIXED_BY_INJECTION: "good", FindingClass.NOT_EVALUATED: "warn"}.get(finding.kind, "bad")
    place = f"<code>{text(finding.field)}</code>" if finding.field else "the object"
    edit = ""
    if finding.kind is FindingClass.YOURS_TO_CHANGE:
        edit = f"<br><code>{text(edit_command(item))}</code>"
    cells = (
        cell("Namespace", text(item.namespace)),
        cell("Workload", text(item)),
        cell("Severity", text(finding.severity.value), SEVERITIES.index(finding.severity)),
        cell("Class", f'<span class="{tone}">{CLASSES[finding.kind]}</span>'),
        cell("Rule", f"<code>{text(finding.rule)}</code>"),
        cell("Line to change", place + edit),
        cell("What to change", text(finding.message)),
    )
    data = f'data-namespace="{text(item.namespace)}" data-severity="{finding.severity.value}"'
    return f'<tr {data} data-class="{finding.kind.value}">{"".join(cells)}</tr>\n'


def _others(found: Evaluations) -> Iterator[str]:
    """What exceptions cover, what is outside the policy, and notes."""
    lines = []
    for each in found.evaluations:
        where = f"{text(each.object.namespace)}: {text(each.object)}"
        for finding in each.excepted:
            if finding.exception is not None:
                until = f"{finding.exception.expires:%Y-%m-%d}"
                lines.append(f"{where}: <code>{text(finding.rule)}</code> is excepted until {until}")
        if each.exempt:
            lines.append(f"{where}: outside the policy: {text(each.exempt)}")
        lines += [f"{where}: {text(note)}" for note in each.notes]
    if lines:
        yield '<section aria-labelledby="others">\n<h2 id="others">Exceptions and notes</h2>\n<ul>\n'
        yield from (f"<li>{line}</li>\n" for line in lines)
        yield "</ul>\n</section>\n"
