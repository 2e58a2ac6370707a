"""The metrics that the code exports, as Prometheus names them."""

from __future__ import annotations

from datetime import date

from prometheus_client import CollectorRegistry

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
from certs.metrics import CertificateMetrics
from server.health import Health
from server.limits import Limits
from server.load import Load
from server.metrics import ServerMetrics, new_registry
from server.watched import FileMetrics
from webhook.cluster.template_metrics import TemplateMetrics
from webhook.metrics import AdmissionMetrics
from webhook.scanner.metrics import ScannerMetrics

_DAY = date(2027, 3, 31)
_SUFFIXES = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}


def exported() -> dict[str, frozenset[str]]:
    """The label names of each sample, by its name: a counter's ends in _total, a histogram has three."""
    registry = _registry()
    found = {}
    for collector in list(registry._collector_to_names):
        for metric in collector.collect():
            labels = {*getattr(collector, "_labelnames", ()), *getattr(metric, "_labelnames", ())}
            for suffix in _SUFFIXES.get(metric.type, [""]):
                found[metric.name + suffix] = frozenset(labels | ({"le"} if suffix == "_bucket" else set()))
    return found


def _registry() -> CollectorRegistry:
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
    return registry
