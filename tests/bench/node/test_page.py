"""The page and the plot of a recorded run: figures, shape, and that no name breaks them."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.bench.node import page, plot
from tests.bench.node.starts import PHASES, Run, Start
from tests.support.paths import ROOT

_RUN = Run.read((Path(__file__).parent / "recorded.json").read_text())
_HOSTILE = '</text><script>alert("1")</script> & | `x` [y](z) \x00\x1b \ud800'
_SVG = "{http://www.w3.org/2000/svg}"


def _starts(*totals: float, variant: str = "plain") -> list[Start]:
    phases = dict.fromkeys(PHASES, 0.0)
    return [Start(variant, 1, number, {**phases, "ready": total}) for number, total in enumerate(totals)]


def test_a_recorded_run_is_read_as_it_was_written() -> None:
    assert Run.read(_RUN.write()) == _RUN
    titles = {"plain": "as it is", "another": "of a name that sorts before"}
    assert Run.read(Run("", {}, titles).write()).base == "plain"


def test_medians_and_the_ninetieth_percentile() -> None:
    run = Run("", {}, {"plain": "as it is", "init": "with"}, _starts(*range(1, 12)) + _starts(10, variant="init"))
    assert (run.median("plain", 1), run.p90("plain", 1)) == (6, 10)
    assert run.added("init", 1) == 4
    for totals, p90 in (([7], 7), (range(1, 11), 9), (range(1, 21), 18)):
        assert Run("", {}, {"plain": "as it is"}, _starts(*totals)).p90("plain", 1) == p90


def test_what_is_added_is_parted_into_work_and_the_kubelets_share() -> None:
    phases = dict.fromkeys(PHASES, 10.0)
    starts = [Start("plain", 1, 0, phases), Start("init", 1, 0, {**phases, "agent": 110.0, "application": 510.0})]
    run = Run("", {}, {"plain": "as it is", "init": "with"}, starts)
    assert (run.worked("init", 1), run.waited("init", 1)) == (100.0, 500.0)


def test_the_page_has_a_row_for_each_variant_of_each_level() -> None:
    text = page.write(_RUN)
    for title in _RUN.titles.values():
        assert len(
            re.findall(rf"^\| {re.escape(title)} \| \d+ \| [\d,]+ \| [\d,]+ \| \d+\.\d\d \| [+-][\d,]+ \|$", text, re.M)
        ) == len(_RUN.levels)
    added = re.findall(r"^\| [^|]+ \| (\d+) \| [+-][\d,]+ \| [+-][\d,]+ \| [+-][\d,]+ \|$", text, re.MULTILINE)
    assert len(added) == (len(_RUN.titles) - 1) * len(_RUN.levels)
    assert f"Measured {_RUN.date}." in text
    assert f"Run were {', '.join(map(str, _RUN.levels))} starts at once" in text
    for name, fact in _RUN.machine.items():
        assert f"{name}: {fact}" in " ".join(text.split())


def test_a_level_that_was_not_run_is_named_with_its_reason() -> None:
    run = dataclasses.replace(_RUN, left_out={"75": "it takes some 12,750 MiB of memory, and 900 MiB were available"})
    assert "75 were left out: it takes some 12,750 MiB of memory" in " ".join(page.write(run).split())


@pytest.mark.parametrize(("added", "said"), [(400.0, "met"), (401.0, "missed by 1 ms")])
def test_the_budget_is_met_or_missed_by_so_much(added: float, said: str) -> None:
    starts = _starts(1000) + _starts(1000 + added, variant="wrapped")
    run = Run("", {}, {"plain": "as it is", "wrapped": "wrapped"}, starts)
    assert f"is 400 ms added: {said}." in page.write(run)


def test_the_plot_is_well_formed_and_tells_its_medians_to_those_who_do_not_see_it() -> None:
    root = ET.fromstring(plot.draw(_RUN))
    assert root.get("role") == "img"
    named = {each.get("id"): each.text or "" for each in root.iter() if each.get("id")}
    assert set((root.get("aria-labelledby") or "").split()) == named.keys() == {"title", "description"}
    for key, title in _RUN.titles.items():
        for level in _RUN.levels:
            assert f"{title} {_RUN.median(key, level):,.0f} ms" in named["description"]
    assert len(root.findall(f"{_SVG}circle")) == len(_RUN.titles) * len(_RUN.levels)
    assert "prefers-color-scheme: dark" in root.findtext(f"{_SVG}style", "")


def test_a_bar_is_as_long_as_its_phases() -> None:
    root = ET.fromstring(
        plot.draw(Run("", {}, {"plain": "as it is", "init": "with"}, _starts(100) + _starts(50, variant="init")))
    )
    bars = [float(each.get("width", "0")) for each in root.findall(f"{_SVG}rect") if each.get("height") == "14"]
    assert [width for width in bars if width] == [pytest.approx(540, abs=0.1), pytest.approx(270, abs=0.1)]


def test_hostile_names_are_shown_and_change_nothing() -> None:
    titles = dict.fromkeys(_RUN.titles, _HOSTILE)
    run = dataclasses.replace(_RUN, titles=titles, machine={"machine": _HOSTILE}, date=_HOSTILE)
    drawn = plot.draw(run)
    drawn.encode()
    root = ET.fromstring(drawn)
    assert {each.tag.removeprefix(_SVG) for each in root.iter()} == {
        each.tag.removeprefix(_SVG) for each in ET.fromstring(plot.draw(_RUN)).iter()
    }
    assert 'alert("1")' in "".join(each.text or "" for each in root.findall(f"{_SVG}text"))
    rows = [line for line in page.write(run).splitlines() if line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in rows] == [
        len(re.findall(r"(?<!\\)\|", line)) for line in page.write(_RUN).splitlines() if line.startswith("|")
    ]


def test_the_pages_in_the_repository_are_what_the_command_writes() -> None:
    """Shape alone: their figures are of a run on another day."""
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    of_recorded = page.write(_RUN)
    assert re.findall(r"^#.*$", text, re.MULTILINE) == re.findall(r"^#.*$", of_recorded, re.MULTILINE)
    ET.fromstring((ROOT / "docs" / "benchmarks.svg").read_text())
