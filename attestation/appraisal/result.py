"""The outcome of an appraisal: immutable, serialisable, and it explains itself in one line a check."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any


class Scope(StrEnum):
    """What was judged."""

    AUTHENTICITY = "authenticity"  # AMD's hardware made this report; nothing about which guest it is
    POLICY = "policy"  # also: the guest is one of the reference values


class Assurance(StrEnum):
    """What the appraisal policy rests on."""

    VM = "vm"
    WORKLOAD = "workload"


@dataclass(frozen=True, slots=True)
class Check:
    """One property. `ok` is None when it was not evaluated; `actual` then says what it waited for.

    `advice` is a remark that decides nothing.
    """

    id: str
    ok: bool | None
    actual: str
    required: str
    advice: str = ""

    def line(self) -> str:
        """One line for people, with the state in words."""
        state = {True: "ok", False: "FAILED", None: "not evaluated"}[self.ok]
        text = f"{self.id}: {state}: {self.actual}"
        if self.ok is not True and self.required:
            text += f", required {self.required}"
        return f"{text} ({self.advice})" if self.advice else text

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; `advice` only where there is one."""
        fields: dict[str, Any] = {"id": self.id, "ok": self.ok, "actual": self.actual, "required": self.required}
        return fields | ({"advice": self.advice} if self.advice else {})


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to believe one report, and why.

    `claims`: flat strings out of the report, `snp_*`; attested only when `believed`. `source`: the evidence source's
    name. `simulated`: the root that this rests on is not AMD's. `reference`: name of the guest reference values, None
    with scope authenticity.
    """

    checks: tuple[Check, ...]
    scope: Scope
    source: str
    simulated: bool
    product: str | None
    at: datetime
    claims: Mapping[str, str]
    reference: str | None = None
    assurance: Assurance | None = None

    @property
    def believed(self) -> bool:
        """Every check was evaluated and holds; False for a verdict without checks."""
        return bool(self.checks) and all(check.ok is True for check in self.checks)

    def __bool__(self) -> bool:
        raise TypeError("a verdict is not a truth value; ask for .believed")

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that were evaluated and do not hold."""
        return tuple(check for check in self.checks if check.ok is False)

    def summary(self) -> str:
        """The decision in one line, with everything a reader must not miss."""
        words = ["believed" if self.believed else "refused"]
        if self.simulated:
            words.append("SIMULATED: the root is not AMD's")
        if self.scope is Scope.AUTHENTICITY:
            words.append("authenticity only, no policy was applied")
        else:
            words.append(f"guest {self.reference}")
        if self.assurance is not None:
            words.append(f"assurance {self.assurance.value}")
        if not self.believed:
            words.append("failed: " + (", ".join(check.id for check in self.failed) or "nothing was evaluated"))
        return " · ".join(words)

    def explain(self) -> tuple[str, ...]:
        """One line a check, in order."""
        return tuple(check.line() for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` is the inverse."""
        return {
            "believed": self.believed,
            "scope": self.scope.value,
            "source": self.source,
            "simulated": self.simulated,
            "product": self.product,
            "reference": self.reference,
            "assurance": None if self.assurance is None else self.assurance.value,
            "at": self.at.isoformat(),
            "claims": dict(self.claims),
            "checks": [check.as_dict() for check in self.checks],
        }

    def to_json(self) -> str:
        """Compact JSON with sorted keys."""
        return json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))


def verdict_from_dict(document: Mapping[str, Any]) -> Verdict:
    """A stored verdict; `believed` is computed anew, never read. Raises KeyError, TypeError or ValueError."""
    return Verdict(
        checks=tuple(Check(**check) for check in document["checks"]),
        scope=Scope(document["scope"]),
        source=document["source"],
        simulated=document["simulated"],
        product=document["product"],
        reference=document["reference"],
        assurance=None if document["assurance"] is None else Assurance(document["assurance"]),
        at=datetime.fromisoformat(document["at"]),
        claims=MappingProxyType(dict(document["claims"])),
    )
