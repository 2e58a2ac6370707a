"""Every metric and label value that an alert asks for is one that the code has."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import yaml

from attestation.pki.cache import CertificateCache, CertificateStore
from attestation.pki.roots import TrustAnchors
from attestation.verifier.configuration import Exemption
from attestation.verifier.key_custody import expose_exceptions
from attestation.verifier.metrics import (
    ProvisioningMetrics,
    SelfAttestationMetrics,
    VerifierMetrics,
    expose_revocation,
    watch_references,
    watch_shared_keys,
)
from attestation.verifier.reasons import Reason
from certs.metrics import CertificateMetrics
from server.health import Health
from server.limits import Limits
from server.load import Load
from server.messages import Refusal
from server.metrics import ServerMetrics, new_registry
from server.watched import FileMetrics
from tests.manifests.rendering import MANIFESTS
from webhook.cluster.template_metrics import TemplateMetrics
from webhook.metrics import AdmissionMetrics
from webhook.scanner.metrics import ScannerMetrics

_DAY = date(2027, 3, 31)
_OTHERS = {"up", "apiserver_admission_webhook_fail_open_count"}
_FUNCTIONS = {"absent", "min", "max", "sum", "rate", "increase", "count", "by", "time", "histogram_quantile"}


def _known() -> set[str]:
    """Names of all samples: a counter's ends in _total, a histogram has three."""
    registry = new_registry()
    ServerMetrics(registry, Load(Limits()), Health({}), lambda: 0).watch_certificate(lambda: 0.0)
    AdmissionMetrics(registry, lambda: 0.0)
    VerifierMetrics(registry, lambda: 0)
    SelfAttestationMetrics(registry)
    ProvisioningMetrics(registry, lambda: True)
    watch_shared_keys(registry, lambda: 0)
    watch_references(registry, lambda: True)
    expose_revocation(registry, CertificateCache(CertificateStore(), TrustAnchors()), lambda: 0.0)
    CertificateMetrics(registry, lambda: False, lambda: 0.0)
    FileMetrics(registry)
    expose_exceptions(registry, [Exemption(id="key-files", reason="a test", expires=_DAY)], lambda: _DAY)
    TemplateMetrics(registry)
    ScannerMetrics(registry)
    names = set()
    for metric in registry.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(metric.type, [""])
        names |= {metric.name + suffix for suffix in suffixes}
    return names


def _rules() -> list[dict[str, Any]]:
    found = []
    for file in sorted(MANIFESTS.glob("components/*/alerts.yaml")):
        for group in yaml.safe_load(file.read_text())["spec"]["groups"]:
            found += group["rules"]
    return found


def test_alerts_ask_for_metrics_that_exist() -> None:
    known = _known()
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
