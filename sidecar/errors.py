"""Why nothing was published: the exit code by cause, a stable reason for programs, a sentence for people."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


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
    INTERNAL = 70  # EX_SOFTWARE of sysexits.h
    STOPPED = 143  # 128 + SIGTERM


# The one table, which --help prints.
CAUSES: Final = {
    Exit.PUBLISHED: "all secrets are published",
    Exit.CONFIGURATION: "the plan, the pod's token, the image or a volume is not as it must be",
    Exit.EVIDENCE: "this guest gives no usable evidence: a matter of the node",
    Exit.VERIFIER_REFUSED: "judged and refused; morphisms explain ID, beside the verifier, says why",
    Exit.VERIFIER_UNREACHABLE: "the verifier gave no answer that can be used and trusted, up to the deadline",
    Exit.VAULT_REFUSED: "Vault's policies do not open a path of the plan to this workload",
    Exit.VAULT_UNREACHABLE: "Vault is sealed, busy, not to be reached or not to be trusted, up to the deadline",
    Exit.SECRET_MISSING: "no such secret, version or key, or one that cannot be published as asked",
    Exit.DEADLINE: "the plan's time was over while everything still answered",
    Exit.NO_SPACE: "a memory volume is full, or would hold more than its bound",
    Exit.INTERNAL: "a mistake of ours; the line names class and place",
    Exit.STOPPED: "asked to stop (SIGTERM, SIGINT) before anything was published",
}


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
