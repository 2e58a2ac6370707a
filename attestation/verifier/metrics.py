"""Counts attestations and logins; label values are reasons, so no guest can add any."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from attestation.pki.cache import CertificateCache
from attestation.verifier.reasons import Reason
from kbs.provision import ProvisionErrorType

_SELF_REASONS = (Reason.ACCEPTED, Reason.NO_EVIDENCE, Reason.OVERLOADED, Reason.CLOCK)
# A report takes tens of milliseconds, an answer up to three times that.
_REPORT_BUCKETS = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.075, 0.09, 0.105, 0.12, 0.15, 0.2, 0.3, 0.5, 1.0, 5.0, 10.0)
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)


def watch_shared_keys(registry: CollectorRegistry, count: Callable[[], int]) -> None:
    """Export the number of token-signing keys that more than one cluster lists; there should be none."""
    Gauge(
        "morphisms_shared_cluster_keys", "Token-signing keys that more than one cluster lists.", registry=registry
    ).set_function(count)


def watch_references(registry: CollectorRegistry, lists: Callable[[], bool]) -> None:
    """Export whether the signed references list this verifier's configuration."""
    Gauge(
        "morphisms_references_list_configuration",
        "1 while the signed references list this verifier's configuration, else 0: guests refuse it.",
        registry=registry,
    ).set_function(lambda: float(lists()))


class VerifierMetrics:
    """Attestations and logins by reason, with their durations."""

    def __init__(self, registry: CollectorRegistry, policies: Callable[[], int]) -> None:
        self._attestations = Counter("morphisms_attestations", "Attestations decided.", ["reason"], registry=registry)
        self._logins = Counter("morphisms_vault_logins", "Vault logins for guests.", ["reason"], registry=registry)
        self._seconds = Histogram(
            "morphisms_attestation_seconds", "Time of a decision.", buckets=_BUCKETS, registry=registry
        )
        self._login_seconds = Histogram(
            "morphisms_vault_login_seconds", "Time of a login.", buckets=_BUCKETS, registry=registry
        )
        Gauge("morphisms_policies", "Appraisal policies in force.", registry=registry).set_function(policies)
        self._source = Counter(
            "morphisms_source_refusals",
            "Calls refused because their address called too often.",
            ["call"],
            registry=registry,
        )
        # Each child is looked up once, because labels() costs more than the increment.
        self._attested = {reason: self._attestations.labels(reason.value) for reason in Reason}
        self._logged_in = {reason: self._logins.labels(reason.value) for reason in Reason}

    def attested(self, reason: Reason, seconds: float) -> None:
        """Count one decision."""
        self._attested[reason].inc()
        self._seconds.observe(seconds)

    def source_refused(self, call: str) -> None:
        """Count one call that was refused unread."""
        self._source.labels(call).inc()

    def logged_in(self, reason: Reason, seconds: float) -> None:
        """Count one login, or its refusal."""
        self._logged_in[reason].inc()
        self._login_seconds.observe(seconds)


class SelfAttestationMetrics:
    """The verifier's own evidence: answers by reason with their durations, firmware calls, and whether it works.

    `source` and `simulated` are labels of the last report.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._answers = Counter("morphisms_attested", "Answers to /attested.", ["reason"], registry=registry)
        self._seconds = Histogram(
            "morphisms_attested_seconds", "Time of an answer to /attested.", buckets=_REPORT_BUCKETS, registry=registry
        )
        self._calls = Histogram(
            "morphisms_firmware_call_seconds",
            "Time of a report about the verifier's own guest.",
            buckets=_REPORT_BUCKETS,
            registry=registry,
        )
        self._works = Gauge(
            "morphisms_attests_itself",
            "1 while the last report about the verifier's own guest was made, else 0.",
            ["source", "simulated"],
            registry=registry,
        )
        self._last = ("none", "false")
        self._works.labels(*self._last).set(0)
        for reason in _SELF_REASONS:
            self._answers.labels(reason.value)

    def answered(self, reason: Reason, seconds: float) -> None:
        """Count one answer, or its refusal."""
        self._answers.labels(reason.value).inc()
        self._seconds.observe(seconds)

    def called(self, seconds: float) -> None:
        """Count one call of firmware."""
        self._calls.observe(seconds)

    def works(self, source: str, *, simulated: bool) -> None:
        """A report was made by this source."""
        labels = (source, str(simulated).lower())
        if labels != self._last:
            self._works.remove(*self._last)
            self._last = labels
        self._works.labels(*labels).set(1)

    def fails(self) -> None:
        """No report was made."""
        self._works.labels(*self._last).set(0)


class ProvisioningMetrics:
    """A verifier that starts sealed: whether it still is, requests of provisioners, and requests of replicas."""

    def __init__(self, registry: CollectorRegistry, is_sealed: Callable[[], bool]) -> None:
        gauge = Gauge("morphisms_sealed", "1 while the verifier waits for secrets, else 0.", registry=registry)
        gauge.set_function(lambda: float(is_sealed()))
        self._requests = Counter(
            "morphisms_provision_requests", "Requests to provision this verifier.", ["outcome"], registry=registry
        )
        self._hand_overs = Counter(
            "morphisms_hand_overs", "Requests of replicas for the secrets.", ["outcome"], registry=registry
        )
        for problem in ("taken", *ProvisionErrorType):
            self._requests.labels(str(problem))
        for reason in ("given", *(reason for reason in Reason if reason is not Reason.ACCEPTED)):
            self._hand_overs.labels(str(reason))

    def provisioned(self, outcome: str) -> None:
        """Count one request of a provisioner, or its refusal."""
        self._requests.labels(outcome).inc()

    def handed_over(self, outcome: str) -> None:
        """Count one replica that got the secrets, or its refusal."""
        self._hand_overs.labels(outcome).inc()


def expose_revocation(registry: CollectorRegistry, certificates: CertificateCache, now: Callable[[], float]) -> None:
    """Metrics of each root's two revocation lists, by product line and kind of leaf. `now`: Unix seconds."""
    remaining = Gauge(
        "morphisms_crl_next_update_seconds",
        "Time until a revocation list ends; 0 for a list for VCEKs that is missing.",
        ["product", "kind"],
        registry=registry,
    )
    age = Gauge(
        "morphisms_crl_checked_age_seconds",
        "Time since the key service last answered with this revocation list.",
        ["product", "kind"],
        registry=registry,
    )

    def seconds_left(line: str, *, vlek: bool) -> float:
        until = certificates.crl_next_update(line, vlek=vlek)
        if until is None:
            return math.nan if vlek else 0.0
        return until.timestamp() - now()

    def seconds_since(line: str, *, vlek: bool) -> float:
        checked = certificates.crl_checked(line, vlek=vlek)
        return math.nan if checked is None else now() - checked.timestamp()

    for line in certificates.anchors.certificates:
        for kind, vlek in (("vcek", False), ("vlek", True)):
            remaining.labels(line, kind).set_function(partial(seconds_left, line, vlek=vlek))
            age.labels(line, kind).set_function(partial(seconds_since, line, vlek=vlek))
