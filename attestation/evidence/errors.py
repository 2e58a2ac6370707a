"""Why a source gave no evidence: a stable code for callers, a sentence for people, never a byte of the evidence."""

from __future__ import annotations

from enum import StrEnum

from attestation.errors import AttestationError


class Kind(StrEnum):
    """What to do about it."""

    UNAVAILABLE = "unavailable"  # the source is not on this machine; only then `collect_first` tries the next one
    BUSY = "busy"  # it is there; the same request may succeed later
    FAILED = "failed"  # it is there and wrong, or wrongly set up; trying again does not help


class Code(StrEnum):
    """Stable reason codes; each belongs to one kind (`kind_of`)."""

    NOT_THERE = "not-there"  # no such directory, device or listener
    NOT_ENABLED = "not-enabled"  # the guest agent answers, but its attestation interface is switched off
    NO_SOURCE = "no-source"  # none of the configured sources is there

    THROTTLED = "throttled"  # firmware, hypervisor or agent limits the rate
    RACED = "raced"  # another process kept writing to our request
    AGENT_ERROR = "agent-error"  # the agent failed on its own side (5xx, connection dropped without an answer)
    DEADLINE = "deadline"  # no answer in time

    BAD_ADDRESS = "bad-address"  # the configured name or address cannot be used
    PERMISSION_DENIED = "permission-denied"
    WRONG_PROVIDER = "wrong-provider"  # a TSM, but not AMD's
    VANISHED = "vanished"  # it disappeared between two steps
    WRONG_LENGTH = "wrong-length"
    SHORT_ANSWER = "short-answer"  # it ended before the length it had announced, or took less than was written
    TOO_LARGE = "too-large"
    MALFORMED = "malformed"
    WRONG_REPORT_DATA = "wrong-report-data"  # a report, but not the requested one
    REDIRECTED = "redirected"
    REFUSED = "refused"  # firmware, kernel or agent refused the request itself
    DEVICE_DISABLED = "device-disabled"  # the kernel threw its message key away: no report until the guest restarts
    DEVICE_ERROR = "device-error"


_UNAVAILABLE = frozenset({Code.NOT_THERE, Code.NOT_ENABLED, Code.NO_SOURCE})
_BUSY = frozenset({Code.THROTTLED, Code.RACED, Code.AGENT_ERROR, Code.DEADLINE})


def kind_of(code: Code) -> Kind:
    """The kind a code belongs to."""
    if code in _UNAVAILABLE:
        return Kind.UNAVAILABLE
    return Kind.BUSY if code in _BUSY else Kind.FAILED


class EvidenceError(AttestationError):
    """No evidence. `source` is the source's name, `code` is for programs, `detail` for people."""

    def __init__(self, source: str, code: Code, detail: str) -> None:
        super().__init__(f"{source}: {detail} [{code.value}]")
        self.source = source
        self.code = code
        self.detail = detail

    @property
    def kind(self) -> Kind:
        return kind_of(self.code)
