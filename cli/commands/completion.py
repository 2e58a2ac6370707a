"""`morphisms completion`: the script by which a shell completes the command's words."""

from __future__ import annotations

import argparse
import sys

from cli.completion.scripts import SCRIPTS

HELP = "print the script by which bash, zsh or fish completes morphisms"
EXAMPLE = "source <(morphisms completion bash)"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the shell."""
    parser.description = (
        "Prints a script to source, such as in ~/.bashrc: source <(morphisms completion bash). For zsh it goes behind"
        " compinit; for fish: morphisms completion fish | source. kubectl's own completion finds"
        " kubectl_complete-morphisms by itself, so `kubectl morphisms` is completed too."
    )
    parser.add_argument("shell", choices=tuple(SCRIPTS), help="whose script to print")


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    sys.stdout.write(SCRIPTS[arguments.shell])
    return 0
