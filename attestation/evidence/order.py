"""The configured order: the first source that is there answers, and no other.

What "there" means is decided here once. A source that is not on this machine (Kind.UNAVAILABLE) is passed over. A
source that is there is the one: while it is busy it is tried again until the deadline, and when it fails, that is the
result. Falling through on failure would let a host choose our evidence by breaking what we prefer.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from attestation.evidence.errors import Code, EvidenceError, Kind
from attestation.evidence.source import CollectedEvidence, EvidenceSource
from kbs.deadline import Deadline

SOURCES = ("coco-aa", "configfs-tsm", "sev-guest", "simulated")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds; the driver's own delay between throttled requests is 2 s


class ConfiguredSource(Protocol):
    """One of SOURCES and its address: a URL, or a path. The plan's entries have this shape."""

    @property
    def name(self) -> str: ...

    @property
    def address(self) -> str: ...


def collect_first(sources: Sequence[ConfiguredSource], digest: bytes, *, timeout: float) -> CollectedEvidence:
    """Evidence that binds a SHA-384 digest (48 bytes), from the first source that is there, within `timeout` seconds.

    Each source encodes the digest its own way (`EvidenceSource.report_data`); verifiers accept both encodings. Raises
    EvidenceError, NO_SOURCE with every source's reason when none is there, and FormatError for another digest length.
    """
    # All of the configuration is looked at before anything is asked: a typing mistake does not hide behind luck.
    opened = [(open_source(each.name, each.address), each.address) for each in sources]
    deadline = Deadline(timeout)
    absent: list[str] = []
    for source, address in opened:
        try:
            return _retry_while_busy(source, source.report_data(digest), deadline)
        except EvidenceError as error:
            if error.kind is not Kind.UNAVAILABLE:
                raise
            absent.append(f"{source.name} at {address}: {error.detail}")
    tried = "; ".join(absent) or "none is configured"
    raise EvidenceError("evidence", Code.NO_SOURCE, f"no configured source is there: {tried}")


def open_source(name: str, address: str) -> EvidenceSource:
    """The source with this name; nothing is asked yet. Raises EvidenceError(BAD_ADDRESS), also for an unknown name."""
    # Imported by name: on a cold start a pod pays for the sources it has configured, not for HTTP it does not use.
    if name == "coco-aa":
        from attestation.evidence.coco_aa import CocoAttestationAgent

        return CocoAttestationAgent(address)
    if name == "configfs-tsm":
        from attestation.evidence.configfs_tsm import ConfigfsTsm

        return ConfigfsTsm(address)
    if name == "sev-guest":
        from attestation.evidence.sev_guest import SevGuest

        return SevGuest(address)
    if name == "simulated":
        from attestation.evidence.simulated import SimulatedHardware

        return SimulatedHardware(address)
    raise EvidenceError("evidence", Code.BAD_ADDRESS, f"source is {name[:32]!r}, required one of {', '.join(SOURCES)}")


def _retry_while_busy(source: EvidenceSource, report_data: bytes, deadline: Deadline) -> CollectedEvidence:
    """Ask until it is not busy any more, or raise the last "busy" when the next question would come too late."""
    pause = _FIRST_PAUSE
    while True:
        try:
            return source.collect(report_data, timeout=deadline.remaining())
        except EvidenceError as error:
            if error.kind is not Kind.BUSY or deadline.remaining() <= pause:
                raise
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
