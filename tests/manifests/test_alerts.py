"""Every metric and label value that an alert asks for is one that the code has."""

from __future__ import annotations

import re
from typing import Any

import yaml

from attestation.verifier.reasons import Reason
from server.messages import Refusal
from tests.manifests.exported import exported
from tests.manifests.rendering import MANIFESTS

_OTHERS = {"up", "apiserver_admission_webhook_fail_open_count"}
_FUNCTIONS = {"absent", "min", "max", "sum", "rate", "increase", "count", "by", "time", "histogram_quantile"}


def _rules() -> list[dict[str, Any]]:
    found = []
    for file in sorted(MANIFESTS.glob("components/*/alerts.yaml")):
        for group in yaml.safe_load(file.read_text())["spec"]["groups"]:
            found += group["rules"]
    return found


def test_alerts_ask_for_metrics_that_exist() -> None:
    known = exported().keys()
    assert len(_rules()) > 15
    for rule in _rules():
        expression = re.sub(r'"[^"]*"', "", re.sub(r"\{[^}]*\}|\[[^\]]*\]|by \([^)]*\)", "", rule["expr"]))
        names = set(re.findall(r"[a-z_]{2,}", expression)) - _FUNCTIONS
        assert names, rule["alert"]
        assert names <= known | _OTHERS, f"{rule['alert']}: {names - known - _OTHERS}"


def test_alerts_ask_for_reasons_that_exist() -> None:
    known = {reason.value for reason in Reason} | {refusal.value for refusal in Refusal}
    for rule in _rules():
        for alternatives in re.findall(r'reason=~"([^"]*)"', rule["expr"]):
            for pattern in alternatives.split("|"):
                assert any(re.fullmatch(pattern, value) for value in known), f"{rule['alert']}: {pattern}"


def test_every_alert_says_what_is_wrong() -> None:
    names = [rule["alert"] for rule in _rules()]
    assert len(names) == len(set(names))
    for rule in _rules():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["summary"]
