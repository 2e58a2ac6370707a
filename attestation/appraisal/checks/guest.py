"""Which guest this is: launch digest, host data, identity block, privilege level, chip, freshness."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache

from attestation.appraisal.check import Check, CheckOutcome, Facts, check, one_of, required
from attestation.report.abi import Report
from attestation.report.report_data import matches
from kbs.reference_values import GuestReference

# CoCo's initdata specification 0.1.0.
_INITDATA_ALGORITHMS = ("sha256", "sha384", "sha512")


def _in_list(
    identifier: str,
    name: str,
    actual: Callable[[Report], bytes],
    allowed: Callable[[GuestReference], frozenset[bytes] | None],
) -> Check:
    @check(identifier, with_reference=True)
    def evaluate(facts: Facts) -> CheckOutcome | None:
        wanted = allowed(required(facts.reference))
        if wanted is None:
            return None
        value = actual(facts.report)
        return CheckOutcome(value in wanted, f"{name} {value.hex()}", one_of(wanted))

    return evaluate


@check("guest/measurement", with_reference=True)
def measurement(facts: Facts) -> CheckOutcome:
    """The launch digest, one of the set (it depends on the number of vCPUs); or a trusted signer instead of a list."""
    actual, wanted = facts.report.measurement, required(facts.reference).measurements
    if not wanted:
        signers = "any: guest/id-key or guest/author-key decides"
        return CheckOutcome(True, f"MEASUREMENT {actual.hex()}", signers)
    return CheckOutcome(actual in wanted, f"MEASUREMENT {actual.hex()}", one_of(wanted))


@check("guest/host-data")
def host_data(facts: Facts) -> CheckOutcome | None:
    """The digest of initdata; both the reference values and the caller's appraisal policy may list it."""
    lists = [] if facts.host_data is None else [facts.host_data]
    if facts.reference is not None and facts.reference.host_data is not None:
        lists.append(facts.reference.host_data)
    if not lists:
        return None
    wanted = frozenset.intersection(*lists)
    actual = facts.report.host_data
    return CheckOutcome(actual in wanted, f"HOST_DATA {actual.hex()}", one_of(wanted))


@lru_cache(maxsize=4)  # one document is looked at once per candidate, and may have half a megabyte
def _host_data_of(document: bytes) -> frozenset[bytes]:
    return frozenset(hashlib.new(name, document).digest()[:32] for name in _INITDATA_ALGORITHMS)


@check("guest/initdata")
def initdata(facts: Facts) -> CheckOutcome | None:
    """HOST_DATA is the digest of the document that the guest has sent: it can show no other than it was launched with.

    By any of the algorithms that a document may name: none of them gives two documents one digest.
    """
    if facts.initdata is None:
        return None
    wanted = _host_data_of(facts.initdata)
    actual = facts.report.host_data
    return CheckOutcome(actual in wanted, f"HOST_DATA {actual.hex()}", f"the document's digest, {one_of(wanted)}")


id_key = _in_list("guest/id-key", "ID_KEY_DIGEST", lambda r: r.id_key_digest, lambda guest: guest.id_keys)


@check("guest/author-key", with_reference=True)
def author_key(facts: Facts) -> CheckOutcome | None:
    """Counts only with AUTHOR_KEY_EN; without it the digest means nothing."""
    wanted = required(facts.reference).author_keys
    if wanted is None:
        return None
    report = facts.report
    return CheckOutcome(
        report.author_key_en and report.author_key_digest in wanted,
        f"AUTHOR_KEY_EN={int(report.author_key_en)} AUTHOR_KEY_DIGEST {report.author_key_digest.hex()}",
        f"AUTHOR_KEY_EN=1 and {one_of(wanted)}",
    )


family_id = _in_list(
    "guest/family-id",
    "FAMILY_ID",
    lambda report: report.family_id,
    lambda guest: None if guest.family_id is None else frozenset({guest.family_id}),
)
image_id = _in_list(
    "guest/image-id",
    "IMAGE_ID",
    lambda report: report.image_id,
    lambda guest: None if guest.image_id is None else frozenset({guest.image_id}),
)
chip_id = _in_list("guest/chip-id", "CHIP_ID", lambda report: report.chip_id, lambda guest: guest.chip_ids)


@check("guest/svn", with_reference=True)
def svn(facts: Facts) -> CheckOutcome:
    wanted = required(facts.reference).min_guest_svn
    return CheckOutcome(facts.report.guest_svn >= wanted, f"GUEST_SVN {facts.report.guest_svn}", f"at least {wanted}")


@check("guest/vmpl", with_reference=True)
def vmpl(facts: Facts) -> CheckOutcome:
    allowed = required(facts.reference).vmpl
    wanted = " or ".join(map(str, sorted(allowed)))
    return CheckOutcome(facts.report.vmpl in allowed, f"VMPL {facts.report.vmpl}", f"VMPL {wanted}")


@check("guest/report-data")
def report_data(facts: Facts) -> CheckOutcome | None:
    """The value that the caller requires this guest to bind, in an accepted encoding."""
    if facts.report_data is None:
        return None
    return CheckOutcome(
        matches(facts.report.report_data, facts.report_data),
        f"REPORT_DATA {facts.report.report_data.hex()}",
        " or ".join(candidate.hex() for candidate in facts.report_data),
    )
