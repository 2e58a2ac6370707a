"""`morphisms explain`: why the verifier accepted or refused one attestation, from its own records."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from attestation.appraisal.result import result_from_dict
from attestation.verifier.configuration import load_configuration
from attestation.verifier.records import find_records
from cli.guests.refused import entry_of_refused
from server.yaml.strict import ConfigurationError

HELP = "explain why the verifier accepted or refused a guest, by the correlation id in the guest's log"
EXAMPLE = "morphisms explain 4be1a1c8d0f3c2a7 --config verifier.yaml"

_DECISIONS = {"believed": "believed", "withdrawn": "WITHDRAWN"}
FOUND, NOT_FOUND, UNUSABLE, BROKEN = 0, 1, 2, 3


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("id", metavar="ID", help="16 hexadecimal digits")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", type=Path, metavar="FILE", help="the verifier's configuration, on its replica")
    source.add_argument(
        "--folder",
        type=Path,
        action="append",
        metavar="DIR",
        help="a replica's explain.folder or a copy of it; may be given for each replica",
    )
    parser.add_argument(
        "--log",
        type=Path,
        metavar="FILE",
        help="the verifier's log, kept elsewhere: what it says was recorded for ID must be there",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON document per record, on stdout")
    form.add_argument(
        "--as-guest",
        action="store_true",
        help="the refused guest as a guest entry to review, on stdout: comments alone, which load nowhere",
    )


def run(arguments: argparse.Namespace) -> int:
    """Exit code: 0 explained, 1 no such record (any more), or no refused guest, 2 unusable files, 3 a broken chain."""
    try:
        kept = [(folder, find_records(folder, arguments.id)) for folder in _folders(arguments)]
        logged = set() if arguments.log is None else _logged(arguments.log, arguments.id)
    except ConfigurationError as error:
        print(f"morphisms explain: {error}", file=sys.stderr)
        return UNUSABLE
    except OSError as error:
        print(f"morphisms explain: {error.filename}: {error.strerror}", file=sys.stderr)
        return UNUSABLE
    for folder, each in kept:
        for place in each.broken:
            print(f"morphisms explain: {folder}: {place} was changed, or the line before it", file=sys.stderr)
    records = sorted((record for _, each in kept for record in each.records), key=lambda record: str(record["at"]))
    if not arguments.as_guest:
        for record in records:
            print(json.dumps(record, indent=2) if arguments.json else _text(record))
    if missing := logged - {record["sha256"] for record in records}:
        print(f"morphisms explain: {arguments.log}: records that no folder has: {len(missing)}", file=sys.stderr)
    if missing or any(each.broken for _, each in kept):
        return BROKEN
    if not records:
        print("morphisms explain: no such record on this replica, or it was too long ago", file=sys.stderr)
        return NOT_FOUND
    return _as_guest(records) if arguments.as_guest else FOUND


def _as_guest(records: list[dict[str, Any]]) -> int:
    """Only of records whose chain holds: a line that was slipped in must not become a guest."""
    attested = [record for record in records if record.get("verdict")]
    if not attested:
        print("morphisms explain: the record has no report: nothing was appraised", file=sys.stderr)
        return NOT_FOUND
    result = result_from_dict(attested[-1]["verdict"])
    if result.accepted:
        print(f"morphisms explain: this guest was believed, as {result.reference}", file=sys.stderr)
        return NOT_FOUND
    print("\n".join(entry_of_refused(attested[-1], result)))
    return FOUND


def _folders(arguments: argparse.Namespace) -> list[Path]:
    if arguments.folder:
        return list(arguments.folder)
    folder = load_configuration(arguments.config).explain.folder
    if folder is None:
        raise ConfigurationError([f"{arguments.config}: explain.folder is not set, so nothing is kept"])
    return [folder]


def _logged(log: Path, identifier: str) -> set[str]:
    """The SHA-256 of the records that the log names for this correlation id. Raises OSError."""
    found = set()
    with log.open("rb") as file:
        for line in file:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # a log collector's own line, or one that was cut
            if isinstance(event, dict) and event.get("correlation_id") == identifier and event.get("record"):
                found.add(str(event["record"]))
    return found


def _text(record: dict[str, Any]) -> str:
    decision = _DECISIONS.get(record["reason"], "REFUSED")
    lines = [f"{record['at']}  {record['call']}  {decision}: {record['reason']}"]
    if record.get("detail"):
        lines.append(f"  detail     {record['detail']}")
    for name in ("policy", "subject", "accessor", "sha256"):
        if record.get(name):
            lines.append(f"  {name:10} {record[name]}")
    for name, value in (record.get("pod") or {}).items():
        lines.append(f"  asserted   {name} {value}")
    if record.get("simulated"):
        lines.append("  SIMULATED: the evidence proves nothing about any machine")
    lines += [f"    {line}" for line in record.get("failed") or ()]  # of a hand-over
    if record.get("verdict"):
        result = result_from_dict(record["verdict"])
        lines.append(f"  verdict    {result.summary()}")
        lines += [f"    {line}" for line in result.explain()]
    return "\n".join(lines)
