"""`POST /attested`: the verifier proves itself on the connection that the caller goes on to use (`kbs.attested`)."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final

from attestation.verifier.clock import Clock
from attestation.verifier.metrics import SelfAttestationMetrics
from attestation.verifier.rate_limit import RateLimiter
from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.responses import invalid, new_correlation_id, refused
from attestation.verifier.self_attestation import Report, SelfAttestation
from attestation.verifier.source_pace import SourcePace
from kbs.attested import ATTESTED_PATH, MAX_ATTESTED_SIZE
from kbs.messages import WireError
from kbs.verifier import read_attested, write_attested_answer
from server import logs
from server.messages import Intake, RequestInfo, Response

_WARNING_SECONDS: Final = 60.0


class AttestedCall:
    """Answers the call. Its pace and its places are its own, so it keeps no attestation out, and none keeps it out.

    `references`: the signed reference values in force; empty for none.
    """

    def __init__(
        self,
        attestation: SelfAttestation,
        references: Callable[[], str],
        clock: Clock,
        pace: SourcePace,
        metrics: SelfAttestationMetrics,
    ) -> None:
        self._attestation = attestation
        self.references = references
        self._clock = clock
        self._metrics = metrics
        self._pace = pace
        self._warning_limit = RateLimiter(1, _WARNING_SECONDS, time.monotonic)

    def routes(self) -> dict[tuple[str, str], Callable[[bytes, RequestInfo], Awaitable[Response]]]:
        """(method, path) to handler."""
        return {("POST", ATTESTED_PATH): self.attested}

    def intakes(self) -> dict[str, Intake]:
        """The conditions that hold before the body is read."""
        screen = self._pace.screen("attested", MAX_ATTESTED_SIZE)
        return {ATTESTED_PATH: Intake(body_bytes=MAX_ATTESTED_SIZE, screen=screen)}

    async def attested(self, body: bytes, info: RequestInfo) -> Response:
        """Evidence of the verifier's own guest over the caller's nonce and this connection's certificate."""
        try:
            nonce = read_attested(body)
        except WireError as error:
            return invalid("attested", error)
        started = time.perf_counter()
        try:
            self._clock.require()
            if not info.spki:
                raise RefusedError(Reason.NO_EVIDENCE, "the connection shows no certificate")
            proof = await self._attestation.prove(nonce, info.spki)
        except RefusedError as error:
            return self._refused(error, time.perf_counter() - started)
        answer = write_attested_answer(
            proof.report.evidence,
            proof.path,
            policies=proof.policies,
            configuration=proof.configuration,
            references=self.references(),
            simulated=proof.report.simulated,
        )
        self._metrics.answered(Reason.ACCEPTED, time.perf_counter() - started)
        return Response(200, answer)

    def _refused(self, error: RefusedError, seconds: float) -> Response:
        """Count it, and warn now and then: a flood must not fill the log."""
        identifier = new_correlation_id()
        self._metrics.answered(error.reason, seconds)
        if self._warning_limit.take(error.reason):
            logs.set_correlation_id(identifier)
            logs.warning("attested_refused", reason=error.reason.value, detail=error.detail)
        return refused(error.reason, identifier)


class CallLog:
    """What the operator sees of the calls of firmware: a line for each, and the metrics.

    Calls that fail cost nothing, so anybody could fill the log with them: these get a line per minute and cause.
    """

    def __init__(self, metrics: SelfAttestationMetrics) -> None:
        self._metrics = metrics
        self._works: bool | None = None
        self._failure_limit = RateLimiter(1, _WARNING_SECONDS, time.monotonic)

    def works(self) -> bool:
        """The last call gave a report."""
        return bool(self._works)

    def called(self, result: Report | RefusedError, nonces: int, seconds: float) -> None:
        """One call has ended."""
        self._metrics.called(seconds)
        milliseconds = round(seconds * 1000, 1)
        if isinstance(result, RefusedError):
            self._metrics.fails()
            if self._failure_limit.take((result.reason, result.detail)) or self._works:
                logs.error(
                    "cannot_attest_itself",
                    reason=result.reason.value,
                    detail=result.detail,
                    advice="pods whose plan demands the verifier's own evidence wait; others are served",
                    milliseconds=milliseconds,
                )
            self._works = False
            return
        self._metrics.works(result.source, simulated=result.simulated)
        logs.info(
            "self_attestation",
            source=result.source,
            simulated=result.simulated,
            nonces=nonces,
            milliseconds=milliseconds,
        )
        if not self._works and result.simulated:
            logs.warning("simulated_self_attestation", advice="it says nothing about this verifier")
        self._works = True
