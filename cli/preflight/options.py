"""The options of every command that asks whether a namespace is ready for another mode."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from attestation.verifier.configuration import load_configuration
from server.files import UnusableInputError
from server.yaml.strict import ConfigurationError
from webhook import policy_version


def add_questions(parser: argparse.ArgumentParser) -> None:
    """Declare by what a namespace is judged, and what counts."""
    parser.add_argument(
        "--policy", choices=policy_version.RELEASES, help="the release whose rules deny, whatever `policy` says"
    )
    parser.add_argument(
        "--verifier-config",
        type=Path,
        metavar="FILE",
        help="the verifier's configuration, to compare the cluster's name and issuer with",
    )
    parser.add_argument(
        "--allow-unevaluated", action="store_true", help="go, though something is not known; failures stay no-go"
    )


def issuers(path: Path | None) -> Mapping[str, str] | None:
    """By cluster, the issuer that the verifier's file names; None without a file. Raises UnusableInputError."""
    if path is None:
        return None
    try:
        return {each.name: each.issuer for each in load_configuration(path).clusters}
    except ConfigurationError as error:
        raise UnusableInputError("; ".join(error.problems)) from None
