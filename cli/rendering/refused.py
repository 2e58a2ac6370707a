"""Why an object is not rendered."""

from __future__ import annotations

from collections.abc import Iterable

from measured.refusal import Refusal


class RefusedError(Exception):
    """The object cannot be measured: each reason with its field and what to write."""

    def __init__(self, refusals: Iterable[Refusal]) -> None:
        self.refusals = tuple(refusals)
        super().__init__("; ".join(map(str, self.refusals)))
