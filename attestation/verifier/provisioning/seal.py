"""The seal: until every secret has come, this process proves itself, takes secrets, and serves nothing else."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from attestation.verifier.provisioning.held_secrets import HeldSecrets
from attestation.verifier.provisioning.unsealing import Unsealer
from attestation.verifier.responses import new_correlation_id, unavailable
from kbs.messages import ErrorType
from kbs.provision import SecretName
from server import logs
from server.messages import NO_INTAKE, Intake, Response


class Seal:
    """Whether this process still waits for secrets. Once open it stays open: a value that is held is not lost."""

    def __init__(self, held: HeldSecrets, unsealer: Unsealer | None) -> None:
        self._held = held
        self._unsealer = unsealer
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
        self, paths: Collection[str], intakes: Mapping[str, Intake], always: Collection[str]
    ) -> dict[str, Intake]:
        """The conditions of the paths, which answer 503 while sealed, but for those in `always`.

        They hold before a body is read, so a sealed verifier holds none.
        """
        guarded = {path: self._guarded(intakes.get(path, NO_INTAKE)) for path in set(paths) - set(always)}
        return {**intakes, **guarded}

    def _guarded(self, intake: Intake) -> Intake:
        return replace(intake, screen=lambda info: self._refusal() or intake.screen(info))

    def _refusal(self) -> Response | None:
        return unavailable(new_correlation_id(), 503, ErrorType.SEALED) if self.is_sealed else None

    def _announce(self) -> None:
        if self.is_sealed:
            logs.info("sealed", waits_for=[name.value for name in self.missing])
        else:
            logs.info("unsealed")
