"""Why nothing was published: the exit code by cause, a stable reason for programs, a sentence for people."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of `morphisms-init`, by who has to act. The exec helper's (80 to 87) and the shells' are elsewhere."""

    PUBLISHED = 0
    CONFIGURATION = 10  # the plan, the pod's token or the volumes: whoever writes the annotations or the configuration
    EVIDENCE = 11  # no usable evidence from this guest: whoever runs the node
    VERIFIER_REFUSED = 12  # judged and refused; `morphisms explain ID` beside the verifier says why
    VERIFIER_UNREACHABLE = 13  # no answer, a busy one, or one that cannot be trusted, up to the deadline
    VAULT_REFUSED = 14  # the token opens no such path: Vault's policy
    VAULT_UNREACHABLE = 15  # no answer, sealed, busy, or not to be trusted, up to the deadline
    SECRET_MISSING = 16  # no such secret, version or key, or one that cannot be published as asked
    DEADLINE = 17  # the plan's time was over while everything still answered
    NO_SPACE = 18  # the volume is full, or would hold more than its bound
    INTERNAL = 70  # our mistake (EX_SOFTWARE of sysexits.h): class and place of the exception
    STOPPED = 143  # SIGTERM or SIGINT (128 + 15): asked to end before anything was published


class RefusalError(Exception):
    """No secrets, and why. `detail` names fields and places and never holds a value, a token or evidence.

    `again`: the same question may be answered later, after `retry_after` seconds where the other side said so.
    """

    def __init__(
        self,
        exit_code: Exit,
        reason: str,
        detail: str,
        *,
        correlation_id: str = "",
        again: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{detail} [{reason}]")
        self.exit_code = exit_code
        self.reason = reason
        self.detail = detail
        self.correlation_id = correlation_id
        self.again = again
        self.retry_after = retry_after

    @property
    def line(self) -> str:
        """One line for people."""
        identifier = f", correlation id {self.correlation_id}" if self.correlation_id else ""
        return f"morphisms-init: {self.detail} [{self.reason}{identifier}]"


def internal(error: BaseException) -> RefusalError:
    """What to tell of an exception nobody expected: class and place, because its text may hold anything."""
    place, trace = "", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return RefusalError(
        Exit.INTERNAL, "internal-error", f"unexpected {type(error).__name__} at {place}; please report it"
    )
