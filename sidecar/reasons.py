"""Exit codes by cause, and the stable reasons behind each. docs/doctor.md lists both with what to do."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # a start pays for each module
    from attestation.evidence.errors import Code


class Exit(IntEnum):
    """Exit codes of `morphisms-init`, by cause. The exec helper has others (80 to 87), and so have the shells."""

    PUBLISHED = 0
    CONFIGURATION = 10
    EVIDENCE = 11
    VERIFIER_REFUSED = 12
    VERIFIER_UNREACHABLE = 13
    VAULT_REFUSED = 14
    VAULT_UNREACHABLE = 15
    SECRET_MISSING = 16
    DEADLINE = 17
    NO_SPACE = 18
    VERIFIER_NOT_ATTESTED = 19
    INTERNAL = 70  # EX_SOFTWARE of sysexits.h
    STOPPED = 143  # 128 + SIGTERM


# The one table, which --help prints.
CAUSES: Final = {
    Exit.PUBLISHED: "all secrets are published",
    Exit.CONFIGURATION: "the plan, the pod's token, the image or a volume is not as it must be",
    Exit.EVIDENCE: "this guest gives no usable evidence: look at the node",
    Exit.VERIFIER_REFUSED: "the verifier refused this pod; morphisms explain ID, beside the verifier, says why",
    Exit.VERIFIER_UNREACHABLE: "the verifier gave no usable and trusted answer before the deadline",
    Exit.VAULT_REFUSED: "Vault's policies do not let this workload read a path of the plan",
    Exit.VAULT_UNREACHABLE: "Vault is sealed, busy, unreachable or not trusted, until the deadline",
    Exit.SECRET_MISSING: "a secret, version or key does not exist, or cannot be published as the plan says",
    Exit.DEADLINE: "the plan's deadline passed while every server still answered",
    Exit.NO_SPACE: "a memory volume is full, or would exceed its limit",
    Exit.VERIFIER_NOT_ATTESTED: "the verifier did not prove that it is the one of the plan, so it was told nothing",
    Exit.INTERNAL: "an error in morphisms-init itself; the line names its class and place",
    Exit.STOPPED: "stopped by SIGTERM or SIGINT before anything was published",
}


class Reason(StrEnum):
    """One code per cause, and the exit code that it belongs to. Programs may depend on both."""

    exit_code: Exit

    def __new__(cls, value: str, exit_code: Exit) -> Reason:
        member = str.__new__(cls, value)
        member._value_ = value
        member.exit_code = exit_code
        return member

    PLAN = "plan", Exit.CONFIGURATION
    POD_TOKEN = "pod-token", Exit.CONFIGURATION
    POD_TOKEN_AUDIENCE = "pod-token-audience", Exit.CONFIGURATION
    POD_TOKEN_OLD = "pod-token-old", Exit.CONFIGURATION
    HELPER = "helper", Exit.CONFIGURATION
    VOLUME = "volume", Exit.CONFIGURATION
    SHIELD = "shield", Exit.CONFIGURATION
    HEALTH_PORT = "health-port", Exit.CONFIGURATION
    CLOCK_SKEW = "clock-skew", Exit.CONFIGURATION
    VERIFIER_URL = "verifier-url", Exit.CONFIGURATION
    VERIFIER_CA = "verifier-ca", Exit.CONFIGURATION
    VERIFIER_ROLE = "verifier-role", Exit.CONFIGURATION
    VAULT_URL = "vault-url", Exit.CONFIGURATION
    VAULT_CA = "vault-ca", Exit.CONFIGURATION
    VAULT_CA_DIFFERS = "vault-ca-differs", Exit.CONFIGURATION
    VAULT_NAMESPACE = "vault-namespace", Exit.CONFIGURATION
    SECRET_PATH = "secret-path", Exit.CONFIGURATION
    FILE_TWICE = "file-twice", Exit.CONFIGURATION
    INLINE_REFERENCE = "inline-reference", Exit.CONFIGURATION
    TEMPLATE = "template", Exit.CONFIGURATION  # SECRET_MISSING where the template names a key that the secret lacks
    ON_CHANGE = "on-change", Exit.CONFIGURATION

    # `evidence-` and the code of attestation/evidence/errors.py.
    EVIDENCE_NOT_THERE = "evidence-not-there", Exit.EVIDENCE
    EVIDENCE_NOT_ENABLED = "evidence-not-enabled", Exit.EVIDENCE
    EVIDENCE_NO_SOURCE = "evidence-no-source", Exit.EVIDENCE
    EVIDENCE_THROTTLED = "evidence-throttled", Exit.EVIDENCE
    EVIDENCE_RACED = "evidence-raced", Exit.EVIDENCE
    EVIDENCE_AGENT_ERROR = "evidence-agent-error", Exit.EVIDENCE
    EVIDENCE_DEADLINE = "evidence-deadline", Exit.DEADLINE
    EVIDENCE_BAD_ADDRESS = "evidence-bad-address", Exit.EVIDENCE
    EVIDENCE_PERMISSION_DENIED = "evidence-permission-denied", Exit.EVIDENCE
    EVIDENCE_WRONG_PROVIDER = "evidence-wrong-provider", Exit.EVIDENCE
    EVIDENCE_VANISHED = "evidence-vanished", Exit.EVIDENCE
    EVIDENCE_WRONG_LENGTH = "evidence-wrong-length", Exit.EVIDENCE
    EVIDENCE_SHORT_ANSWER = "evidence-short-answer", Exit.EVIDENCE
    EVIDENCE_TOO_LARGE = "evidence-too-large", Exit.EVIDENCE
    EVIDENCE_MALFORMED = "evidence-malformed", Exit.EVIDENCE
    EVIDENCE_WRONG_REPORT_DATA = "evidence-wrong-report-data", Exit.EVIDENCE
    EVIDENCE_REDIRECTED = "evidence-redirected", Exit.EVIDENCE
    EVIDENCE_REFUSED = "evidence-refused", Exit.EVIDENCE
    EVIDENCE_DEVICE_DISABLED = "evidence-device-disabled", Exit.EVIDENCE
    EVIDENCE_DEVICE_ERROR = "evidence-device-error", Exit.EVIDENCE

    VERIFIER_REFUSED = "verifier-refused", Exit.VERIFIER_REFUSED

    VERIFIER_UNREACHABLE = "verifier-unreachable", Exit.VERIFIER_UNREACHABLE
    VERIFIER_NOT_TRUSTED = "verifier-not-trusted", Exit.VERIFIER_UNREACHABLE
    VERIFIER_BUSY = "verifier-busy", Exit.VERIFIER_UNREACHABLE
    VERIFIER_SEALED = "verifier-sealed", Exit.VERIFIER_UNREACHABLE
    VERIFIER_VAULT_SEALED = "verifier-vault-sealed", Exit.VERIFIER_UNREACHABLE
    VERIFIER_VAULT_UNAVAILABLE = "verifier-vault-unavailable", Exit.VERIFIER_UNREACHABLE
    VERIFIER_CLUSTER_UNAVAILABLE = "verifier-cluster-unavailable", Exit.VERIFIER_UNREACHABLE
    VERIFIER_CERTIFICATES_UNAVAILABLE = "verifier-certificates-unavailable", Exit.VERIFIER_UNREACHABLE
    VERIFIER_CLOCK = "verifier-clock", Exit.VERIFIER_UNREACHABLE
    VERIFIER_SESSION = "verifier-session", Exit.VERIFIER_UNREACHABLE
    VERIFIER_REDIRECTS = "verifier-redirects", Exit.VERIFIER_UNREACHABLE
    VERIFIER_DATA_HUB = "verifier-data-hub", Exit.VERIFIER_UNREACHABLE
    VERIFIER_ANSWER = "verifier-answer", Exit.VERIFIER_UNREACHABLE
    VERIFIER_ANSWER_TOO_LARGE = "verifier-answer-too-large", Exit.VERIFIER_UNREACHABLE

    VAULT_REFUSED = "vault-refused", Exit.VAULT_REFUSED
    TOKEN_GONE = "token-gone", Exit.VAULT_REFUSED

    VAULT_UNREACHABLE = "vault-unreachable", Exit.VAULT_UNREACHABLE
    VAULT_NOT_TRUSTED = "vault-not-trusted", Exit.VAULT_UNREACHABLE
    VAULT_BUSY = "vault-busy", Exit.VAULT_UNREACHABLE
    VAULT_SEALED = "vault-sealed", Exit.VAULT_UNREACHABLE
    VAULT_REDIRECTS = "vault-redirects", Exit.VAULT_UNREACHABLE
    VAULT_ANSWER = "vault-answer", Exit.VAULT_UNREACHABLE
    VAULT_ANSWER_TOO_LARGE = "vault-answer-too-large", Exit.VAULT_UNREACHABLE

    SECRET_MISSING = "secret-missing", Exit.SECRET_MISSING
    KEY_MISSING = "key-missing", Exit.SECRET_MISSING
    SECRET_UNUSABLE = "secret-unusable", Exit.SECRET_MISSING

    DEADLINE = "deadline", Exit.DEADLINE

    TOO_LARGE = "too-large", Exit.NO_SPACE
    DISK_FULL = "disk-full", Exit.NO_SPACE

    VERIFIER_NOT_ATTESTED = "verifier-not-attested", Exit.VERIFIER_NOT_ATTESTED
    VERIFIER_SPKI = "verifier-spki", Exit.VERIFIER_NOT_ATTESTED
    VERIFIER_CONFIGURATION = "verifier-configuration", Exit.VERIFIER_NOT_ATTESTED
    VERIFIER_REFERENCES = "verifier-references", Exit.VERIFIER_NOT_ATTESTED
    VERIFIER_NO_EVIDENCE = "verifier-no-evidence", Exit.VERIFIER_NOT_ATTESTED

    INTERNAL_ERROR = "internal-error", Exit.INTERNAL
    STOPPED = "stopped", Exit.STOPPED


def evidence_reason(code: Code) -> Reason:
    """The reason that stands for an evidence source's error code."""
    return Reason[f"EVIDENCE_{code.name}"]
