"""`morphisms vault setup`: shows as a diff what the verifier's logins need in Vault or OpenBao, then writes it."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from joserfc.jwk import ECKey

from attestation.verifier.configuration import Mode, VerifierConfiguration, load_configuration
from attestation.verifier.policies.load import load_policies
from attestation.verifier.vault.signing import load_signing_keys
from cli.support.terminal import CYAN, GREEN, RED, coloured, say, wants_colour
from cli.vault_setup.client import Operator, operator_token
from cli.vault_setup.plan import Change, Current, Desired, Keys, SetupError, check_distinct, left, plan
from server.files import UnusableInputError, read_bounded
from server.text import printable
from server.yaml.strict import ConfigurationError

HELP = "set Vault or OpenBao up for the verifier's logins"
EXAMPLE = "morphisms vault setup --config verifier.yaml --dry-run"

DONE, WOULD_CHANGE, UNUSABLE = 0, 1, 2
_ROLE = "knative"
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


def run(arguments: argparse.Namespace) -> int:
    """Exit code: 0 done or nothing to change, 1 a dry run that found changes, 2 failed."""
    try:
        configuration = load_configuration(arguments.config)
        wanted = _wanted(arguments, configuration)
        operator = Operator(configuration.vault, operator_token())
        operator.check()
        found = [(desired, operator.read(desired)) for desired in wanted]
        changes = [(desired, change) for desired, current in found for change in plan(desired, current)]
        _show(changes)
        if changes and not arguments.dry_run:
            _apply(operator, found)
            print(f"made {len(changes)} change{'s' if len(changes) > 1 else ''}")
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


def _show(changes: list[tuple[Desired, Change]]) -> None:
    colour = wants_colour(sys.stdout)
    for desired, change in changes:
        head, *lines = change.lines()
        for line in (head + (f" in namespace {desired.namespace}" if desired.namespace else ""), *lines):
            print(coloured(printable(line), _COLOURS[line[0]], wanted=colour))
    if not changes:
        print("nothing to change")


def _wanted(arguments: argparse.Namespace, configuration: VerifierConfiguration) -> list[Desired]:
    keys = _keys(arguments, configuration)
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
        for (namespace, mount), roles in sorted(_logins(arguments, configuration).items())
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


def _keys(arguments: argparse.Namespace, configuration: VerifierConfiguration) -> Keys:
    if arguments.jwks_url is None:
        if arguments.jwks_ca is not None:
            raise SetupError("--jwks-ca goes with --jwks-url")
        if configuration.signing.transit is not None:
            raise SetupError("signing.transit needs --jwks-url: so Vault follows the key through its rotations")
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
