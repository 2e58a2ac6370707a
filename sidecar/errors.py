"""Why nothing was published: an exit code by cause, a stable reason for programs, a sentence for people.

    SidecarError
    ├── UnattestedKeyError
    ├── StoppedError      (sidecar/shutdown.py) SIGTERM or SIGINT came first
    └── TokenGoneError    (sidecar/vault/session.py) Vault no longer knows the token

Errors of other packages (EvidenceError, WireError, PlanError, OSError, …) are translated where they are caught.
"""

from __future__ import annotations

from sidecar.reasons import Exit, Reason


class SidecarError(Exception):
    """No secrets, and why. `detail` names fields and paths and never holds a value, a token or evidence.

    `exit_code`: only where it is not the reason's own. `retryable`: the same request may succeed later, after
    `retry_after` seconds where the other side said so.
    """

    def __init__(
        self,
        reason: Reason,
        detail: str,
        *,
        exit_code: Exit | None = None,
        correlation_id: str = "",
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{detail} [{reason}]")
        self.reason = reason
        self.detail = detail
        self.exit_code = reason.exit_code if exit_code is None else exit_code
        self.correlation_id = correlation_id
        self.retryable = retryable
        self.retry_after = retry_after

    @property
    def line(self) -> str:
        """One line for people."""
        identifier = f", correlation id {self.correlation_id}" if self.correlation_id else ""
        return f"morphisms-init: {self.detail} [{self.reason}{identifier}]"


class UnattestedKeyError(SidecarError):
    """A new connection to the verifier shows a key that it has not proven, and nothing was sent on it.

    Not retryable by the step that met it: only an attempt from the beginning asks for proof of the new key.
    """

    def __init__(self) -> None:
        super().__init__(
            Reason.VERIFIER_SESSION,
            "a new connection to the verifier shows another key than the one that it proved: another replica answers",
        )


def internal_error(error: BaseException) -> SidecarError:
    """An unexpected exception by its class and place only, because its text may hold anything."""
    place, trace = "", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return SidecarError(Reason.INTERNAL_ERROR, f"unexpected {type(error).__name__} at {place}; please report it")
