"""Metrics of certificates. Labels are names of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cryptography import x509
from prometheus_client import CollectorRegistry, Counter, Gauge


class CertificateMetrics:
    """What this replica serves, who trusts it, and whether this replica leads."""

    def __init__(self, registry: CollectorRegistry, leads: Callable[[], bool], skew: Callable[[], float]) -> None:
        self._ends = Gauge(
            "morphisms_certificate_not_after_seconds",
            "When the certificate ends that is served (Unix time); 0 while there is none.",
            registry=registry,
        )
        self._authority_ends = Gauge(
            "morphisms_certificate_authority_not_after_seconds",
            "When the CA ends that signed it (Unix time); 0 while it is unknown.",
            registry=registry,
        )
        self._trusted = Gauge(
            "morphisms_certificate_trusted",
            "1 when this live webhook configuration trusts the certificate that is served.",
            ["configuration"],
            registry=registry,
        )
        self.steps = Counter(
            "morphisms_certificate_steps",
            "Steps that this replica took as the leader.",
            ["step", "result"],
            registry=registry,
        )
        leader = Gauge("morphisms_certificate_leader", "1 when this replica keeps the certificates.", registry=registry)
        leader.set_function(lambda: float(leads()))
        ahead = Gauge(
            "morphisms_clock_skew_seconds", "How far our clock is ahead of the API server's.", registry=registry
        )
        ahead.set_function(skew)

    def serving(self, leaf: x509.Certificate | None, issuer: x509.Certificate | None) -> None:
        """Say what is served."""
        for gauge, certificate in ((self._ends, leaf), (self._authority_ends, issuer)):
            gauge.set(certificate.not_valid_after_utc.timestamp() if certificate is not None else 0)

    def trusted(self, configurations: Mapping[str, bool]) -> None:
        """Say who trusts it; a configuration that does not exist is left out."""
        self._trusted.clear()
        for name, trusts in configurations.items():
            self._trusted.labels(name).set(trusts)
