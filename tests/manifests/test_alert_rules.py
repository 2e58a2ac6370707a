"""Prometheus' own rule tester: each alert fires on the trouble that it is for, and on nothing beside it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests.rendering import MANIFESTS
from tests.support.packages import require
from tests.support.pages import PAGES
from tests.support.paths import ROOT
from tests.support.until import SECONDS

Json = dict[str, Any]

_RULES = {
    file.parent.name: yaml.safe_load(file.read_text())["spec"] for file in MANIFESTS.glob("components/*/alerts.yaml")
}
_ALERTS: dict[str, Json] = {
    rule["alert"]: rule for spec in _RULES.values() for group in spec["groups"] for rule in group["rules"]
}
_CASES: dict[str, Json] = yaml.safe_load((ROOT / "tests" / "manifests" / "alert_cases.yaml").read_text())
_PAGE = "docs/operations.md"


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The rules as files that Prometheus reads."""
    require(promtool="prometheus")
    folder = tmp_path_factory.mktemp("rules")
    for name, spec in _RULES.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(spec))
    return [str(file) for file in sorted(folder.iterdir())]


def _promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=5 * SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_prometheus_accepts_every_rule(rules: list[str]) -> None:
    printed = _promtool("check", "rules", *rules)
    assert sum(int(count) for count in re.findall(r"(\d+) rules found", printed)) == len(_ALERTS)


def test_every_alert_fires_on_its_trouble_and_not_on_what_looks_like_it(rules: list[str], tmp_path: Path) -> None:
    assert _CASES.keys() == _ALERTS.keys()
    tests = []
    for name, case in _CASES.items():
        for kind in ("fires", "quiet"):
            tests.append(
                {
                    "name": f"{name} {kind}",
                    "interval": "1m",
                    "input_series": [
                        {"series": series.replace("JOB", _job(name)), "values": _values(str(values))}
                        for series, values in case[kind].items()
                    ],
                    "alert_rule_test": [
                        {
                            "alertname": name,
                            "eval_time": case["at"],
                            "exp_alerts": [_expected(name, case)] if kind == "fires" else [],
                        }
                    ],
                }
            )
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": rules, "evaluation_interval": "1m", "tests": tests}))
    _promtool("test", "rules", str(file))


def _values(text: str) -> str:
    """The tester repeats every number but NaN."""
    return re.sub(r"NaNx(\d+)", lambda found: " ".join(["NaN"] * int(found[1])), text)


def _job(name: str) -> str:
    (job,) = set(re.findall(r'job="([^"]*)"', _ALERTS[name]["expr"])) or {""}
    return job


def _expected(name: str, case: Json) -> Json:
    """The alert with its annotations, as people read them."""
    rule, labels = _ALERTS[name], case.get("labels", {})

    def filled(text: str) -> str:
        text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], text)
        return text.replace("{{ $value }}", str(case["value"]))

    return {
        "exp_labels": labels | rule["labels"],
        "exp_annotations": {key: filled(text) for key, text in rule["annotations"].items()},
    }


def test_whoever_is_woken_finds_a_runbook() -> None:
    """Each alert names a section of the page, the section names what to look at, and no section lacks its alert."""
    sections = dict(re.findall(r"^### (Morphisms\w+)\n\n(.*?)(?=\n##|\Z)", PAGES[_PAGE], re.DOTALL | re.MULTILINE))
    assert sections.keys() == _ALERTS.keys()
    for name, rule in _ALERTS.items():
        assert rule["annotations"]["runbook_url"] == f"{_PAGE}#{name.lower()}", name
        assert len(sections[name].split()) > 20, name
