"""`morphisms report`: shows an SEV-SNP report, or appraises it."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attestation.appraisal.appraise import Expectation, appraise
from attestation.appraisal.result import CHECKED, AttestationResult
from attestation.errors import AttestationError, CertificateError, FormatError
from attestation.pki.certificates import Certificate, parse_certificate, parse_certificates
from attestation.pki.crl import parse_crl
from attestation.pki.endorsements import Endorsements, from_table, guest_supplied, product_line
from attestation.pki.roots import TrustAnchors, amd_trust_anchors
from attestation.report.abi import FirmwareVersion, GuestPolicy, SigningKey, platform_info_names
from attestation.report.certificate_table import parse_certificate_table
from attestation.report.envelopes import Evidence, from_configfs, read_evidence
from attestation.report.report_data import DIGEST_SIZE, REPORT_DATA_SIZE, accepted
from attestation.report.tcb import decode_tcb
from cli.support.checks import rows
from cli.support.revocation_lists import files_of, read_crls
from kbs.reference_values import REQUIRE_CRL, SOFT_CRL, GuestReference
from server.files import UnusableInputError, read_bounded
from server.guest_entries import load_guests
from server.yaml.strict import ConfigurationError

HELP = "show an SEV-SNP attestation report, or appraise it"
EXAMPLE = "morphisms report verify report.bin --vek vcek.der --certs amd/ --roots amd/ --policy guest.yaml"

ACCEPTED, REFUSED, UNUSABLE, INCOMPLETE = 0, 1, 2, 3


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare `show` and `verify`."""
    commands = parser.add_subparsers(dest="report_command", metavar="show|verify", required=True)
    show = commands.add_parser("show", help="every field of a report, without an appraisal")
    verify = commands.add_parser(
        "verify",
        help="every check of a report; exit 0 accepted, 1 refused, 2 unusable input, 3 not everything was checked",
        description="Exit 0 accepted, 1 refused, 2 unusable input, 3 nothing was refused but no --policy was applied or"
        " revocation was not checked, and neither --authenticity-only nor --no-revocation says that this is intended.",
    )
    for command in (show, verify):
        command.add_argument(
            "file",
            metavar="FILE",
            type=Path,
            help="report, ioctl response, CoCo evidence JSON, Azure HCL envelope, or a folder with outblob and auxblob",
        )
        command.add_argument("--json", action="store_true", help="one JSON document on stdout")
    verify.add_argument("--vek", metavar="FILE", type=Path, help="VCEK or VLEK, DER, PEM or a GHCB certificate table")
    verify.add_argument("--certs", metavar="DIR", type=Path, help="ASKs and ASVKs, PEM or DER")
    verify.add_argument("--roots", metavar="DIR", type=Path, help="AMD's roots, PEM or DER; their digests are pinned")
    lists = verify.add_mutually_exclusive_group()
    lists.add_argument("--crls", metavar="DIR", type=Path, help="revocation lists for VCEKs")
    lists.add_argument("--no-revocation", action="store_true", help="revocation need not be checked")
    verify.add_argument("--vlek-crls", metavar="DIR", type=Path, help="revocation lists for VLEKs")
    guest = verify.add_mutually_exclusive_group()
    guest.add_argument("--policy", metavar="FILE", type=Path, help="YAML with one named guest's reference values")
    guest.add_argument(
        "--authenticity-only", action="store_true", help="any guest will do, if AMD's hardware made this report of it"
    )
    verify.add_argument(
        "--report-data",
        metavar="HEX",
        help="48 bytes: the bound digest in either encoding; 64 bytes: REPORT_DATA itself",
    )
    verify.add_argument("--at", metavar="RFC3339", help="check validity at this time instead of now")
    verify.add_argument(
        "--simulated-root", metavar="FILE", type=Path, help="also trust this root of `morphisms simulated-hardware`"
    )


def run(arguments: argparse.Namespace) -> int:
    """Exit code: 0 shown or accepted, 1 refused, 2 unusable input, 3 accepted by less than all checks."""
    try:
        evidence = _read_evidence(arguments.file)
        if arguments.report_command == "show":
            return _show(evidence, as_json=arguments.json)
        return _verify(evidence, arguments)
    except (UnusableInputError, AttestationError) as error:
        print(f"morphisms report: {error}", file=sys.stderr)
        return UNUSABLE


def _verify(evidence: Evidence, arguments: argparse.Namespace) -> int:
    reference = None if arguments.policy is None else _read_policy(arguments.policy)
    now = datetime.now(UTC) if arguments.at is None else _time(arguments.at)
    result = appraise(
        evidence,
        _endorsements(evidence, arguments),
        _anchors(arguments),
        now,
        Expectation(
            reference=reference,
            report_data=None if arguments.report_data is None else _report_data(arguments.report_data),
            revocation=REQUIRE_CRL if arguments.crls or arguments.vlek_crls else SOFT_CRL,
        ),
    )
    if arguments.json:
        print(json.dumps(result.as_dict(), indent=2))
    else:
        _print_result(result)
    if reference is None:
        print("no --policy: this is about authenticity only, not about which guest it is", file=sys.stderr)
    if result.revocation != CHECKED:
        print("revocation was not checked: --crls DIR (--vlek-crls DIR) has the lists", file=sys.stderr)
    if result.simulated:
        print("simulated: the root is not AMD's, this verdict says nothing about real hardware", file=sys.stderr)
    if not result.accepted:
        return REFUSED
    is_complete = (reference is not None or arguments.authenticity_only) and (
        result.revocation == CHECKED or arguments.no_revocation
    )
    return ACCEPTED if is_complete else INCOMPLETE


def _print_result(result: AttestationResult) -> None:
    for row in rows(result.checks):
        print(row)
    print(result.summary())


def _show(evidence: Evidence, *, as_json: bool) -> int:
    fields = _fields(evidence)
    if as_json:
        print(json.dumps(fields, indent=2))
        return ACCEPTED
    width = max(map(len, fields))
    for name, value in fields.items():
        print(f"{name:{width}}  {_text(value)}")
    return ACCEPTED


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return " ".join(f"{part}={number}" for part, number in value.items())
    return str(value)


def _fields(evidence: Evidence) -> dict[str, Any]:
    """Every field under AMD's name, digests in hexadecimal, TCBs in the line's components where the line is known."""
    report = evidence.report
    line = product_line(report, guest_supplied(evidence))

    def tcb(raw: bytes) -> Any:
        return raw.hex() if line is None else decode_tcb(raw, line.tcb_layout).as_dict()

    def firmware(version: FirmwareVersion) -> str:
        return str(version)

    keys = {int(key): key.name for key in SigningKey}
    return {
        "ENVELOPE": evidence.envelope.value,
        "CERTIFICATES": [entry.kind for entry in evidence.certificates],
        "PRODUCT": "unknown without CPUID and certificate" if line is None else line.name,
        "VERSION": report.version,
        "GUEST_SVN": report.guest_svn,
        "POLICY": f"0x{report.policy:x}",
        "POLICY_BITS": _policy_bits(GuestPolicy(report.policy)),
        "FAMILY_ID": report.family_id.hex(),
        "IMAGE_ID": report.image_id.hex(),
        "VMPL": report.vmpl,
        "SIGNATURE_ALGO": report.signature_algo,
        "CURRENT_TCB": tcb(report.current_tcb),
        "PLATFORM_INFO": f"0x{report.platform_info:x}",
        "PLATFORM_INFO_BITS": list(platform_info_names(report.platform_info)),
        "AUTHOR_KEY_EN": int(report.author_key_en),
        "MASK_CHIP_KEY": int(report.mask_chip_key),
        "SIGNING_KEY": keys.get(report.signing_key, str(report.signing_key)),
        "REPORT_DATA": report.report_data.hex(),
        "MEASUREMENT": report.measurement.hex(),
        "HOST_DATA": report.host_data.hex(),
        "ID_KEY_DIGEST": report.id_key_digest.hex(),
        "AUTHOR_KEY_DIGEST": report.author_key_digest.hex(),
        "REPORT_ID": report.report_id.hex(),
        "REPORT_ID_MA": report.report_id_ma.hex(),
        "REPORTED_TCB": tcb(report.reported_tcb),
        "CPUID_FAM_ID": f"0x{report.cpuid_fam_id:02x}",
        "CPUID_MOD_ID": f"0x{report.cpuid_mod_id:02x}",
        "CPUID_STEP": report.cpuid_step,
        "CHIP_ID": report.chip_id.hex(),
        "COMMITTED_TCB": tcb(report.committed_tcb),
        "CURRENT_FIRMWARE": firmware(report.current_firmware),
        "COMMITTED_FIRMWARE": firmware(report.committed_firmware),
        "LAUNCH_TCB": tcb(report.launch_tcb),
        "LAUNCH_MIT_VECTOR": f"0x{report.launch_mit_vector:x}",
        "CURRENT_MIT_VECTOR": f"0x{report.current_mit_vector:x}",
    }


def _policy_bits(policy: GuestPolicy) -> list[str]:
    bits = {
        "SMT": policy.smt,
        "MIGRATE_MA": policy.migrate_ma,
        "DEBUG": policy.debug,
        "SINGLE_SOCKET": policy.single_socket,
        "CXL_ALLOW": policy.cxl_allow,
        "MEM_AES_256_XTS": policy.mem_aes_256_xts,
        "RAPL_DIS": policy.rapl_dis,
        "CIPHERTEXT_HIDING_DRAM": policy.ciphertext_hiding_dram,
        "PAGE_SWAP_DISABLE": policy.page_swap_disable,
    }
    return [f"ABI>={policy.abi_major}.{policy.abi_minor}", *(name for name, is_set in bits.items() if is_set)]


def _read_evidence(path: Path) -> Evidence:
    try:
        if not path.is_dir():
            return read_evidence(read_bounded(path))
        auxiliary = path / "auxblob"
        return from_configfs(read_bounded(path / "outblob"), read_bounded(auxiliary) if auxiliary.exists() else b"")
    except FormatError as error:
        raise UnusableInputError(f"{path}: {error}") from None


def _certificates(folder: Path) -> list[Certificate]:
    """All certificates of a folder. Other files are named on stderr and left out."""
    found: list[Certificate] = []
    for path, data in files_of(folder):
        try:
            found += parse_certificates(data)
        except CertificateError as error:
            if not _is_crl_file(data):
                print(f"{path}: {error}; left out", file=sys.stderr)
    return found


def _is_crl_file(data: bytes) -> bool:
    try:
        return parse_crl(data) is not None
    except CertificateError:
        return False


def _operator_certificates(arguments: argparse.Namespace) -> list[Certificate]:
    """Both folders together: AMD serves issuer and root in one file, and a root counts by its digest alone."""
    folders = dict.fromkeys(folder for folder in (arguments.roots, arguments.certs) if folder is not None)
    return [certificate for folder in folders for certificate in _certificates(folder)]


def _endorsements(evidence: Evidence, arguments: argparse.Namespace) -> Endorsements:
    given = guest_supplied(evidence)
    if arguments.vek is not None:
        named = _named_leaf(arguments.vek)
        given = Endorsements(named.leaf, (*named.intermediates, *given.intermediates))
    return Endorsements(
        given.leaf,
        (*_operator_certificates(arguments), *given.intermediates),
        (*read_crls(arguments.crls), *read_crls(arguments.vlek_crls, for_vleks=True)),
    )


def _named_leaf(path: Path) -> Endorsements:
    """A certificate table is tried first: its blobs may be PEM, which would be found in it as in any file."""
    data = read_bounded(path)
    try:
        found = from_table(parse_certificate_table(data))
    except FormatError:
        found = Endorsements()
    if found.leaf is not None:
        return found
    try:
        certificates = parse_certificates(data)
    except CertificateError as error:
        raise UnusableInputError(f"{path}: {error}") from None
    leaf = next((certificate for certificate in certificates if not certificate.is_ca), certificates[0])
    return Endorsements(leaf, tuple(certificate for certificate in certificates if certificate is not leaf))


def _anchors(arguments: argparse.Namespace) -> TrustAnchors:
    anchors = amd_trust_anchors(_operator_certificates(arguments))
    if arguments.simulated_root is None:
        return anchors
    try:
        return anchors.with_simulated(parse_certificate(read_bounded(arguments.simulated_root)))
    except CertificateError as error:
        raise UnusableInputError(f"{arguments.simulated_root}: {error}") from None


def _read_policy(path: Path) -> GuestReference:
    """The only guest of a file, read as the verifier reads it."""
    try:
        guests = load_guests(path)
    except ConfigurationError as error:
        raise UnusableInputError(str(error)) from None
    if len(guests) != 1:
        raise UnusableInputError(f"{path}: has {len(guests)} guests, required one, such as kata-3.21-snp: {{…}}")
    return next(iter(guests.values()))


def _report_data(text: str) -> tuple[bytes, ...]:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        raise UnusableInputError("--report-data is not hexadecimal") from None
    if len(value) == DIGEST_SIZE:
        return accepted(value)
    if len(value) == REPORT_DATA_SIZE:
        return (value,)
    raise UnusableInputError(f"--report-data has {len(value)} bytes, required {DIGEST_SIZE} or {REPORT_DATA_SIZE}")


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UnusableInputError(f"--at is {text!r}, required RFC 3339, for example 2025-12-01T00:00:00Z") from None
    if moment.tzinfo is None:
        raise UnusableInputError(f"--at {text!r} has no time zone, for example 2025-12-01T00:00:00Z")
    return moment
