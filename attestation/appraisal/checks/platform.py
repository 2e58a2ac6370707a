"""The machine's configuration: PLATFORM_INFO and the mitigation vectors."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from attestation.appraisal.check import Check, CheckOutcome, Facts, check, required
from attestation.report.abi import MITIGATION_VERSION, PLATFORM_INFO_BITS, platform_info_names
from kbs.reference_values import GuestReference

_ALIAS_CHECK = 1 << PLATFORM_INFO_BITS["ALIAS_CHECK_COMPLETE"]


@lru_cache(maxsize=256)
def _names(value: int) -> str:
    return " ".join(platform_info_names(value)) or "no bit"


@check("platform/required", with_reference=True)
def required_bits(facts: Facts) -> CheckOutcome:
    actual, wanted = facts.report.platform_info, required(facts.reference).platform_require
    # CVE-2024-21944: the machine has not shown that its memory modules have no aliases. Older firmware cannot.
    advice = "" if actual & _ALIAS_CHECK else "ALIAS_CHECK_COMPLETE is not set"
    return CheckOutcome(actual & wanted == wanted, _names(actual), f"{_names(wanted)} set", advice)


@check("platform/forbidden", with_reference=True)
def forbidden_bits(facts: Facts) -> CheckOutcome:
    actual, forbidden = facts.report.platform_info, required(facts.reference).platform_forbid
    return CheckOutcome(not actual & forbidden, _names(actual), f"{_names(forbidden)} set: forbidden")


def _mitigations(
    identifier: str, name: str, actual: Callable[[Facts], int], floor: Callable[[GuestReference], int]
) -> Check:
    @check(identifier, with_reference=True)
    def evaluate(facts: Facts) -> CheckOutcome | None:
        wanted = floor(required(facts.reference))
        if not wanted:
            return None
        # Older reports have no such vector; their bytes are zero and miss every required bit.
        value = actual(facts) if facts.report.version >= MITIGATION_VERSION else 0
        return CheckOutcome(value & wanted == wanted, f"{name} 0x{value:x}", f"all bits of 0x{wanted:x}")

    return evaluate


launch_mitigations = _mitigations(
    "mitigation/launch",
    "LAUNCH_MIT_VECTOR",
    lambda facts: facts.report.launch_mit_vector,
    lambda guest: guest.launch_mitigations,
)
current_mitigations = _mitigations(
    "mitigation/current",
    "CURRENT_MIT_VECTOR",
    lambda facts: facts.report.current_mit_vector,
    lambda guest: guest.current_mitigations,
)
