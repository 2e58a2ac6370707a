"""Entry point of `morphisms`: one module per subcommand, imported only when the user runs that one."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from cli.completion.candidates import candidates
from cli.completion.scripts import ASK, FILES_FIT, NO_FILES
from cli.support.suggestions import SuggestingParser
from plan.layout import VERSION
from server.files import UnusableInputError
from server.yaml.strict import ConfigurationError

# Name on the command line -> module; each module has HELP, EXAMPLE, configure(parser) and run(arguments) -> exit code.
COMMANDS: dict[str, str] = {
    "webhook": "cli.commands.webhook",
    "review": "cli.commands.review",
    "inject": "cli.commands.inject",
    "capture": "cli.commands.capture",
    "render": "cli.commands.render",
    "entrypoint": "cli.commands.entrypoint",
    "check": "cli.commands.check",
    "audit": "cli.commands.audit",
    "preflight": "cli.commands.preflight",
    "graduate": "cli.commands.graduate",
    "doctor": "cli.commands.doctor",
    "convert": "cli.commands.convert",
    "migrate": "cli.commands.migrate",
    "report": "cli.commands.report",
    "simulated-hardware": "cli.commands.simulated_hardware",
    "verifier": "cli.commands.verifier",
    "explain": "cli.commands.explain",
    "vault": "cli.commands.vault",
    "certificates": "cli.commands.certificates",
    "kms": "cli.commands.kms",
    "guest": "cli.commands.guest",
    "guards": "cli.commands.guards",
    "completion": "cli.commands.completion",
    "scanner": "cli.commands.scanner",
}


def build_parser(command: str | None) -> argparse.ArgumentParser:
    """The whole parser; only the module of `command` is imported, all of them when it is None (for --help)."""
    parser = SuggestingParser(
        prog="morphisms",
        description="Confidential Knative Services: admission, attestation, and the same decisions offline.",
        epilog="example:\n  morphisms check -f service.yaml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"morphisms {VERSION}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=SuggestingParser)
    for name, module_name in COMMANDS.items():
        if command in COMMANDS and name != command:
            subparsers.add_parser(name)
            continue
        module = importlib.import_module(module_name)
        subparser = subparsers.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            epilog=f"example:\n  {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.configure(subparser)
        subparser.set_defaults(run=module.run)
    return parser


def complete(words: Sequence[str]) -> int:
    """Print what the last word can become, a line each, and the flag that says whether a file fits."""
    # One command's module is loaded, or any one for the commands' names: all of them take a second.
    first = words[0] if len(words) > 1 and words[0] in COMMANDS else "completion"
    found = candidates(build_parser(first), list(words) or [""])
    for word, described in found.words:
        print(f"{word}\t{described}" if described and len(words) > 1 else word)
    print(FILES_FIT if found.files else NO_FILES)
    return 0


def complete_for_kubectl() -> int:
    """`kubectl_complete-morphisms WORD…`, which kubectl runs to complete `kubectl morphisms WORD…`."""
    return complete(sys.argv[1:])


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns its exit code. Unusable arguments exit with 2, as argparse does."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == [ASK]:
        return complete(words[1:])
    arguments = build_parser(words[0] if words else None).parse_args(words)
    try:
        return int(arguments.run(arguments))
    except (UnusableInputError, ConfigurationError) as error:
        print(f"morphisms {arguments.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader has gone, such as `head`; Python would complain once more while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
