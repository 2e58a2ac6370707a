"""What can go wrong between this process and an API server.

KubernetesError
  CredentialsError    this process cannot say who it is, or whom it trusts
  UnreachableError    no answer: no connection, TLS refused, a broken stream, or a deadline passed
  StatusError         the API server answered, with another HTTP status than success
  AnswerError         the API server answered with content that is too large or not what was requested

No text holds a URL, a token or content.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

CONFLICT: Final = 409
GONE: Final = 410
UNPROCESSABLE: Final = 422


class KubernetesError(Exception):
    """Any of the below."""

    @property
    def reason(self) -> str:
        """One stable word for a log line."""
        return type(self).__name__


class CredentialsError(KubernetesError):
    """The message names the file or variable and says what to do."""


class UnreachableError(KubernetesError):
    """`cause` is the class of what happened on the way."""

    def __init__(self, text: str, cause: str) -> None:
        super().__init__(text)
        self.cause = cause

    @property
    def reason(self) -> str:
        """The class of the cause."""
        return self.cause


class StatusError(KubernetesError):
    """`status` is the HTTP status; `retry_after_seconds` is 0 when the server gives none."""

    def __init__(self, status: int, retry_after_seconds: float = 0.0) -> None:
        super().__init__(f"the API server answered with HTTP status {status}")
        self.status = status
        self.retry_after_seconds = retry_after_seconds

    @classmethod
    def from_response(cls, status: int, headers: Mapping[str, str]) -> StatusError:
        """The error that a response with this status and these headers is."""
        seconds = 0.0
        with suppress(ValueError):  # a date in place of seconds: the caller's back-off is enough
            seconds = max(0.0, float(headers.get("Retry-After", "0")))
        return cls(status, seconds)

    @property
    def reason(self) -> str:
        """`status`; the number is a field of its own."""
        return "status"

    @property
    def is_outdated(self) -> bool:
        """Whether the object had changed since it was read, so that the guarded write did not apply."""
        return self.status in (CONFLICT, UNPROCESSABLE)


class AnswerError(KubernetesError):
    """The message says what is wrong with the content, such as `larger than 1048576 bytes`."""


def status_of(error: BaseException) -> int | None:
    """The HTTP status of an error that has one, for a log line."""
    return error.status if isinstance(error, StatusError) else None


def reason_of(error: BaseException) -> str:
    """One word for a log line, also for errors from elsewhere."""
    return error.reason if isinstance(error, KubernetesError) else type(error).__name__
