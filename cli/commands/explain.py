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
from server.yaml.strict import ConfigurationError

HELP = "explain why the verifier accepted or refused a guest, by the correlation id in the guest's log"
EXAMPLE = "morphisms explain 4be1a1c8d0f3c2a7 --config verifier.yaml"

FOUND, NOT_FOUND, UNUSABLE = 0, 1, 2


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("id", metavar="ID", help="16 hexadecimal digits")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the verifier's configuration")
    parser.add_argument("--json", action="store_true", help="one JSON document per record, on stdout")


def run(arguments: argparse.Namespace) -> int:
    """Exit code: 0 explained, 1 no such record (any more), 2 unusable configuration or folder."""
    try:
        folder = load_configuration(arguments.config).explain.folder
        if folder is None:
            raise ConfigurationError([f"{arguments.config}: explain.folder is not set, so nothing is kept"])
        records = find_records(folder, arguments.id)
    except ConfigurationError as error:
        print(f"morphisms explain: {error}", file=sys.stderr)
        return UNUSABLE
    except OSError as error:
        print(f"morphisms explain: {error.filename}: {error.strerror}", file=sys.stderr)
        return UNUSABLE
    if not records:
        print("morphisms explain: no such record on this replica, or it was too long ago", file=sys.stderr)
        return NOT_FOUND
    for record in records:
        print(json.dumps(record, indent=2) if arguments.json else _text(record))
    return FOUND


def _text(record: dict[str, Any]) -> str:
    decision = "believed" if record["reason"] == "believed" else "REFUSED"
    lines = [f"{record['at']}  {record['call']}  {decision}: {record['reason']}"]
    if record["detail"]:
        lines.append(f"  detail     {record['detail']}")
    for name in ("policy", "subject", "accessor"):
        if record.get(name):
            lines.append(f"  {name:10} {record[name]}")
    for name, value in (record.get("pod") or {}).items():
        lines.append(f"  asserted   {name} {value}")
    if record.get("simulated"):
        lines.append("  SIMULATED: the evidence proves nothing about any machine")
    if record.get("verdict"):
        result = result_from_dict(record["verdict"])
        lines.append(f"  verdict    {result.summary()}")
        lines += [f"    {line}" for line in result.explain()]
    return "\n".join(lines)
