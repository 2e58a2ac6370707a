"""POLICY: what the guest's owner allows the host (AMD 56860, table "Guest Policy")."""

from __future__ import annotations

from collections.abc import Callable

from attestation.appraisal.check import Check, CheckOutcome, Facts, check, required
from attestation.report.abi import GuestPolicy
from kbs.reference_values import RequiredGuestPolicy


@check("policy/reserved")
def reserved(facts: Facts) -> CheckOutcome:
    policy = GuestPolicy(facts.report.policy)
    return CheckOutcome(
        policy.reserved_one and not policy.reserved, f"POLICY 0x{policy.value:x}", "bit 17 one, bits 63:26 zero"
    )


@check("policy/debug")
def debug(facts: Facts) -> CheckOutcome:
    """The host reads and writes such a guest's memory: no policy accepts that."""
    actual = GuestPolicy(facts.report.policy).debug
    return CheckOutcome(not actual, f"DEBUG={int(actual)}", "DEBUG=0")


@check("policy/exact", with_reference=True)
def exact(facts: Facts) -> CheckOutcome | None:
    wanted = required(facts.reference).policy.exact
    if wanted is None:
        return None
    return CheckOutcome(facts.report.policy == wanted, f"POLICY 0x{facts.report.policy:x}", f"POLICY 0x{wanted:x}")


def _forbidden_unless(
    identifier: str, name: str, actual: Callable[[GuestPolicy], bool], allowed: Callable[[RequiredGuestPolicy], bool]
) -> Check:
    @check(identifier, with_reference=True)
    def evaluate(facts: Facts) -> CheckOutcome:
        bit, may = actual(GuestPolicy(facts.report.policy)), allowed(required(facts.reference).policy)
        return CheckOutcome(may or not bit, f"{name}={int(bit)}", f"{name} 0 or 1" if may else f"{name}=0")

    return evaluate


def _demanded_if(
    identifier: str, name: str, actual: Callable[[GuestPolicy], bool], demanded: Callable[[RequiredGuestPolicy], bool]
) -> Check:
    @check(identifier, with_reference=True)
    def evaluate(facts: Facts) -> CheckOutcome | None:
        if not demanded(required(facts.reference).policy):
            return None
        bit = actual(GuestPolicy(facts.report.policy))
        return CheckOutcome(bit, f"{name}={int(bit)}", f"{name}=1")

    return evaluate


migrate_ma = _forbidden_unless(
    "policy/migrate-ma", "MIGRATE_MA", lambda policy: policy.migrate_ma, lambda rule: rule.migrate_ma
)
smt = _forbidden_unless("policy/smt", "SMT", lambda policy: policy.smt, lambda rule: rule.smt)
cxl = _forbidden_unless("policy/cxl", "CXL_ALLOW", lambda policy: policy.cxl_allow, lambda rule: rule.cxl_allow)
single_socket = _demanded_if(
    "policy/single-socket", "SINGLE_SOCKET", lambda policy: policy.single_socket, lambda rule: rule.single_socket
)
aes_256_xts = _demanded_if(
    "policy/aes-256-xts", "MEM_AES_256_XTS", lambda policy: policy.mem_aes_256_xts, lambda rule: rule.mem_aes_256_xts
)
rapl = _demanded_if("policy/rapl", "RAPL_DIS", lambda policy: policy.rapl_dis, lambda rule: rule.rapl_dis)
ciphertext_hiding = _demanded_if(
    "policy/ciphertext-hiding",
    "CIPHERTEXT_HIDING_DRAM",
    lambda policy: policy.ciphertext_hiding_dram,
    lambda rule: rule.ciphertext_hiding_dram,
)
page_swap = _demanded_if(
    "policy/page-swap",
    "PAGE_SWAP_DISABLE",
    lambda policy: policy.page_swap_disable,
    lambda rule: rule.page_swap_disable,
)


@check("policy/abi", with_reference=True)
def abi(facts: Facts) -> CheckOutcome:
    """The least firmware ABI the guest runs on, as its owner demanded."""
    policy, (major, minor) = GuestPolicy(facts.report.policy), required(facts.reference).policy.min_abi
    return CheckOutcome(
        (policy.abi_major, policy.abi_minor) >= (major, minor),
        f"ABI {policy.abi_major}.{policy.abi_minor}",
        f"ABI at least {major}.{minor}",
    )
