"""Firmware security versions: the certificate's against the report's, and all of them against the floors.

Component by component, in the line's own layout.
"""

from __future__ import annotations

from collections.abc import Callable

from attestation.appraisal.check import Check, CheckOutcome, Facts, check, required
from attestation.report.abi import FirmwareVersion
from attestation.report.tcb import Tcb, encode_tcb
from kbs.reference_values import GuestReference, TcbFloor


@check("tcb/certificate", needs=("certificates/leaf", "product/line"))
def certificate(facts: Facts) -> CheckOutcome:
    """The leaf's key is derived for one TCB; the report names it as REPORTED_TCB, reserved bytes included."""
    line, leaf = required(facts.line), required(facts.leaf)
    actual = leaf.vek.tcb(line)
    reported = facts.report.reported_tcb
    wanted = f"REPORTED_TCB {facts.tcb(reported)} ({reported.hex()})"
    if actual is None:
        has = " ".join(f"{name}={version}" for name, version in leaf.vek.spl.items()) or "none"
        return CheckOutcome(False, f"certificate has {has}, not {line.name}'s components", wanted)
    return CheckOutcome(encode_tcb(actual, line.tcb_layout) == reported, f"certificate {actual}", wanted)


def _at_most_current(identifier: str, name: str, field: str) -> Check:
    @check(identifier, needs=("product/line",))
    def evaluate(facts: Facts) -> CheckOutcome:
        actual, current = facts.tcb(getattr(facts.report, field)), facts.tcb(facts.report.current_tcb)
        return CheckOutcome(current.at_least(actual), f"{name} {actual}", f"at most CURRENT_TCB {current}")

    return evaluate


reported_at_most_current = _at_most_current("tcb/reported-current", "REPORTED_TCB", "reported_tcb")
committed_at_most_current = _at_most_current("tcb/committed-current", "COMMITTED_TCB", "committed_tcb")


@check("tcb/provisional", needs=("product/line",), with_reference=True)
def provisional(facts: Facts) -> CheckOutcome | None:
    """Uncommitted firmware can be rolled back. Real providers run it, so the reference values decide."""
    if required(facts.reference).provisional_firmware:
        return None
    current, committed = facts.tcb(facts.report.current_tcb), facts.tcb(facts.report.committed_tcb)
    versions = (facts.report.current_firmware, facts.report.committed_firmware)
    return CheckOutcome(
        current == committed and versions[0] == versions[1],
        f"CURRENT {current}, firmware {versions[0]}",
        f"COMMITTED {committed}, firmware {versions[1]}",
    )


def _floor(identifier: str, name: str, field: str, floor: Callable[[GuestReference], TcbFloor]) -> Check:
    @check(identifier, needs=("product/reference",), with_reference=True)
    def evaluate(facts: Facts) -> CheckOutcome:
        actual, wanted = facts.tcb(getattr(facts.report, field)), _tcb(floor(required(facts.reference)))
        return CheckOutcome(actual.at_least(wanted), f"{name} {actual}", f"at least {wanted} in every component")

    return evaluate


def _tcb(floor: TcbFloor) -> Tcb:
    return Tcb(floor.bootloader, floor.tee, floor.snp, floor.microcode, floor.fmc)


reported_floor = _floor("tcb/reported-floor", "REPORTED_TCB", "reported_tcb", lambda guest: guest.min_tcb)
committed_floor = _floor("tcb/committed-floor", "COMMITTED_TCB", "committed_tcb", lambda guest: guest.min_committed_tcb)
launch_floor = _floor("tcb/launch-floor", "LAUNCH_TCB", "launch_tcb", lambda guest: guest.min_launch_tcb)


def _firmware(identifier: str, name: str, version: Callable[[Facts], FirmwareVersion]) -> Check:
    @check(identifier, with_reference=True)
    def evaluate(facts: Facts) -> CheckOutcome | None:
        actual, wanted = version(facts), required(facts.reference).min_firmware
        if wanted is None:
            return None
        return CheckOutcome(actual >= wanted, f"{name} firmware {actual}", f"at least {FirmwareVersion(*wanted)}")

    return evaluate


current_firmware = _firmware("firmware/current", "current", lambda facts: facts.report.current_firmware)
committed_firmware = _firmware("firmware/committed", "committed", lambda facts: facts.report.committed_firmware)
