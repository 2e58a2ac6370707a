"""Metrics of certificates. Every label value is a name of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cryptography import x509
from prometheus_client import CollectorRegistry, Counter, Gauge


class CertificateMetrics:
    """What this replica serves, who trusts it, and whether this replica leads."""

    def __init__(self, registry: CollectorRegistry, leads: Callable[[], bool], skew: Callable[[], float]) -> None:
        self._expiry = Gauge(
            "morphisms_certificate_not_after_seconds",
            "When the served certificate expires (Unix time); 0 while there is none.",
            registry=registry,
        )
        self._authority_expiry = Gauge(
            "morphisms_certificate_authority_not_after_seconds",
            "When the CA that signed it expires (Unix time); 0 while the CA is unknown.",
            registry=registry,
        )
        self._trusted = Gauge(
            "morphisms_certificate_trusted",
            "1 when this live webhook configuration trusts the served certificate.",
            ["configuration"],
            registry=registry,
        )
        self.steps = Counter(
            "morphisms_certificate_steps",
            "Steps that this replica took as the leader.",
            ["step", "result"],
            registry=registry,
        )
        leader = Gauge(
            "morphisms_certificate_leader", "1 when this replica rotates the certificates.", registry=registry
        )
        leader.set_function(lambda: float(leads()))
        ahead = Gauge(
            "morphisms_clock_skew_seconds",
            "How far the replica's clock is ahead of the API server's.",
            registry=registry,
        )
        ahead.set_function(skew)

    def serving(self, leaf: x509.Certificate | None, issuer: x509.Certificate | None) -> None:
        """Report what is served, and the CA that signed it."""
        for gauge, certificate in ((self._expiry, leaf), (self._authority_expiry, issuer)):
            gauge.set(certificate.not_valid_after_utc.timestamp() if certificate is not None else 0)

    def trusted(self, configurations: Mapping[str, bool]) -> None:
        """Report which configurations trust it; one that does not exist is left out."""
        self._trusted.clear()
        for name, trusts in configurations.items():
            self._trusted.labels(name).set(trusts)
