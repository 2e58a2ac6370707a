"""A time limit for calls into the kernel that take none: sev-guest holds an ioctl, and configfs a read, for a minute.

The driver sleeps while the hypervisor throttles it (drivers/virt/coco/sev-guest/sev-guest.c,
SNP_REQ_MAX_RETRY_DURATION: 60 s). After a missed deadline a thread stays behind; it ends, and cleans up, when the
kernel returns from the call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from attestation.evidence.errors import Code, EvidenceError
from kbs.deadline import Deadline, DeadlineExceededError, call_within

T = TypeVar("T")


def within(source: str, seconds: float, work: Callable[[], T]) -> T:
    """The result of `work`. Raises EvidenceError(DEADLINE) after `seconds`, or what `work` raised."""
    try:
        return call_within(Deadline(seconds), f"evidence {source}", work)
    except DeadlineExceededError:
        raise deadline_missed(source, seconds) from None


def deadline_missed(source: str, seconds: float) -> EvidenceError:
    """The error of a source that did not answer within `seconds`."""
    return EvidenceError(source, Code.DEADLINE, f"no answer within {seconds:g} s")
