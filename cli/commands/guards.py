"""`morphisms guards`: the guards whose lists depend on the configuration, as YAML to apply."""

from __future__ import annotations

import argparse

from cli.guards import GUARDS, guard
from cli.support.manifests import load_configuration
from server.files import UnusableInputError

HELP = "write the guards that list the configuration's profiles, RuntimeClasses, controllers and audience, as YAML"
EXAMPLE = "morphisms guards --config configuration.yaml | kubectl apply --server-side -f -"


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--config", metavar="FILE", help="configuration; without it the documented defaults")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"only these of: {', '.join(GUARDS)}. The first one is in base; the others do nothing without the"
        " component cluster-guards, which binds them",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the policies. Exit code 0; 2 for a name that is none of them."""
    configuration = load_configuration(arguments.config)
    unknown = [name for name in arguments.names if name not in GUARDS]
    if unknown:
        raise UnusableInputError(f"{unknown[0]}: not one of the guards: {', '.join(GUARDS)}")
    print("---\n".join(guard(name, configuration) for name in arguments.names or GUARDS), end="")
    return 0
