"""A report as the API keeps it, and what of an old one goes on in a new one. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from server.kubernetes.untyped import TIME_FORM
from webhook.scanner.finding import ObjectId
from webhook.scanner.reports.api import ReportAPI
from webhook.scanner.reports.results import SOURCE, Result
from webhook.wellknown import PREFIX

MANAGED_BY: Final = ("app.kubernetes.io/managed-by", "morphisms")
CLUSTER_REPORT: Final = "morphisms"
"""The name of the cluster's report."""

RESULT_ID: Final = "resultID"
"""The property by which Policy Reporter tells results apart.

Without it the reader makes an id of scope, rule, result, category and message, and keeps one of several results that
differ in their fields alone.
"""

CONTENT: Final = f"{PREFIX}content"
CLEAN_SINCE: Final = f"{PREFIX}clean-since"


@dataclass(frozen=True, slots=True)
class Known:
    """What is kept of a report that the cluster has: the digest of its content, and since when it is clean."""

    content: str
    clean_since: str

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> Known:
        """The report's own."""
        annotations = (report.get("metadata") or {}).get("annotations") or {}
        return cls(str(annotations.get(CONTENT) or ""), str(annotations.get(CLEAN_SINCE) or ""))


def name_of(workload: ObjectId) -> str:
    """Other producers name their reports by the uid alone."""
    return f"morphisms-{workload.uid}" if workload.uid else "morphisms"


def make_report(
    api: ReportAPI,
    workload: ObjectId | None,
    results: Sequence[Result],
    summary: Mapping[str, int],
    *,
    is_clean: bool,
    known: Known | None,
    now: datetime,
) -> dict[str, Any] | None:
    """The report; None where the one that is known says the same. Without a workload it is the cluster's.

    A result's time is when the report changed. `clean-since` stays while the workload stays clean. What another version
    wrote in another form says something else, and is written once more.
    """
    entries = [_entry(workload, each) for each in results]
    content = _digest(entries, summary)
    if known is not None and known.content == content and bool(known.clean_since) == is_clean:
        return None
    clean_since = (known.clean_since if known is not None else "") or now.strftime(TIME_FORM)
    seconds = {"seconds": int(now.timestamp()), "nanos": 0}
    for entry in entries:
        entry["timestamp"] = seconds
        if is_clean:  # a namespace in the cluster's report has a time of its own
            entry["properties"].setdefault("cleanSince", clean_since)
    metadata: dict[str, Any] = {
        "name": CLUSTER_REPORT,
        "labels": {MANAGED_BY[0]: MANAGED_BY[1]},
        # In a merge patch None takes the annotation away.
        "annotations": {CONTENT: content, **({CLEAN_SINCE: clean_since} if is_clean else {})},
    }
    if known is not None and known.clean_since and not is_clean:
        metadata["annotations"][CLEAN_SINCE] = None
    report: dict[str, Any] = {"apiVersion": api.api_version, "kind": api.cluster_kind}
    if workload is not None:
        scope = _reference(workload)
        owner = {key: value for key, value in scope.items() if key != "namespace"}
        metadata |= {"name": name_of(workload), "namespace": workload.namespace, "ownerReferences": [owner]}
        report |= {"kind": api.kind, "scope": scope}
    if api.has_source:
        report["source"] = SOURCE
    return {**report, "metadata": metadata, "summary": dict(summary), "results": entries}


def clean_since(known: Known | None) -> datetime | None:
    """When the workload became clean, by its report; None while it is not."""
    if known is None or not known.clean_since:
        return None
    try:
        return datetime.strptime(known.clean_since, TIME_FORM).replace(tzinfo=UTC)
    except ValueError:
        return None


def _reference(identity: ObjectId) -> dict[str, str]:
    members = {
        "apiVersion": identity.api_version,
        "kind": identity.kind,
        "namespace": identity.namespace,
        "name": identity.name,
        "uid": identity.uid,
    }
    return {key: value for key, value in members.items() if value}


def _entry(workload: ObjectId | None, result: Result) -> dict[str, Any]:
    """The result as the API keeps it, without times."""
    return {
        "source": SOURCE,
        "policy": SOURCE,
        "rule": result.rule,
        "category": result.category,
        "severity": result.severity,
        "result": result.result,
        "scored": result.result in ("pass", "fail"),
        "message": result.message,
        "properties": {**dict(result.properties), RESULT_ID: _result_id(workload, result)},
        **({} if result.resource is None else {"resources": [_reference(result.resource)]}),
    }


def _result_id(workload: ObjectId | None, result: Result) -> str:
    """Unique in the cluster, and the same in each pass that finds the same."""
    subject = result.resource if workload is None else workload
    field = dict(result.properties).get("field", "")
    parts = [subject and _reference(subject), result.rule, result.result, result.message, field]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _digest(entries: Sequence[Mapping[str, Any]], summary: Mapping[str, int]) -> str:
    return hashlib.sha256(json.dumps([entries, sorted(summary.items())]).encode()).hexdigest()[:32]
