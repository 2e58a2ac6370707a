"""`morphisms migrate`: moves plaintext variables of a manifest into Vault, and writes references in their place."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from attestation.verifier.configuration import VaultServer, is_loopback
from cli.conversion.source import rewritten
from cli.migration.moves import Migration, PathError, plan_migration, without_documents
from cli.migration.remnants import in_cluster, in_text
from cli.migration.store import SecretStore
from cli.support.diff import redacted_diff
from cli.support.manifests import add_namespace, guessed_namespace, load_configuration, manifests_of
from cli.support.terminal import say, wants_colour
from cli.support.whole_file import write_whole
from cli.vault_setup.api import VaultApi, operator_token, vault_url
from cli.vault_setup.plan import SetupError
from server.files import UnusableInputError, read_bounded
from server.text import printable
from server.yaml.kubernetes import MAX_BYTES, STDIN, Document, decoded, encoded_like, parse_documents
from webhook.configuration.model import Configuration
from webhook.pod.container import display_name

HELP = "move plaintext secrets of a manifest's env into Vault"
EXAMPLE = "morphisms migrate -f service.yaml --vault-path '~/env' --config configuration.yaml --dry-run"
DESCRIPTION = """\
Finds the variables that the rules find (secrets/plaintext-env), writes their values to a KV secret of version 2, and
replaces the file by one with references in their place. Comments and order stay. No value is ever printed.

It is safe to run twice, and to be interrupted: values are written first, with check-and-set, and read back; then the
file is replaced in one step. Keys of the secret that are there already stay; a key with another value ends the command
before anything is written.

A variable moves only where injection accepts the result. What does not move is listed as `left`: a container without
`command`, a value that expands $(…), a secret in args or a ConfigMap. Afterwards the command lists where copies of the
values remain, and what to rotate.

The token is in VAULT_TOKEN or ~/.vault-token; it needs read, create and update on MOUNT/data/PATH.

Exit codes: 0 moved, or nothing to move; 1 something is left to a person, or (--dry-run) there are values to move;
2 unusable input, or Vault refuses."""

DONE, LEFT, UNUSABLE = 0, 1, 2


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = DESCRIPTION
    parser.add_argument("-f", "--file", metavar="FILE", required=True, help="YAML or JSON, which is replaced")
    parser.add_argument(
        "--vault-path",
        required=True,
        metavar="PATH",
        help="the secret, as references name it: MOUNT/PATH, or ~/PATH for a Service's own prefix;"
        " {namespace} and {name} stand for the object's own",
    )
    add_namespace(parser)
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME",
        help="move this variable too, whatever it looks like; may be given several times",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="the webhook's configuration, for KV mounts and what counts as a secret"
    )
    parser.add_argument(
        "--vault-url", type=vault_url, metavar="URL", help="Vault as this machine reaches it; default: VAULT_ADDR"
    )
    parser.add_argument("--vault-ca", type=Path, metavar="FILE", help="PEM; default: the system's certificates")
    parser.add_argument("--vault-namespace", default="", metavar="NAME", help="Vault's namespace")
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would change; nothing is sent to Vault, the file stays"
    )


def run(arguments: argparse.Namespace) -> int:
    """Move, and print what moved and what did not; returns the exit code."""
    try:
        if arguments.file == STDIN:
            raise UnusableInputError("-f - cannot be replaced; write it to a file first")
        if arguments.vault_path.startswith("~/") and arguments.config is None:
            raise UnusableInputError("--vault-path ~/… needs --config: the configuration says what ~/ stands for")
        configuration = load_configuration(arguments.config)
        # A link stays one: the file behind it is replaced.
        path = Path(os.path.realpath(arguments.file))
        content = read_bounded(path, MAX_BYTES)
        text = decoded(content, arguments.file)
        documents = parse_documents(content, arguments.file)
        migration, new = _migration(text, documents, configuration, arguments)
        if migration.moves and not arguments.dry_run:
            _store(migration, configuration, arguments)
            _replace(path, content, new)
    except (UnusableInputError, PathError, SetupError) as error:
        say(f"morphisms migrate: {error}")
        return UNUSABLE
    _show(migration, documents, configuration, arguments)
    _show_copies(migration, new, arguments.file)
    return LEFT if migration.left or (migration.moves and arguments.dry_run) else DONE


def _migration(
    text: str, documents: Sequence[Document], configuration: Configuration, arguments: argparse.Namespace
) -> tuple[Migration, str]:
    """What moves, and the new text."""
    migration = plan_migration(documents, configuration, arguments.vault_path, arguments.namespace, arguments.env)
    new, anew = rewritten(text, documents, migration.objects)
    if anew:
        # Written from its data, such a document would lose its comments.
        places = {index for index, document in enumerate(documents) if document in anew}
        migration = without_documents(migration, documents, places)
        new, _ = rewritten(text, documents, migration.objects)
    return migration, new


def _store(migration: Migration, configuration: Configuration, arguments: argparse.Namespace) -> None:
    address = arguments.vault_url or os.environ.get("VAULT_ADDR", "")
    if not address:
        raise UnusableInputError("no address of Vault: write --vault-url https://vault.example:8200, or set VAULT_ADDR")
    try:
        url = vault_url(address)
    except argparse.ArgumentTypeError as error:
        raise UnusableInputError(f"VAULT_ADDR: {error}") from None
    if not url.startswith("https:") and not is_loopback(url):
        raise UnusableInputError("Vault's address has to begin with https://")
    api = VaultApi(VaultServer(url=url, ca=arguments.vault_ca), operator_token())
    api.check()
    store = SecretStore(api, configuration.vault.kv2_mounts, arguments.vault_namespace)
    for write in store.plan(migration.moves):
        store.write(write)


def _replace(path: Path, content: bytes, new: str) -> None:
    """Replace the file in one step, if it is still the one that was read."""
    if read_bounded(path, MAX_BYTES) != content:
        raise UnusableInputError(f"{path}: was changed meanwhile; the values are in Vault, run the command again")
    write_whole(path, encoded_like(new, content), stat.S_IMODE(path.stat().st_mode))


def _show(
    migration: Migration, documents: Sequence[Document], configuration: Configuration, arguments: argparse.Namespace
) -> None:
    colour = wants_colour(sys.stdout)
    if arguments.dry_run:
        for document, after in zip(documents, migration.objects, strict=True):
            title = printable(document.place)
            sys.stdout.write(
                redacted_diff(title, document.object, after, configuration, colour=colour, becomes="migrated")
            )
    for move in migration.moves:
        print(f"{'would move' if arguments.dry_run else 'moved'}: {move}")
    if not migration.moves:
        print("nothing to move")
    for left in migration.left:
        print(f"left: {left}")
    found = [each for document in documents for each in manifests_of(document, arguments.namespace)]
    if (guessed := guessed_namespace(found)) is not None:
        say(guessed)


def _show_copies(migration: Migration, new: str, source: str) -> None:
    if not migration.moves:
        return
    for line, variable in in_text(new, migration.moves):
        print(f"copy: {printable(source)}:{line}: still holds the value of {variable}; remove it")
    changed = {move.document for move in migration.moves}
    for copy in in_cluster([migration.objects[index] for index in sorted(changed)]):
        print(f"copy: {copy}")
    names = dict.fromkeys(f"{display_name(move.variable)} ({move.path}#{move.key})" for move in migration.moves)
    print(f"rotate, because those copies hold the old values: {', '.join(names)}")
