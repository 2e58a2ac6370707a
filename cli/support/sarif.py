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
LEVELS: Final = {
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
    notifications = [
        {
            "level": "note",
            "message": {"text": f"not evaluated without a snapshot of the cluster: {rule}"},
            "associatedRule": {"id": rule, "index": places[rule]},
        }
        for rule in not_evaluated
    ]
    return sarif_log(
        [_result(finding, places[finding.rule.id]) for finding in findings],
        [*notifications, *(_note(manifest, note) for manifest, note in notes)],
        originalUriBaseIds={_ROOT: {"description": {"text": "The folder that the check ran in."}}},
    )


def sarif_log(results: Sequence[Any], notifications: Sequence[Any], **more: Any) -> str:
    """The log of one run by the rules of pods; `more` are further members of the run."""
    run: dict[str, Any] = {
        "tool": {"driver": {"name": "morphisms", "version": VERSION, "rules": [_rule(rule) for rule in POD]}},
        **more,
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": list(notifications)}],
        "columnKind": "unicodeCodePoints",
        "results": list(results),
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rule(rule: Rule[Any]) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.summary},
        "defaultConfiguration": {"level": LEVELS[rule.severity]},
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
    suppressed = {} if exception is None else {"suppressions": [suppression(exception)]}
    return {
        "ruleId": finding.rule.id,
        "ruleIndex": index,
        "level": LEVELS[finding.rule.severity],
        "message": {"text": f"{manifest.title}: {finding.message}"},
        "locations": [
            {
                "physicalLocation": _place(manifest),
                "logicalLocations": [{"fullyQualifiedName": f"{manifest.title}/{finding.field}", "kind": "member"}],
            }
        ],
        **suppressed,
    }


def suppression(exception: PolicyException) -> dict[str, Any]:
    """An exception as a result carries it."""
    return {
        "kind": "external",
        "status": "accepted",
        "justification": f"{exception.reason} (until {exception.expires:%Y-%m-%dT%H:%M:%SZ})",
    }


def _uri(source: str) -> str:
    """A URI reference relative to the folder that the check ran in."""
    return quote(Path(os.path.relpath(source)).as_posix())
