"""The parts that attest the verifier itself, put together by its configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry

from attestation.evidence import EvidenceError, open_source
from attestation.pki.cache import CertificateCache
from attestation.verifier.attested_call import AttestedCall, CallLog
from attestation.verifier.clock import Clock
from attestation.verifier.configuration import Attest, VerifierConfiguration
from attestation.verifier.digests import policies_digest
from attestation.verifier.metrics import SelfAttestationMetrics
from attestation.verifier.pinned_files import PinnedFiles
from attestation.verifier.policies.model import PolicySet
from attestation.verifier.reasons import RefusedError
from attestation.verifier.references_file import ServedReferences
from attestation.verifier.self_attestation import Collector, SelfAttestation, keep_probing
from attestation.verifier.source_pace import SourcePace
from kbs.base64url import encode
from server import logs
from server.service import Background
from server.watched import FileMetrics
from server.yaml.strict import ConfigurationError


def make_attested_call(
    configuration: VerifierConfiguration,
    *,
    certificates: CertificateCache,
    policies: Callable[[], PolicySet],
    pinned: PinnedFiles,
    pace: SourcePace,
    clock: Clock,
    registry: CollectorRegistry,
    files: FileMetrics,
    background: list[Background],
) -> AttestedCall | None:
    """The call, whose tasks are added to `background`; None where the configuration has no `attest`.

    Raises ConfigurationError for an unusable address, references file or pinned file.
    """
    attest = configuration.attest
    if attest is None:
        logs.info("does_not_attest_itself", advice="set attest.sources where this verifier runs in a confidential VM")
        return None
    _check_addresses(attest)
    try:
        digest = pinned.configuration_digest(configuration)
    except (OSError, ValueError) as error:
        raise ConfigurationError([f"a file that the configuration names cannot be read: {error}"]) from None
    logs.info("configuration_digest", digest=encode(digest))
    metrics = SelfAttestationMetrics(registry)
    log = CallLog(metrics)
    attestation = SelfAttestation(
        Collector(attest.sources, certificates).collect,
        _PoliciesDigest(policies),
        lambda: pinned.configuration_digest(configuration),
        log.called,
    )
    background.append(lambda: keep_probing(attestation, log.works))
    served = None
    if attest.references is not None:
        served = ServedReferences(
            attest.references, lambda: pinned.configuration_digest(configuration), files, registry
        )
        background.append(served.watch)
    return AttestedCall(attestation, lambda: "" if served is None else served.text, clock, pace, metrics)


_NO_POLICIES: Final = PolicySet.of(())


class _PoliciesDigest:
    """The digest of the policies in force, computed once for each set of them.

    A sealed verifier, which cannot read its policies yet, has none in force, and attests that.
    """

    def __init__(self, policies: Callable[[], PolicySet]) -> None:
        self._policies = policies
        self._of: PolicySet | None = None
        self._digest = b""

    def __call__(self) -> bytes:
        try:
            policies = self._policies()
        except RefusedError:
            policies = _NO_POLICIES
        if policies is not self._of:
            self._of, self._digest = policies, policies_digest(policies)
        return self._digest


def _check_addresses(attest: Attest) -> None:
    problems: list[str] = []
    for each in attest.sources:
        try:
            open_source(each.source, each.address)
        except EvidenceError as error:
            problems.append(f"attest.sources: {error}")
    if problems:
        raise ConfigurationError(problems)
