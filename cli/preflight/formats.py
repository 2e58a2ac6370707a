"""The lines of a preflight as text, JSON, SARIF, JUnit and one HTML file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final
from xml.etree import ElementTree

from cli.preflight.lines import Line, State
from cli.support import page
from cli.support.junit import xml_document, xml_text
from cli.support.sarif import sarif_log
from cli.support.terminal import CYAN, GREEN, RED, YELLOW, coloured
from plan.layout import VERSION
from server.text import printable
from webhook.rules import POD

_COLOURS: Final = {State.OK: GREEN, State.FAILED: RED, State.NOT_EVALUATED: YELLOW, State.NOTE: CYAN}


def text(lines: Sequence[Line], *, colour: bool) -> Iterator[str]:
    """A line each; the page follows where something is to be done."""
    for line in lines:
        state = coloured(f"{line.state.value:13}", _COLOURS[line.state], wanted=colour)
        needs_page = line.state in (State.FAILED, State.NOT_EVALUATED)
        yield f"{state} {line.check:13} {printable(line.text)}" + (f" [{line.link}]" if needs_page else "")


def counts(lines: Sequence[Line]) -> str:
    """How many of them decide."""
    count = Counter(each.state for each in lines)
    return f"{count[State.FAILED]} failed, {count[State.NOT_EVALUATED]} not evaluated"


def objects(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """As members of a JSON document."""
    return [{"check": each.check, "state": each.state.value, "text": each.text, "link": each.link} for each in lines]


_LEVELS: Final = {State.FAILED: "error", State.NOT_EVALUATED: "warning"}
_TONES: Final = {State.OK: "good", State.FAILED: "bad", State.NOT_EVALUATED: "warn", State.NOTE: ""}


def sarif(lines: Sequence[Line], namespace: str) -> str:
    """A result for each line that decides, by the rule's id or `preflight/CHECK`; a notification for each note."""
    places = {rule.id: index for index, rule in enumerate(POD)}
    results = [
        {
            "ruleId": each.rule or f"preflight/{each.check}",
            **({"ruleIndex": places[each.rule]} if each.rule in places else {}),
            "level": _LEVELS[each.state],
            "message": {"text": f"{each.text} ({each.link})"},
            "locations": [
                {"logicalLocations": [{"fullyQualifiedName": f"Namespace/{namespace}", "kind": "namespace"}]}
            ],
        }
        for each in lines
        if each.state in _LEVELS
    ]
    notes = [{"level": "note", "message": {"text": each.text}} for each in lines if each.state is State.NOTE]
    return sarif_log(results, notes)


def junit(lines: Sequence[Line], namespace: str, *, allow_unevaluated: bool) -> str:
    """A suite per check, a case per line. What is not evaluated is an error, or skipped where it is allowed."""
    root = ElementTree.Element("testsuites", name="morphisms preflight")
    for check in dict.fromkeys(line.check for line in lines):
        cases = [line for line in lines if line.check == check and line.state is not State.NOTE]
        if not cases:
            continue
        suite = ElementTree.SubElement(root, "testsuite", name=check, tests=str(len(cases)))
        count = Counter(case.state for case in cases)
        suite.set("failures", str(count[State.FAILED]))
        suite.set("skipped" if allow_unevaluated else "errors", str(count[State.NOT_EVALUATED]))
        for line in cases:
            name = xml_text(f"{namespace}.{check}")
            case = ElementTree.SubElement(suite, "testcase", classname=name, name=xml_text(line.text))
            if line.state is State.FAILED:
                ElementTree.SubElement(case, "failure", message=xml_text(line.text)).text = line.link
            elif line.state is State.NOT_EVALUATED:
                tag = "skipped" if allow_unevaluated else "error"
                ElementTree.SubElement(case, tag, message=xml_text(f"not evaluated; {line.link}"))
    return xml_document(root)


def html(lines: Sequence[Line], namespace: str, mode: str, at: datetime, *, go: bool) -> str:
    """One file, as the one of `morphisms audit`."""
    verdict = '<span class="good">go</span>' if go else '<span class="bad">no-go</span>'
    lead = (
        f"<p>Read at {at:%Y-%m-%d %H:%M} UTC by morphisms {page.text(VERSION)}. Question: can namespace"
        f" <code>{page.text(namespace)}</code> be switched to <code>{page.text(mode)}</code>?</p>"
    )
    summary = (
        '<section aria-labelledby="summary">\n<h2 id="summary">Summary</h2>\n'
        f"<p>{verdict}: {counts(lines)}</p>\n</section>\n"
    )
    choices = (
        page.choice("state", "State", [(each.value, each.value) for each in State]),
        page.choice("check", "Check", [(each, each) for each in dict.fromkeys(line.check for line in lines)]),
    )
    heads = ("State", "Check", "What was seen", "Page")
    body = [summary, *page.findings(heads, "Each line, with the page that explains it", choices, map(_row, lines))]
    footer = "<p>A line never holds a value of the cluster. What is not known is never called ready.</p>"
    return page.whole(f"Morphisms preflight: {namespace}", lead, body, footer)


def _row(line: Line) -> str:
    order = [State.FAILED, State.NOT_EVALUATED, State.NOTE, State.OK].index(line.state)
    cells = (
        page.cell("State", f'<span class="{_TONES[line.state]}">{line.state.value}</span>', order),
        page.cell("Check", page.text(line.check)),
        page.cell("What was seen", page.text(line.text)),
        page.cell("Page", page.text(line.link)),
    )
    return f'<tr data-state="{line.state.value}" data-check="{page.text(line.check)}">{"".join(cells)}</tr>\n'
