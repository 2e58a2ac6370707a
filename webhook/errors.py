"""The errors of admission; `decide` raises none of them, it answers with a refusal that carries their message.

    ValueError
    └── AdmissionError           unusable input; the message names the place and never repeats a value
        ├── ReviewError          the body is not an AdmissionReview v1
        ├── MalformedError       an object does not have the shape of its kind
        └── BadReferenceError    a text is not a usable Vault reference

`webhook.cluster.file.SnapshotFileError` is a ConfigurationError of `server`: a server does not start with such a file.
`plan.document.PlanError` and `measured.initdata.InitdataError` belong to those packages.
"""

from __future__ import annotations


class AdmissionError(ValueError):
    """Unusable input. The message names the place, says what is wrong, and never repeats a value."""


class ReviewError(AdmissionError):
    """The body is not an AdmissionReview v1. `uid` is the request's, None where it cannot be read."""

    def __init__(self, message: str, uid: str | None = None) -> None:
        super().__init__(message)
        self.uid = uid


class MalformedError(AdmissionError):
    """An object does not have the shape of its kind; the message names the place in it."""


class BadReferenceError(AdmissionError):
    """A text is not a usable Vault reference; the message continues a sentence about the field that holds it.

    `may_be_text`: its author may have meant something else, such as a URL.
    """

    def __init__(self, message: str, *, may_be_text: bool = False) -> None:
        super().__init__(message)
        self.may_be_text = may_be_text
