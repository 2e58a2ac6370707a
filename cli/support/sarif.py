"""Findings as SARIF 2.1.0 (OASIS), which code hosts show beside the changed lines."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from cli.support.findings import Finding
from cli.support.manifests import Manifest
from plan.layout import VERSION
from webhook.configuration.exceptions import PolicyException
from webhook.rules import POD
from webhook.rules.rule import Rule, Severity

_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS: Final = {
    Severity.CRITICAL: "error",
    Severity.HIGH: "error",
    Severity.MEDIUM: "warning",
    Severity.LOW: "note",
}
# CVSS-like figures by which code hosts sort security findings.
_SCORES: Final = {Severity.CRITICAL: "9.5", Severity.HIGH: "8.0", Severity.MEDIUM: "5.0", Severity.LOW: "2.0"}
_ROOT: Final = "%SRCROOT%"


def sarif(findings: Sequence[Finding], not_evaluated: Sequence[str], notes: Sequence[tuple[Manifest, str]] = ()) -> str:
    """The log of one run: a description per rule, a result per finding, a notification per note."""
    places = {rule.id: index for index, rule in enumerate(POD)}
    run: dict[str, Any] = {
        "tool": {"driver": {"name": "morphisms", "version": VERSION, "rules": [_rule(rule) for rule in POD]}},
        "originalUriBaseIds": {_ROOT: {"description": {"text": "The folder that the check ran in."}}},
        "invocations": [
            {
                "executionSuccessful": True,
                "toolExecutionNotifications": [
                    {
                        "level": "note",
                        "message": {"text": f"not evaluated without a snapshot of the cluster: {rule}"},
                        "associatedRule": {"id": rule, "index": places[rule]},
                    }
                    for rule in not_evaluated
                ]
                + [_note(manifest, note) for manifest, note in notes],
            }
        ],
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, places[finding.rule.id]) for finding in findings],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rule(rule: Rule[Any]) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.summary},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
        "properties": {"tags": ["security"], "security-severity": _SCORES[rule.severity]},
    }


def _note(manifest: Manifest, note: str) -> dict[str, Any]:
    return {
        "level": "note",
        "message": {"text": f"{manifest.title}: {note}"},
        "locations": [{"physicalLocation": _place(manifest)}],
    }


def _place(manifest: Manifest) -> dict[str, Any]:
    return {
        "artifactLocation": {"uri": _uri(manifest.source), "uriBaseId": _ROOT},
        "region": {"startLine": manifest.line},
    }


def _result(finding: Finding, index: int) -> dict[str, Any]:
    manifest = finding.manifest
    exception = finding.exception
    suppressed = {} if exception is None else {"suppressions": [_suppression(exception)]}
    return {
        "ruleId": finding.rule.id,
        "ruleIndex": index,
        "level": _LEVELS[finding.rule.severity],
        "message": {"text": f"{manifest.title}: {finding.message}"},
        "locations": [
            {
                "physicalLocation": _place(manifest),
                "logicalLocations": [{"fullyQualifiedName": f"{manifest.title}/{finding.field}", "kind": "member"}],
            }
        ],
        **suppressed,
    }


def _suppression(exception: PolicyException) -> dict[str, Any]:
    return {
        "kind": "external",
        "status": "accepted",
        "justification": f"{exception.reason} (until {exception.expires:%Y-%m-%dT%H:%M:%SZ})",
    }


def _uri(source: str) -> str:
    """A URI reference relative to the folder that the check ran in."""
    return quote(Path(os.path.relpath(source)).as_posix())
