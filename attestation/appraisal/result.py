"""The outcome of an appraisal: immutable, serialisable, and it explains itself in one line per check."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

CHECKED, UNCHECKED = "checked", "unchecked"
# Checks that together show that the certificates in use are not revoked.
_REVOCATION = ("crl/fresh", "crl/intermediate", "crl/leaf")


class Scope(StrEnum):
    """The subject of an appraisal."""

    AUTHENTICITY = "authenticity"  # AMD's hardware made this report; nothing about which guest it is
    POLICY = "policy"  # also: the guest is one of the reference values


class Assurance(StrEnum):
    """The evidence that an appraisal policy rests on."""

    VM = "vm"
    WORKLOAD = "workload"


class CheckResult(NamedTuple):
    """One property. `ok` is None when it was not evaluated; `actual` then names the checks that it needs.

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
        if self.advice:
            fields["advice"] = self.advice
        return fields


class AttestationResult(NamedTuple):
    """The decision on one report, and the reason: an Attestation Result (RFC 9334).

    `claims`: flat strings out of the report, `snp_*`; attested only when `accepted`. `source`: the evidence source's
    name. `simulated`: the root that this rests on is not AMD's. `reference`: name of the guest reference values, None
    with scope authenticity.

    Its stored and printed forms say "believed" for `accepted`: operators search for that word.
    """

    checks: tuple[CheckResult, ...]
    scope: Scope
    source: str
    simulated: bool
    product: str | None
    at: datetime
    claims: Mapping[str, str]
    reference: str | None = None
    assurance: Assurance | None = None

    @property
    def accepted(self) -> bool:
        """Every check was evaluated and holds; False for a result without checks."""
        return bool(self.checks) and all(check.ok is True for check in self.checks)

    def __bool__(self) -> bool:
        raise TypeError("an attestation result is not a truth value; use .accepted")

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        """The checks that were evaluated and do not hold."""
        return tuple(check for check in self.checks if check.ok is False)

    @property
    def revocation(self) -> str:
        """`checked` against a fresh list of the leaf's kind, else `unchecked`."""
        return revocation(self.checks)

    def summary(self) -> str:
        """The decision in one line, with everything a reader must not miss."""
        words = ["believed" if self.accepted else "refused"]
        if self.simulated:
            words.append("SIMULATED: the root is not AMD's")
        if self.scope is Scope.AUTHENTICITY:
            words.append("authenticity only, no policy was applied")
        else:
            words.append(f"guest {self.reference}")
        if self.assurance is not None:
            words.append(f"assurance {self.assurance.value}")
        if self.accepted and self.revocation != CHECKED:
            words.append("revocation unchecked")
        if not self.accepted:
            words.append("failed: " + (", ".join(check.id for check in self.failed) or "nothing was evaluated"))
        return " · ".join(words)

    def explain(self) -> tuple[str, ...]:
        """One line per check, in order."""
        return tuple(check.line() for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; `result_from_dict` is the inverse."""
        return {
            "believed": self.accepted,
            "scope": self.scope.value,
            "source": self.source,
            "simulated": self.simulated,
            "product": self.product,
            "reference": self.reference,
            "assurance": None if self.assurance is None else self.assurance.value,
            "revocation": self.revocation,
            "at": self.at.isoformat(),
            "claims": dict(self.claims),
            "checks": [check.as_dict() for check in self.checks],
        }


def revocation(checks: Iterable[CheckResult]) -> str:
    """As the property, of the checks alone."""
    passed = {check.id for check in checks if check.ok is True and not check.advice}
    return CHECKED if passed.issuperset(_REVOCATION) else UNCHECKED


def result_from_dict(document: Mapping[str, Any]) -> AttestationResult:
    """A stored result; `accepted` is computed anew, never read. Raises KeyError, TypeError or ValueError."""
    return AttestationResult(
        checks=tuple(CheckResult(**check) for check in document["checks"]),
        scope=Scope(document["scope"]),
        source=document["source"],
        simulated=document["simulated"],
        product=document["product"],
        reference=document["reference"],
        assurance=None if document["assurance"] is None else Assurance(document["assurance"]),
        at=datetime.fromisoformat(document["at"]),
        claims=MappingProxyType(dict(document["claims"])),
    )
