"""`morphisms kms`: which verifier answers, what it is compared with, and the secrets that it starts without."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from joserfc.jwk import ECKey

from attestation.pki.crl import RevocationList
from attestation.verifier.configuration import load_configuration
from cli.kms.connection import addresses_of, check_ca
from cli.kms.issue import issue, read_guests, read_issue
from cli.kms.judge import Demand, Judgement, NotAttestedError, judge, read_demand
from cli.kms.keys import make_key, read_key
from cli.kms.provisioning import Outcome, provision, read_secrets
from cli.kms.site import digest_of_configuration, digest_of_policies
from cli.support.checks import rows
from cli.support.revocation_lists import read_crls
from cli.support.whole_file import write_whole
from kbs.attested_connection import Address, Connection, UnreachableError
from kbs.provision import SecretName
from kbs.references_signing import signer_of
from kbs.verifier_attest import write_signer
from server.files import UnusableInputError, read_bounded

HELP = "attest a verifier, provision one that starts sealed, and sign what guests compare it with"
EXAMPLE = "morphisms kms attest https://morphisms-verifier.morphisms-kms.svc --policy kms.yaml"

OK, REFUSED, USAGE, UNREACHABLE = 0, 1, 2, 3
_EXITS = (
    "Exit 0: every verifier {done}. 1: one was refused, or refused. 2: a file or an option cannot be used. 3: one gave"
    " no answer, and none was refused."
)


_ROOT = "stands for the guest's / where the configuration names files by absolute paths"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare `key`, `references`, `attest` and `provision`."""
    commands = parser.add_subparsers(dest="kms_command", metavar="key|references|attest|provision", required=True)
    key = commands.add_parser(
        "key",
        help="print a key's public half; with --new-key make it first",
        description="Print the public half as JWK: for `provisioning.provisioners` of the verifier's configuration, or"
        " for `verifier.attest.signer`.",
    )
    key.add_argument("key", type=Path, metavar="FILE", help="PEM of mode 0400")
    key.add_argument("--new-key", action="store_true", help="make the key first; FILE must not exist yet")
    _configure_references(
        commands.add_parser(
            "references",
            help="sign the KMS's reference values",
            description="Sign the reference values of the guests that run the verifier. Prints the policy by which"
            " guests (`verifier.attest` in the webhook's configuration) and `kms attest --policy` trust them.",
        )
    )
    attest = commands.add_parser(
        "attest",
        help="which verifier answers: every check of its report",
        description="Send a nonce to the verifier at every address of the URL's host, and appraise its answer as a"
        " guest does. " + _EXITS.format(done="is the one of the policy"),
    )
    attest.add_argument("url", metavar="URL", help="such as https://morphisms-verifier.morphisms-kms.svc")
    _configure_connection(attest)
    give = commands.add_parser(
        "provision",
        help="give a sealed verifier its secrets, once it is attested",
        description="Attest the verifier at every address of each URL's host, and send the secrets on the same"
        " connections. It is safe to repeat: a verifier that holds a value says so, and keeps it. "
        + _EXITS.format(done="has all secrets"),
    )
    give.add_argument("urls", nargs="+", metavar="URL", help="of the headless Service, or of single replicas")
    _configure_connection(give)
    give.add_argument("--key", type=Path, required=True, metavar="FILE", help="a provisioner's, PEM of mode 0400")
    give.add_argument(
        "--secret",
        action="append",
        required=True,
        metavar="NAME=FILE",
        help=f"{', '.join(name.value for name in SecretName)}; FILE of mode 0400; unseal-share may be repeated",
    )


def _configure_references(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--guests",
        type=Path,
        action="append",
        required=True,
        metavar="FILE",
        help="NAME: {product, measurements, …} with hostData and initdata: enforced, or wholeImage; may be repeated",
    )
    parser.add_argument(
        "--configuration",
        action="append",
        required=True,
        metavar="FILE|DIGEST",
        help="the verifier's configuration, or the digest of it; may be repeated, old and new",
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help=_ROOT)
    parser.add_argument("--serial", type=_serial, required=True, metavar="N", help="above that of every issue before")
    parser.add_argument("--key", type=Path, required=True, metavar="FILE", help="of the signer, PEM of mode 0400")
    parser.add_argument("--new-key", action="store_true", help="make the key first; FILE must not exist yet")
    parser.add_argument(
        "--previous",
        type=Path,
        metavar="FILE",
        help="the issue before, whose serial must be lower; default: what --output holds",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="for the verifier's configuration"
    )


def _configure_connection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--policy",
        type=Path,
        required=True,
        metavar="FILE",
        help="verifier.attest as YAML, as `kms references` prints it",
    )
    parser.add_argument(
        "--ca",
        type=Path,
        metavar="FILE",
        help="PEM that the certificate has to lead to; without, the report alone counts",
    )
    parser.add_argument(
        "--configuration", metavar="FILE|DIGEST", help="what the verifier's own configuration has to be; without, any"
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help=_ROOT)
    parser.add_argument(
        "--policies",
        type=Path,
        metavar="DIR",
        help="what the policies in force have to be, with --guests",
    )
    parser.add_argument(
        "--guests",
        type=Path,
        metavar="DIR",
        help="the reference values that they name; default: guests beside --policies",
    )
    parser.add_argument("--crls", type=Path, metavar="DIR", help="AMD's revocation lists; without, none is checked")
    parser.add_argument("--timeout", type=_seconds, default=15.0, metavar="SECONDS", help="per address; default 15")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def run(arguments: argparse.Namespace) -> int:
    """Exit code; see the constants. Raises UnusableInputError and ConfigurationError, which are exit code 2 too."""
    if arguments.kms_command == "key":
        print(json.dumps(write_signer(signer_of(_key(arguments)))))
        return OK
    if arguments.kms_command == "references":
        return _references(arguments)
    demand = Demand(
        read_demand(arguments.policy), _crls(arguments.crls), _configuration(arguments), _policies(arguments)
    )
    ca = "" if arguments.ca is None else check_ca(read_bounded(arguments.ca).decode("utf-8", "replace"))
    if arguments.kms_command == "attest":
        return _attest(arguments, demand, ca)
    return _provision(arguments, demand, ca)


def _key(arguments: argparse.Namespace) -> ECKey:
    return make_key(arguments.key) if arguments.new_key else read_key(arguments.key)


def _references(arguments: argparse.Namespace) -> int:
    guests = read_guests(arguments.guests)
    configurations = frozenset(digest_of_configuration(each, arguments.root) for each in arguments.configuration)
    previous = arguments.previous or (arguments.output if arguments.output.exists() else None)
    before = None if previous is None else read_issue(previous)
    key = _key(arguments)
    text = issue(guests, configurations, arguments.serial, key, before)
    write_whole(arguments.output, f"{text}\n".encode(), 0o644)
    print(f"signer: {json.dumps(write_signer(signer_of(key)))}")
    print(f"minSerial: {arguments.serial}")
    return OK


def _attest(arguments: argparse.Namespace, demand: Demand, ca: str) -> int:
    try:
        addresses = addresses_of(arguments.url)
    except UnreachableError as error:
        print(f"morphisms kms: {error}", file=sys.stderr)
        return UNREACHABLE
    codes, documents = [], []
    for address in addresses:
        code, judgement, problem = _judged(address, ca, arguments.timeout, demand)
        codes.append(code)
        found = {"problem": problem} if judgement is None else judgement.as_dict()
        documents.append({"address": str(address), **found})
        if not arguments.json:
            _print_judgement(address, judgement, problem)
    if arguments.json:
        print(json.dumps({"url": arguments.url, "verifiers": documents}, indent=2))
    if demand.crls == () and OK in codes:
        print("revocation was not checked, as in a guest: --crls DIR has the lists", file=sys.stderr)
    return _worst(codes)


def _judged(address: Address, ca: str, seconds: float, demand: Demand) -> tuple[int, Judgement | None, str]:
    try:
        with Connection(address, ca, seconds) as connection:
            judgement = judge(connection, demand)
    except UnreachableError as error:
        return UNREACHABLE, None, str(error).removeprefix(f"{address}: ")
    except NotAttestedError as error:
        return REFUSED, None, str(error)
    return OK if judgement.accepted else REFUSED, judgement, ""


def _provision(arguments: argparse.Namespace, demand: Demand, ca: str) -> int:
    key, secrets = read_key(arguments.key), read_secrets(arguments.secret)
    codes: list[int] = []
    outcomes: list[Outcome] = []
    for url in arguments.urls:
        try:
            addresses = addresses_of(url)
        except UnreachableError as error:
            outcomes.append(Outcome(url, problem=str(error), is_unreachable=True))
            continue
        outcomes += [provision(each, ca, arguments.timeout, demand, key, secrets) for each in addresses]
    for outcome in outcomes:
        codes.append(OK if outcome.ok else UNREACHABLE if outcome.is_unreachable else REFUSED)
        if not arguments.json:
            for line in outcome.lines():
                print(line)
    if arguments.json:
        print(json.dumps({"verifiers": [each.as_dict() for each in outcomes]}, indent=2))
    return _worst(codes)


def _worst(codes: Iterable[int]) -> int:
    """A refusal says more than silence does."""
    found = set(codes)
    return REFUSED if REFUSED in found else UNREACHABLE if UNREACHABLE in found else OK


def _print_judgement(address: Address, judgement: Judgement | None, problem: str) -> None:
    print(address)
    if judgement is None:
        print(f"  {problem}")
        return
    for row in rows(judgement.checks):
        print(f"  {row}")
    print(f"  {judgement.summary()}")


def _configuration(arguments: argparse.Namespace) -> bytes | None:
    word = arguments.configuration
    return None if word is None else digest_of_configuration(word, arguments.root)


def _policies(arguments: argparse.Namespace) -> bytes | None:
    if arguments.policies is None:
        if arguments.guests is not None:
            raise UnusableInputError("--guests: the digest is of both folders; name --policies too")
        return None
    guests = arguments.guests or arguments.policies.absolute().parent / "guests"
    path = None if arguments.configuration is None else Path(arguments.configuration)
    configuration = None if path is None or not path.exists() else load_configuration(path)
    return digest_of_policies(arguments.policies, guests, configuration)


def _crls(folder: Path | None) -> tuple[RevocationList, ...]:
    found = tuple(read_crls(folder))
    if folder is not None and not found:
        raise UnusableInputError(f"{folder}: holds no revocation list")
    return found


def _serial(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 1 << 53:
        raise argparse.ArgumentTypeError("expected a whole number from 1 on")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 600:
        raise argparse.ArgumentTypeError("expected seconds, from above 0 to 600")
    return seconds
