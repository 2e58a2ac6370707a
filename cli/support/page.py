"""One whole HTML file with tables of findings: no other file, no network, readable without a script and on paper.

Names and messages of a cluster are hostile text: `text` escapes them, and the page's own policy (CSP) allows no script
and no style but the two in it, by their digests, and no request at all.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from html import escape
from typing import Final

from server.text import printable

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
      && [...form.querySelectorAll('select')].every(each => !each.value || row.dataset[each.name] === each.value));
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


def whole(title: str, lead: str, body: Iterable[str], footer: str) -> str:
    """The file. `title` is text, the others are HTML; `lead` stands under the title, `footer` at the end."""
    policy = (
        f"default-src 'none'; style-src {_digest(_STYLE)}; script-src {_digest(_SCRIPT)};"
        " base-uri 'none'; form-action 'none'"
    )
    return "".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            f"<title>{text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n",
            '<a class="skip" href="#findings">Skip to the findings</a>\n',
            f"<header>\n<h1>{text(title)}</h1>\n{lead}\n</header>\n<main>\n",
            *body,
            f"</main>\n<footer>\n{footer}\n</footer>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n",
        ]
    )


def _digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def text(value: object) -> str:
    """As text that cannot be markup."""
    return escape(printable(str(value)), quote=True)


def table(identifier: str, caption: str, heads: Iterable[str], rows: Iterable[str]) -> Iterator[str]:
    """A table with its caption."""
    yield f'<table id="{identifier}">\n<caption>{caption}</caption>\n<thead><tr>'
    yield from (f'<th scope="col">{head}</th>' for head in heads)
    yield "</tr></thead>\n<tbody>\n"
    yield from rows
    yield "</tbody>\n</table>\n"


def cell(label: str, content: str, key: object = None) -> str:
    """A cell under the head `label`; `key` sorts it, where its content does not."""
    sort = "" if key is None else f' data-key="{text(key)}"'
    return f'<td data-label="{label}"{sort}>{content}</td>'


def choice(name: str, label: str, options: Iterable[tuple[str, str]]) -> str:
    """A choice by which rows are shown: their `data-NAME` of one value, or all."""
    items = "".join(f'<option value="{text(value)}">{text(shown)}</option>' for value, shown in options)
    return f'<label>{label} <select name="{name}"><option value="">all</option>{items}</select></label>\n'


def findings(heads: Iterable[str], caption: str, choices: Iterable[str], rows: Iterable[str]) -> Iterator[str]:
    """The section whose table can be filtered: by text, and by `choice`s."""
    yield '<section aria-labelledby="found">\n<h2 id="found">Findings</h2>\n<form hidden>\n'
    yield '<label>Text <input type="search" name="text" autocomplete="off"></label>\n'
    yield from choices
    yield '<label>Filter <input type="reset" value="Show all"></label>\n</form>\n<p id="shown" role="status"></p>\n'
    yield from table("findings", caption, heads, rows)
    yield "</section>\n"
