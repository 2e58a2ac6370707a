"""`morphisms vault setup`: shows as a diff what the verifier's logins need in Vault or OpenBao, then writes it."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from joserfc.jwk import ECKey

from attestation.verifier.configuration import (
    Mode,
    VaultServer,
    VerifierConfiguration,
    is_loopback,
    load_configuration,
)
from attestation.verifier.policies.load import load_policies
from attestation.verifier.vault.signing import load_signing_keys
from cli.support.terminal import CYAN, GREEN, RED, coloured, say, wants_colour
from cli.vault_setup.api import operator_token, vault_url
from cli.vault_setup.client import Operator
from cli.vault_setup.own_access import (
    HeldAccess,
    OwnAccess,
    left_access,
    own_access,
    plan_access,
    public_keys,
)
from cli.vault_setup.plan import Change, Current, Desired, Keys, SetupError, check_distinct, left, plan
from server.files import UnusableInputError, read_bounded
from server.text import printable
from server.yaml.strict import ConfigurationError

HELP = "set Vault or OpenBao up for the verifier's logins"
EXAMPLE = "morphisms vault setup --config verifier.yaml --dry-run"

DONE, WOULD_CHANGE, UNUSABLE = 0, 1, 2
_ROLE = "knative"
_VERIFIER_ROLE = "morphisms-verifier"
_PATH = r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
_COLOURS = {"+": GREEN, "-": RED, "~": CYAN}


def _matching(pattern: str, what: str) -> Callable[[str], str]:
    """A parser for words that become paths and policies, where a wildcard or a template would widen access."""

    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise argparse.ArgumentTypeError(f"{printable(text)!r} is not a {what}: use letters, digits, dots, - and _")
        return text

    return parse


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare `setup`."""
    commands = parser.add_subparsers(dest="vault_command", metavar="setup", required=True)
    setup = commands.add_parser(
        "setup",
        help="jwt auth mounts, roles and policies; a second run changes nothing",
        description="Prints the current and the wanted state, then makes the changes. The token is in VAULT_TOKEN "
        "or ~/.vault-token, the address in the configuration. Exit codes: 0 done or nothing to change, 1 (--dry-run) "
        "there are changes to make, 2 failed.",
    )
    path = _matching(_PATH, "path")
    setup.add_argument("--config", type=Path, required=True, metavar="FILE", help="the verifier's configuration")
    setup.add_argument("--dry-run", action="store_true", help="print the changes, make none")
    setup.add_argument(
        "--mount",
        type=path,
        help="one jwt auth mount, without auth/; default: those in the appraisal policies, and as long as there is no "
        "policy jwt-CLUSTER for each cluster",
    )
    setup.add_argument("--role", type=_matching(_NAME, "role"), help=f"the role of --mount (default {_ROLE})")
    setup.add_argument("--namespace", type=path, help="the namespace of --mount")
    setup.add_argument("--kv-mount", type=path, default="secret", help="KV version 2 (default secret)")
    setup.add_argument("--kv-prefix", type=path, default="knative", help="folder of all workloads (default knative)")
    setup.add_argument("--jwks-url", metavar="URL", help="Vault fetches the keys here; default: it is given the keys")
    setup.add_argument("--jwks-ca", type=Path, metavar="FILE", help="PEM, for --jwks-url")
    setup.add_argument(
        "--verifier-role",
        type=_matching(_NAME, "role"),
        default=_VERIFIER_ROLE,
        help="the verifier's own AppRole, and its policy (default %(default)s); where vault.login is set",
    )
    setup.add_argument(
        "--vault-url", type=vault_url, metavar="URL", help="Vault as this machine reaches it; default: vault.url"
    )
    setup.add_argument("--vault-ca", type=Path, metavar="FILE", help="PEM, for --vault-url")


def run(arguments: argparse.Namespace) -> int:
    """Exit code: 0 done or nothing to change, 1 a dry run that found changes, 2 failed."""
    try:
        configuration = load_configuration(arguments.config)
        _check_options(arguments, configuration)
        access = own_access(configuration, arguments.verifier_role)
        # What is wrong in the options and files is said before anything is sent.
        keys = _keys(arguments, configuration)
        logins = _logins(arguments, configuration)
        operator = Operator(_server(arguments, configuration), operator_token())
        operator.check()
        held = HeldAccess() if access is None else operator.read_access(access)
        own = () if access is None else plan_access(access, held)
        wanted = _wanted(arguments, configuration, keys or Keys(pems=public_keys(held)), logins)
        found = [(desired, operator.read(desired)) for desired in wanted]
        changes = [("" if access is None else access.namespace, change) for change in own]
        changes += [(desired.namespace, change) for desired, current in found for change in plan(desired, current)]
        _show(changes)
        if changes and not arguments.dry_run:
            if access is not None:
                _apply_own(operator, access, own, found)
                pems = public_keys(operator.read_access(access)) if keys is None else ()
                found = [(replace(each, keys=keys or Keys(pems=pems)), current) for each, current in found]
            _apply(operator, found)
            print(f"made {len(changes)} change{'s' if len(changes) > 1 else ''}")
        for line in () if access is None else left_access(access, held):
            say(line)
        for desired, current in found:
            for line in left(desired, current):
                say(line)
        for line in operator.advice(wanted):
            say(line)
    except ConfigurationError as error:
        print(f"morphisms vault setup: {error}", file=sys.stderr)
        return UNUSABLE
    except SetupError as error:
        say(f"morphisms vault setup: {error}")
        return UNUSABLE
    return WOULD_CHANGE if changes and arguments.dry_run else DONE


def _apply_own(
    operator: Operator, access: OwnAccess, changes: Sequence[Change], found: list[tuple[Desired, Current]]
) -> None:
    # Both halves before the first write, so that a token with half of the capabilities changes nothing.
    operator.check_capabilities(changes, access.namespace)
    for desired, current in found:
        operator.check_capabilities(plan(desired, current), desired.namespace)
    for change in changes:
        operator.write(change, access.namespace)
    if missing := plan_access(access, operator.read_access(access)):
        raise SetupError(f"Vault took {missing[0].path} but does not hold it: {'; '.join(missing[0].after)}")


def _apply(operator: Operator, found: list[tuple[Desired, Current]]) -> None:
    for desired, current in found:
        operator.check_capabilities(plan(desired, current), desired.namespace)
    for desired, current in found:
        state = current
        if state.mount is None:
            operator.write(plan(desired, state)[0], desired.namespace)
            state = operator.read(desired)  # now it has an accessor
        for change in plan(desired, state):
            operator.write(change, desired.namespace)
        missing = plan(desired, operator.read(desired))
        if missing:
            raise SetupError(f"Vault took {missing[0].path} but does not hold it: {'; '.join(missing[0].after)}")


def _show(changes: list[tuple[str, Change]]) -> None:
    """Each change with its namespace."""
    colour = wants_colour(sys.stdout)
    for namespace, change in changes:
        head, *lines = change.lines()
        for line in (head + (f" in namespace {namespace}" if namespace else ""), *lines):
            print(coloured(printable(line), _COLOURS[line[0]], wanted=colour))
    if not changes:
        print("nothing to change")


def _wanted(
    arguments: argparse.Namespace,
    configuration: VerifierConfiguration,
    keys: Keys,
    logins: Mapping[tuple[str, str], tuple[str, ...]],
) -> list[Desired]:
    wanted = [
        Desired(
            mount=mount,
            roles=roles,
            issuer=configuration.vault.issuer,
            audience=configuration.vault.audience,
            keys=keys,
            namespace=namespace,
            kv_mount=arguments.kv_mount,
            kv_prefix=arguments.kv_prefix,
            is_production=configuration.mode is Mode.PRODUCTION,
        )
        for (namespace, mount), roles in sorted(logins.items())
    ]
    check_distinct(wanted)
    return wanted


def _logins(
    arguments: argparse.Namespace, configuration: VerifierConfiguration
) -> dict[tuple[str, str], tuple[str, ...]]:
    """(namespace, mount) -> its roles."""
    if arguments.mount is not None:
        return {(arguments.namespace or "", arguments.mount): (arguments.role or _ROLE,)}
    if arguments.role or arguments.namespace:
        raise SetupError("--role and --namespace go with --mount; without it the appraisal policies name them")
    read_back = {cluster.name: cluster.readBack is not None for cluster in configuration.clusters}
    policies = load_policies(configuration.policies, configuration.guests, read_back).value.policies
    roles: dict[tuple[str, str], set[str]] = {}
    for policy in policies:
        login = policy.record.vault
        roles.setdefault((login.namespace, login.mount), set()).add(login.role)
    if not roles:
        say("no appraisal policy names a mount yet: one for each cluster")
        return {("", f"jwt-{cluster.name}"): (_ROLE,) for cluster in configuration.clusters}
    return {login: tuple(sorted(names)) for login, names in roles.items()}


def _check_options(arguments: argparse.Namespace, configuration: VerifierConfiguration) -> None:
    if arguments.vault_ca is not None and arguments.vault_url is None:
        raise SetupError("--vault-ca goes with --vault-url")
    url = arguments.vault_url or "https:"
    if configuration.mode is Mode.PRODUCTION and not url.startswith("https:") and not is_loopback(url):
        raise SetupError("--vault-url has to begin with https://")


def _server(arguments: argparse.Namespace, configuration: VerifierConfiguration) -> VaultServer:
    """Vault as the operator reaches it: the verifier's own address may be the loopback of its guest."""
    if arguments.vault_url is None:
        return configuration.vault
    return configuration.vault.model_copy(update={"url": arguments.vault_url, "ca": arguments.vault_ca})


def _keys(arguments: argparse.Namespace, configuration: VerifierConfiguration) -> Keys | None:
    """None for those of a transit key, which Vault has itself."""
    if arguments.jwks_url is None:
        if arguments.jwks_ca is not None:
            raise SetupError("--jwks-ca goes with --jwks-url")
        if configuration.signing.transit is not None:
            return None
        if not configuration.signing.keys:
            raise SetupError(
                "--jwks-url is required with signing.generated and signing.provisioned: the key is in the verifier's "
                "memory, as in --jwks-url https://morphisms-verifier.morphisms-kms.svc/.well-known/jwks.json"
            )
        public = json.loads(load_signing_keys(configuration.signing.keys).value.jwks)["keys"]
        return Keys(pems=tuple(ECKey.import_key(key).as_pem(private=False).decode() for key in public))
    schemes = ("https://",) if configuration.mode is Mode.PRODUCTION else ("https://", "http://")
    if not arguments.jwks_url.startswith(schemes):
        raise SetupError(f"--jwks-url has to begin with {' or '.join(schemes)}")
    try:
        ca_pem = "" if arguments.jwks_ca is None else read_bounded(arguments.jwks_ca).decode("ascii")
    except (UnusableInputError, ValueError):
        raise SetupError(f"{arguments.jwks_ca}: not a readable PEM file") from None
    return Keys(url=arguments.jwks_url, ca_pem=ca_pem)
