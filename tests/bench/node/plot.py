"""The plot of a run: for each level one panel, for each variant one bar of its phases, with median and p90.

Written with the standard library's XML, which escapes what it is given. Colours are readable on light and on dark, and
the text takes the reader's scheme; what colours say is also said in the legend's order and in the page's tables.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Final

from tests.bench.node.starts import PHASES, Run, counted, variants_of

_NAMESPACE: Final = "http://www.w3.org/2000/svg"
# What XML 1.0 does not allow, not even escaped (production 2, Char).
_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_WIDTH, _LEFT, _RIGHT = 880, 250, 90
_BAR, _STEP, _GAP, _TOP = 14, 21, 44, 74
_COLOURS: Final = dict(
    zip(PHASES, ("#7a6fd0", "#b089d6", "#6c7f93", "#d9762b", "#c8393f", "#e0a32e", "#3f9e8f", "#4a90d9"), strict=True)
)
_STYLE: Final = """
text { font: 12px sans-serif; fill: #1f2328; }
.head { font-weight: bold; }
.mark { stroke: #1f2328; stroke-width: 1.5; fill: none; }
.axis { stroke: #8b949e; stroke-width: 1; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .mark { stroke: #e6edf3; }
}
"""


def draw(run: Run) -> str:
    """The SVG's text."""
    keys, levels = variants_of(run), run.levels
    height = _TOP + len(levels) * (len(keys) * _STEP + _GAP)
    root = ET.Element("svg", {"xmlns": _NAMESPACE, "viewBox": f"0 0 {_WIDTH} {height}", "role": "img"})
    root.set("aria-labelledby", "title description")
    _text(ET.SubElement(root, "title", {"id": "title"}), "Cold starts of a Knative Service, by phase")
    _text(ET.SubElement(root, "desc", {"id": "description"}), _described(run, keys))
    ET.SubElement(root, "style").text = _STYLE
    _legend(root)
    top = _TOP
    for level in levels:
        _panel(root, run, keys, level, top)
        top += len(keys) * _STEP + _GAP
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _described(run: Run, keys: Sequence[str]) -> str:
    """All of its medians, for those who do not see it."""
    said = []
    for level in run.levels:
        figures = [f"{run.titles[key]} {run.median(key, level):,.0f} ms" for key in keys if run.of(key, level)]
        said.append(f"{level} at once, medians: {'; '.join(figures)}.")
    return f"{run.date}. " + " ".join(said)


def _legend(root: ET.Element) -> None:
    _label(root, 12, 20, "mean time by phase; circle: median, line: p90", "head")
    for number, (phase, colour) in enumerate(_COLOURS.items()):
        x = 12.0 + number * 104
        ET.SubElement(root, "rect", {"x": f"{x}", "y": "32", "width": "12", "height": "12", "fill": colour})
        _label(root, x + 16, 42, phase)


def _panel(root: ET.Element, run: Run, keys: Sequence[str], level: int, top: float) -> None:
    present = [key for key in keys if run.of(key, level)]
    longest = max(max(run.p90(key, level), _mean(run, key, level)) for key in present)
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    _label(root, 12, top, f"{level} at once, {counted(run.rounds(level))}", "head")
    for number, key in enumerate(present):
        y = top + 10 + number * _STEP
        _label(root, 12, y + 11, run.titles[key])
        x = float(_LEFT)
        for phase, colour in _COLOURS.items():
            width = max(0.0, run.mean(key, level, phase) * scale)
            place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "width": f"{width:.1f}", "height": str(_BAR), "fill": colour}
            ET.SubElement(root, "rect", place)
            x += width
        median, late = _LEFT + run.median(key, level) * scale, _LEFT + run.p90(key, level) * scale
        centre = {"cx": f"{median:.1f}", "cy": f"{y + _BAR / 2:.1f}", "r": "4", "class": "mark"}
        ET.SubElement(root, "circle", centre)
        line = {"x1": f"{late:.1f}", "x2": f"{late:.1f}", "y1": f"{y - 2:.1f}", "y2": f"{y + _BAR + 2:.1f}"}
        ET.SubElement(root, "line", {**line, "class": "mark"})
        _label(root, _WIDTH - _RIGHT + 8, y + 11, f"{run.median(key, level):,.0f} ms")
    bottom = top + 8 + len(present) * _STEP
    axis = {"x1": str(_LEFT), "x2": str(_LEFT), "y1": f"{top + 6:.1f}", "y2": f"{bottom:.1f}", "class": "axis"}
    ET.SubElement(root, "line", axis)


def _mean(run: Run, key: str, level: int) -> float:
    return sum(run.mean(key, level, phase) for phase in PHASES)


def _label(root: ET.Element, x: float, y: float, text: str, kind: str = "") -> None:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", **({"class": kind} if kind else {})}
    _text(ET.SubElement(root, "text", place), text)


def _text(element: ET.Element, text: str) -> None:
    element.text = _NOT_XML.sub("\ufffd", text)
