"""The HTML report in a real browser: sorted, filtered, read on a phone and by keyboard, with hostile names in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.audit.page import page
from tests.cli.audit.found import HOSTILE, NOW, PASSWORD, found
from tests.support.browser import Browser, browser

_ROWS = "[...document.querySelectorAll('#{} tbody tr')].filter(each => !each.hidden)"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "audit.html"
    everything = found()
    everything.not_read.append(f"pods: {HOSTILE}")
    path.write_text(page(everything, NOW, HOSTILE))
    return path


@pytest.fixture(scope="module")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture
def tab(_running: Browser, file: Path) -> Browser:
    _running.requests.clear()
    _running.problems.clear()
    _running.open(file)
    return _running


def column(tab: Browser, table: str, number: int) -> list[str]:
    """The shown cells of a column, as a reader sees them."""
    script = f"{_ROWS.format(table)}.map(each => each.cells[{number}].innerText.trim())"
    return list(tab.evaluate(script))


def test_hostile_names_are_text_and_no_other_address_is_asked_for(tab: Browser, file: Path) -> None:
    assert HOSTILE in tab.evaluate("document.querySelector('h1').innerText")
    assert f"Deployment/{HOSTILE}" in column(tab, "findings", 1)
    assert tab.evaluate("document.title") == f"Morphisms audit: {HOSTILE}"
    assert tab.evaluate("document.images.length + document.links.length") == 1  # the link to the findings
    assert tab.requests == [file.as_uri()]
    assert tab.problems == []


def test_the_pages_policy_allows_no_script_and_no_request_but_its_own(tab: Browser) -> None:
    tab.evaluate("document.body.insertAdjacentHTML('beforeend', `<img src=x onerror=\"document.title='owned'\">`)")
    tab.evaluate(
        "{const s = document.createElement('script'); s.text = \"document.title='owned'\"; document.body.append(s)}"
    )
    refused = tab.evaluate("fetch('https://example.com/').then(() => 'sent', () => 'refused')")
    assert refused == "refused"
    assert "owned" not in tab.evaluate("document.title").replace(HOSTILE, "")
    assert any("Content Security Policy" in each and "https://example.com/" in each for each in tab.problems)


def test_a_reader_sorts_by_severity_and_by_name(tab: Browser) -> None:
    click = "document.querySelectorAll('#findings th button')[{}].click()"
    gravity = ["critical", "high", "medium", "low"]
    tab.evaluate(click.format(2))
    up = column(tab, "findings", 2)
    assert up == sorted(up, key=gravity.index)
    assert len(set(up)) > 1
    assert tab.evaluate("document.querySelectorAll('#findings th')[2].getAttribute('aria-sort')") == "ascending"
    tab.evaluate(click.format(2))
    assert column(tab, "findings", 2) == sorted(up, key=gravity.index, reverse=True)
    tab.evaluate(click.format(0))
    names = column(tab, "findings", 0)
    assert names == sorted(names)
    assert tab.evaluate("document.querySelectorAll('#findings th[aria-sort]').length") == 1


def test_a_reader_filters_by_namespace_class_and_words(tab: Browser) -> None:
    total = len(column(tab, "findings", 0))
    choose = (
        "{{const e = document.forms[0].elements['{}']; e.value = '{}';"
        " e.dispatchEvent(new Event('input', {{bubbles: true}}))}}"
    )
    tab.evaluate(choose.format("namespace", "shop"))
    assert set(column(tab, "findings", 0)) == {"shop"}
    tab.evaluate(choose.format("class", "yours-to-change"))
    assert set(column(tab, "findings", 1)) == {"Deployment/plaintext", "Deployment/node"}
    tab.evaluate(choose.format("text", "DB_PASSWORD"))
    [line] = column(tab, "findings", 5)
    assert line.startswith("spec.template.spec.containers[0].env[0]")
    assert "kubectl edit deployment.apps plaintext -n shop" in line
    assert tab.evaluate("document.querySelector('#shown').innerText") == f"1 of {total} findings shown"
    tab.evaluate(choose.format("text", "nothing like it"))
    assert column(tab, "findings", 1) == []


def test_a_keyboard_reaches_each_control_in_order(tab: Browser) -> None:
    names = []
    for _ in range(12):
        tab.press("Tab")
        names.append(tab.evaluate("document.activeElement.name || document.activeElement.innerText"))
    assert names[:5] == ["Skip to the findings", "Namespace", "Mode", "Ready", "Workloads"]
    assert names[5:9] == ["text", "namespace", "severity", "class"]
    tab.evaluate("document.querySelectorAll('#namespaces th button')[0].focus()")
    tab.press("Enter")
    assert column(tab, "namespaces", 0) == ["bank", "lab", "shop"]
    assert tab.evaluate("document.querySelectorAll('#namespaces th')[0].getAttribute('aria-sort')") == "ascending"


def test_a_screen_reader_finds_landmarks_headings_and_labels(tab: Browser) -> None:
    assert tab.evaluate("['header', 'main', 'footer'].every(e => document.querySelectorAll(e).length === 1)")
    assert tab.evaluate("document.documentElement.lang") == "en"
    assert tab.evaluate("[...document.querySelectorAll('table')].every(e => e.caption && e.tHead)")
    assert tab.evaluate("[...document.querySelectorAll('input, select')].every(e => e.labels.length === 1)")
    named = "e => document.getElementById(e.getAttribute('aria-labelledby')).tagName === 'H2'"
    assert tab.evaluate(f"[...document.querySelectorAll('section')].every({named})")


_CONTRAST = """
(() => {
  const light = text => {
    const parts = text.match(/[\\d.]+/g).slice(0, 3).map(n => n / 255)
      .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const ground = node => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (!colour.endsWith(', 0)') && colour !== 'transparent') return colour;
    }
  };
  return Math.min(...[...document.querySelectorAll('main *, header *')].filter(e => e.innerText && !e.closest('form'))
    .map(e => {
      const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
      return (a + 0.05) / (b + 0.05);
    }));
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_text_has_the_contrast_that_readers_need(tab: Browser, scheme: str) -> None:
    tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    try:
        assert tab.evaluate(_CONTRAST) >= 4.5
    finally:
        tab.call("Emulation.setEmulatedMedia", features=[])


def test_a_phone_shows_all_of_it_without_scrolling_sideways(tab: Browser) -> None:
    tab.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    try:
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360
        cell = "getComputedStyle(document.querySelector('#findings td'), '::before').content"
        assert "Namespace" in tab.evaluate("document.querySelector('#findings td').dataset.label")
        assert "attr" in tab.evaluate(cell) or "Namespace" in tab.evaluate(cell)
    finally:
        tab.call("Emulation.clearDeviceMetricsOverride")


def test_paper_shows_the_findings_and_no_controls(tab: Browser) -> None:
    tab.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert tab.evaluate("getComputedStyle(document.forms[0]).display") == "none"
        assert len(column(tab, "findings", 0)) > 4
        assert len(tab.call("Page.printToPDF")["data"]) > 1000
    finally:
        tab.call("Emulation.setEmulatedMedia", media="")


def test_the_file_is_whole_without_a_script_and_holds_no_value(file: Path) -> None:
    text = file.read_text()
    assert PASSWORD not in text
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert text.count("<script") == text.count("</script>") == 1
    assert "spec.template.spec.hostNetwork" in text
