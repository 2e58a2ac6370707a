"""The seal: until every secret has come, this process proves itself, takes secrets, and serves nothing else."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from prometheus_client import CollectorRegistry, Gauge

from attestation.verifier.provisioning.held_secrets import HeldSecrets
from attestation.verifier.provisioning.unsealing import Unsealer
from attestation.verifier.responses import new_correlation_id, unavailable
from kbs.messages import ErrorType
from kbs.provision import SecretName
from server import logs
from server.messages import NO_INTAKE, Handler, Intake, RequestInfo, Response


class Seal:
    """Whether this process still waits for secrets. Once open it stays open: a value that is held is not lost."""

    def __init__(self, held: HeldSecrets, unsealer: Unsealer | None, registry: CollectorRegistry) -> None:
        self._held = held
        self._unsealer = unsealer
        gauge = Gauge("morphisms_sealed", "1 while the verifier waits for secrets, else 0.", registry=registry)
        gauge.set_function(lambda: float(self.is_sealed))
        held.when_taken(lambda _: self._announce())
        if unsealer is not None:
            unsealer.when_open(self._announce)
        logs.warning("sealed", waits_for=[name.value for name in self.missing])

    @property
    def missing(self) -> tuple[SecretName, ...]:
        """The secrets that have not come."""
        waits = self._unsealer is not None and not self._unsealer.was_open
        return (*self._held.missing, *((SecretName.UNSEAL_SHARE,) if waits else ()))

    @property
    def is_sealed(self) -> bool:
        """Whether any secret has not come."""
        return bool(self.missing)

    def check(self) -> str | None:
        """The gate: None once every secret has come."""
        missing = self.missing
        return f"sealed: waits for {', '.join(name.value for name in missing)}" if missing else None

    def guard(
        self,
        routes: Mapping[tuple[str, str], Handler],
        intakes: Mapping[str, Intake],
        always: Collection[str],
    ) -> tuple[dict[tuple[str, str], Handler], dict[str, Intake]]:
        """The routes and intakes that answer 503 while sealed, but for the paths in `always`."""
        paths = {path for _, path in routes} - set(always)
        guarded = {key: self._guarded(handler) if key[1] in paths else handler for key, handler in routes.items()}
        screened = {path: self._screened(intakes.get(path, NO_INTAKE)) for path in paths}
        return guarded, {**intakes, **screened}

    def _guarded(self, handler: Handler) -> Handler:
        async def answer(body: bytes, info: RequestInfo) -> Response:
            return self._refusal() or await handler(body, info)

        return answer

    def _screened(self, intake: Intake) -> Intake:
        # Before the body is read, so that a sealed verifier holds none.
        return replace(intake, screen=lambda info: self._refusal() or intake.screen(info))

    def _refusal(self) -> Response | None:
        return unavailable(new_correlation_id(), 503, ErrorType.SEALED) if self.is_sealed else None

    def _announce(self) -> None:
        if self.is_sealed:
            logs.info("sealed", waits_for=[name.value for name in self.missing])
        else:
            logs.info("unsealed")
