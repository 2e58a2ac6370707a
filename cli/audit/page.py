"""The report as one HTML file: no other file, no network, readable without a script, on a phone and on paper.

Names and messages of a cluster are hostile text: each is escaped, and the page's own policy (CSP) allows no script and
no style but the two in it, by their digests, and no request at all.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from html import escape
from typing import Final

from cli.audit.words import CLASSES, SEVERITIES, edit_command, mode_word
from cli.live.workloads import Evaluations
from plan.layout import VERSION
from server.text import printable
from webhook.modes import Mode
from webhook.scanner.finding import Evaluation, Finding, FindingClass

_STYLE: Final = """
:root{color-scheme:light dark;--fg:#1b1b1f;--bg:#fff;--soft:#f2f3f5;--line:#8b8d98;--link:#0b4f9e;--bad:#9d1c1c;
--good:#1a6334;--warn:#7a4a00}
@media (prefers-color-scheme:dark){:root{--fg:#ececf1;--bg:#17181c;--soft:#24262c;--line:#8b8d98;--link:#8ab8ff;
--bad:#ff9d94;--good:#7ddc9b;--warn:#f2c26b}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:80rem;padding:1rem;background:var(--bg);color:var(--fg);
font:1rem/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2rem}
.skip{position:absolute;left:-99rem}.skip:focus{position:static}
:focus-visible{outline:3px solid var(--link);outline-offset:2px}
table{width:100%;border-collapse:collapse}caption{text-align:left;padding:.3rem 0}
th,td{border-bottom:1px solid var(--line);padding:.4rem;text-align:left;vertical-align:top}
th button{all:unset;cursor:pointer;font-weight:bold;padding:.2rem}
th button:focus-visible{outline:3px solid var(--link)}
th[aria-sort=ascending] button::after{content:" \\2191"}th[aria-sort=descending] button::after{content:" \\2193"}
code{background:var(--soft);font-family:ui-monospace,monospace;font-size:.9em}
.bad{color:var(--bad);font-weight:bold}.good{color:var(--good);font-weight:bold}.warn{color:var(--warn);font-weight:bold}
form{display:flex;flex-wrap:wrap;gap:1rem;background:var(--soft);padding:.8rem}
label{display:flex;flex-direction:column}input,select{font:inherit;padding:.3rem;max-width:100%}
[hidden]{display:none}
@media (max-width:45rem){thead{position:absolute;left:-99rem}
table,tbody,tr,td{display:block}tr{border:1px solid var(--line);margin:.6rem 0}
td{border:0}td::before{content:attr(data-label) ": ";font-weight:bold}}
@media print{form,.skip{display:none}body{max-width:none;color:#000;background:#fff}tr{break-inside:avoid}}
"""
_SCRIPT: Final = """
'use strict';
document.querySelectorAll('table').forEach(table => {
  const body = table.tBodies[0];
  table.querySelectorAll('th').forEach((head, column) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener('click', () => {
      const up = head.getAttribute('aria-sort') !== 'ascending';
      table.querySelectorAll('th').forEach(each => each.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
      const key = row => row.cells[column].dataset.key ?? row.cells[column].textContent;
      const order = new Intl.Collator('en', {numeric: true}).compare;
      [...body.rows].map((row, at) => [key(row), at, row])
        .sort((a, b) => (order(a[0], b[0]) || a[1] - b[1]) * (up ? 1 : -1))
        .forEach(each => body.append(each[2]));
    });
  });
});
const form = document.querySelector('form');
const rows = [...document.querySelectorAll('#findings tbody tr')];
const shown = document.querySelector('#shown');
const filter = () => {
  const words = form.elements.text.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let count = 0;
  rows.forEach(row => {
    const text = row.textContent.toLowerCase();
    row.hidden = !(words.every(word => text.includes(word))
      && ['namespace', 'severity', 'class'].every(name =>
        !form.elements[name].value || row.dataset[name] === form.elements[name].value));
    count += row.hidden ? 0 : 1;
  });
  shown.textContent = `${count} of ${rows.length} findings shown`;
};
form.hidden = false;
form.addEventListener('input', filter);
form.addEventListener('submit', event => event.preventDefault());
form.addEventListener('reset', () => setTimeout(filter));
filter();
"""


def page(found: Evaluations, at: datetime, cluster: str) -> str:
    """The whole file. `cluster` is the name under which the reader knows the cluster."""
    title = f"Morphisms audit: {cluster}" if cluster else "Morphisms audit"
    policy = (
        f"default-src 'none'; style-src {_digest(_STYLE)}; script-src {_digest(_SCRIPT)};"
        " base-uri 'none'; form-action 'none'"
    )
    return "".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n",
            '<a class="skip" href="#findings">Skip to the findings</a>\n',
            f"<header>\n<h1>{_text(title)}</h1>\n",
            f"<p>Read at {at:%Y-%m-%d %H:%M} UTC by morphisms {_text(VERSION)}. Question: what would mode",
            f" <code>{mode_word(found.target)}</code> do?</p>\n</header>\n<main>\n",
            *_summary(found),
            *_namespaces(found),
            *_findings(found),
            *_others(found),
            "</main>\n<footer>\n<p>A finding never holds a value of the cluster. What was not looked at is never called"
            " ready.</p>\n</footer>\n",
            f"<script>{_SCRIPT}</script>\n</body>\n</html>\n",
        ]
    )


def _digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _text(value: object) -> str:
    return escape(printable(str(value)), quote=True)


def _summary(found: Evaluations) -> Iterator[str]:
    classes = Counter(each.kind for each in found.findings)
    ready = sum(found.is_ready(each) for each in found.namespaces)
    yield '<section aria-labelledby="summary">\n<h2 id="summary">Summary</h2>\n<ul>\n'
    yield f"<li>{ready} of {len(found.namespaces)} namespaces are ready; {len(found.evaluations)} workloads</li>\n"
    for kind, word in CLASSES.items():
        yield f"<li>{classes[kind]} findings: {word}</li>\n"
    for each in found.not_read:
        yield f'<li class="bad">not looked at: {_text(each)}</li>\n'
    if found.outside:
        yield f"<li>{found.outside} objects are in namespaces that admission never looks at</li>\n"
    yield "</ul>\n</section>\n"


def _table(identifier: str, caption: str, heads: Iterable[str], rows: Iterable[str]) -> Iterator[str]:
    yield f'<table id="{identifier}">\n<caption>{caption}</caption>\n<thead><tr>'
    yield from (f'<th scope="col">{head}</th>' for head in heads)
    yield "</tr></thead>\n<tbody>\n"
    yield from rows
    yield "</tbody>\n</table>\n"


def _cell(label: str, content: str, key: object = None) -> str:
    sort = "" if key is None else f' data-key="{_text(key)}"'
    return f'<td data-label="{label}"{sort}>{content}</td>'


def _namespaces(found: Evaluations) -> Iterator[str]:
    yield '<section aria-labelledby="readiness">\n<h2 id="readiness">Namespaces</h2>\n'
    heads = ("Namespace", "Mode", "Ready", "Workloads")
    yield from _table(
        "namespaces", "Which namespaces are ready", heads, (_namespace(found, each) for each in found.namespaces)
    )
    yield "</section>\n"


def _namespace(found: Evaluations, name: str) -> str:
    workloads = found.of(name)
    ready, every = sum(each.is_ready for each in workloads), len(workloads)
    word = '<span class="good">ready</span>' if found.is_ready(name) else '<span class="bad">not ready</span>'
    cells = (
        _cell("Namespace", _text(name)),
        _cell("Mode", mode_word(found.modes.get(name, Mode.ABSENT))),
        _cell("Ready", word),
        _cell("Workloads", f"{ready} of {every} ready", every - ready),
    )
    return f"<tr>{''.join(cells)}</tr>\n"


def _findings(found: Evaluations) -> Iterator[str]:
    yield '<section aria-labelledby="found">\n<h2 id="found">Findings</h2>\n<form hidden>\n'
    yield '<label>Text <input type="search" name="text" autocomplete="off"></label>\n'
    yield _choice("namespace", "Namespace", [(each, each) for each in found.namespaces])
    yield _choice("severity", "Severity", [(each.value, each.value) for each in SEVERITIES])
    yield _choice("class", "Class", [(kind.value, word) for kind, word in CLASSES.items()])
    yield '<label>Filter <input type="reset" value="Show all"></label>\n</form>\n<p id="shown" role="status"></p>\n'
    heads = ("Namespace", "Workload", "Severity", "Class", "Rule", "Line to change", "What to change")
    rows = (_finding(each, finding) for each in found.evaluations for finding in each.findings)
    yield from _table("findings", "Each finding, with the line to change", heads, rows)
    yield "</section>\n"


def _choice(name: str, label: str, options: Iterable[tuple[str, str]]) -> str:
    items = "".join(f'<option value="{_text(value)}">{_text(shown)}</option>' for value, shown in options)
    return f'<label>{label} <select name="{name}"><option value="">all</option>{items}</select></label>\n'


def _finding(evaluation: Evaluation, finding: Finding) -> str:
    item = evaluation.object
    tone = {FindingClass.FIXED_BY_INJECTION: "good", FindingClass.NOT_EVALUATED: "warn"}.get(finding.kind, "bad")
    place = f"<code>{_text(finding.field)}</code>" if finding.field else "the object"
    edit = ""
    if finding.kind is FindingClass.YOURS_TO_CHANGE:
        edit = f"<br><code>{_text(edit_command(item))}</code>"
    cells = (
        _cell("Namespace", _text(item.namespace)),
        _cell("Workload", _text(item)),
        _cell("Severity", _text(finding.severity.value), SEVERITIES.index(finding.severity)),
        _cell("Class", f'<span class="{tone}">{CLASSES[finding.kind]}</span>'),
        _cell("Rule", f"<code>{_text(finding.rule)}</code>"),
        _cell("Line to change", place + edit),
        _cell("What to change", _text(finding.message)),
    )
    data = f'data-namespace="{_text(item.namespace)}" data-severity="{finding.severity.value}"'
    return f'<tr {data} data-class="{finding.kind.value}">{"".join(cells)}</tr>\n'


def _others(found: Evaluations) -> Iterator[str]:
    """What exceptions cover, what is outside the policy, and notes."""
    lines = []
    for each in found.evaluations:
        where = f"{_text(each.object.namespace)}: {_text(each.object)}"
        for finding in each.excepted:
            if finding.exception is not None:
                until = f"{finding.exception.expires:%Y-%m-%d}"
                lines.append(f"{where}: <code>{_text(finding.rule)}</code> is excepted until {until}")
        if each.exempt:
            lines.append(f"{where}: outside the policy: {_text(each.exempt)}")
        lines += [f"{where}: {_text(note)}" for note in each.notes]
    if lines:
        yield '<section aria-labelledby="others">\n<h2 id="others">Exceptions and notes</h2>\n<ul>\n'
        yield from (f"<li>{line}</li>\n" for line in lines)
        yield "</ul>\n</section>\n"
