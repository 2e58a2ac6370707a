"""How often one address may call, before anything of a call is read or verified."""

from __future__ import annotations

import time
from collections.abc import Callable

from attestation.verifier.configuration import PerSource
from attestation.verifier.rate_limit import RateLimiter
from attestation.verifier.reasons import Reason
from attestation.verifier.responses import new_correlation_id, refused
from server import logs
from server.messages import RequestInfo, Response
from server.peers import peer_network

_WARNING_SECONDS = 60.0
_EXTRA_BYTES = 8 * 1024


class SourcePace:
    """A pace of its own for each call of each address, so that a guest's three calls do not share one.

    `counted`: is told the call's name for each refusal.
    """

    def __init__(self, per_source: PerSource, counted: Callable[[str], None]) -> None:
        self._per_source = per_source
        self._counted = counted
        self._warnings = RateLimiter(1, _WARNING_SECONDS, time.monotonic)

    def screen(self, call: str, usual_bytes: int) -> Callable[[RequestInfo], Response | None]:
        """The screen of one call's `server.messages.Intake`.

        A body of up to `usual_bytes` counts once, and each 8 KiB that a body declares beyond that once more.
        """
        pace = RateLimiter(self._per_source.burst, 1 / self._per_source.perSecond, time.monotonic)

        def check(info: RequestInfo) -> Response | None:
            source = peer_network(info.peer)
            declared = info.headers.get("Content-Length", "")
            # More digits than any body has, or none: the server itself refuses the one and bounds the other.
            length = int(declared) if declared.isascii() and declared.isdigit() and len(declared) < 10 else 0
            amount = 1 + max(0, length - usual_bytes) // _EXTRA_BYTES
            return None if pace.take(source, amount) else self._refused(call, source)

        return check

    def _refused(self, call: str, source: str) -> Response:
        """Count it and warn now and then, but keep no record: a flood must not push other records out."""
        self._counted(call)
        if self._warnings.take(source):
            logs.warning("source_too_often", source=source, call=call, reason=Reason.SOURCE_TOO_OFTEN.value)
        return refused(Reason.SOURCE_TOO_OFTEN, new_correlation_id())
