"""`morphisms review`: one AdmissionReview in, the answer out, byte for byte what the server answers."""

from __future__ import annotations

import argparse
import codecs
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cli.support.manifests import add_time, load_configuration, read_bytes, read_snapshot_objects
from webhook.decide import PATHS, decide, lookup
from webhook.errors import ReviewError
from webhook.review import read_review, write_review
from webhook.snapshot import Snapshot, find_in_objects, snapshot_of_objects

HELP = "answer one AdmissionReview as the server would; exit 0 allowed, 1 denied, 2 unusable input"
EXAMPLE = "morphisms review --path /mutate/pod review.json"


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--config", metavar="FILE", help="configuration; without it the documented defaults")
    parser.add_argument(
        "--snapshot",
        metavar="FILE",
        help="a List of namespaces, nodes, RuntimeClasses; without it: mode inject, cluster unknown",
    )
    add_time(parser)
    parser.add_argument(
        "--path",
        required=True,
        choices=tuple(PATHS),
        metavar="PATH",
        help="the path that the API server would call, such as /validate/pod/enforce; without a mode at its end the"
        " snapshot says the mode",
    )
    parser.add_argument("file", nargs="?", default="-", metavar="FILE|-", help="the AdmissionReview; - is stdin")


def run(arguments: argparse.Namespace) -> int:
    """Decide and print."""
    configuration = load_configuration(arguments.config)
    # Editors on Windows put a byte order mark there; the API server never does.
    body = read_bytes(arguments.file).removeprefix(codecs.BOM_UTF8)
    try:
        request = read_review(body, arguments.path)
    except ReviewError as error:
        print(f"{Path(arguments.file).name}: {error}", file=sys.stderr)
        return 2
    snapshot: Snapshot | None = None
    if arguments.snapshot is not None:
        objects = read_snapshot_objects(arguments.snapshot)
        snapshot = replace(snapshot_of_objects(objects), now=arguments.at or datetime.now(UTC))
        wanted = lookup(request, configuration, snapshot)
        if wanted is not None:
            snapshot = snapshot.with_fetched(find_in_objects(objects, wanted))
    decision = decide(request, configuration, snapshot)
    # A byte more than the server sends only where a person reads it.
    end = b"\n" if sys.stdout.isatty() else b""
    sys.stdout.buffer.write(write_review(request.uid, decision) + end)
    return 0 if decision.allowed else 1
