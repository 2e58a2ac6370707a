"""What the cluster has on record about a namespace: since when it has its mode, and since when its report is clean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cli.audit.words import mode_word
from cli.preflight.lines import Line, State
from server.kubernetes.client import Client
from server.kubernetes.errors import StatusError
from server.kubernetes.lease import lease_ref
from server.kubernetes.untyped import TIME_FORM, mapping, mappings, text
from server.text import printable
from webhook.modes import Mode
from webhook.scanner.application import LEASE
from webhook.scanner.reports.api import served_api
from webhook.scanner.reports.document import CLUSTER_REPORT
from webhook.scanner.reports.results import READY
from webhook.wellknown import MODE_LABEL, SYSTEM_NAMESPACE

_PAGE: Final = "docs/rollout.md#from-audit-to-enforce"
_ROUNDED_UP: Final = timedelta(seconds=59)
# A scanner that leads renews its Lease every few seconds.
_LEASE_IS_OLD: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Reported:
    """The namespace's result in the cluster's report: `mode` is the one that the scanner saw.

    `clean_since` is None while a workload is not ready for `enforce`; `message` says how many are not.
    """

    mode: str
    message: str
    clean_since: datetime | None


async def reported(client: Client, namespace: str) -> Reported | str:
    """What the scanner reports of the namespace, or why nothing is known. Raises the client's errors, but for 403."""
    try:
        lease = await client.find(lease_ref(SYSTEM_NAMESPACE, LEASE).path)
        if problem := _not_running(lease, client.clock.now()):
            return problem
        api = await served_api(client)
        if api is None:
            return "the cluster has no kind for reports; install the definitions of openreports.io"
        report = await client.find(f"{api.path('')}/{CLUSTER_REPORT}")
    except StatusError as error:
        return f"the API server answers {error.status} to reading the scanner's Lease or the cluster's report"
    return (
        "there is no report of the cluster; run the scanner with --reports" if report is None else of(report, namespace)
    )


def _not_running(lease: Mapping[str, Any] | None, now: datetime) -> str:
    spec = mapping((lease or {}).get("spec"))
    renewed = _time(text(spec.get("renewTime")), "%Y-%m-%dT%H:%M:%S.%fZ")
    if not spec.get("holderIdentity") or renewed is None or now - renewed > _LEASE_IS_OLD:
        return f"no scanner runs that keeps the reports: Lease {SYSTEM_NAMESPACE}/{LEASE} is not renewed"
    return ""


def of(report: Mapping[str, Any], namespace: str) -> Reported | str:
    """The namespace's result in the report of the cluster."""
    for result in mappings(report.get("results")):
        about = {(each.get("kind"), each.get("name")) for each in mappings(result.get("resources"))}
        if result.get("rule") != READY or about != {("Namespace", namespace)}:
            continue
        properties = mapping(result.get("properties"))
        since = _time(text(properties.get("cleanSince")), TIME_FORM) if result.get("result") == "pass" else None
        return Reported(text(properties.get("mode")), text(result.get("message")), since)
    return f"the scanner has not looked at namespace {namespace} yet; it does so every few minutes"


def mode_since(namespace: Mapping[str, Any]) -> datetime | None:
    """When the mode's label was last written, by the API server's own record of managed fields; None: not recorded."""
    return max(_writes(mapping(namespace.get("metadata"))), default=None)


def _writes(metadata: Mapping[str, Any]) -> Iterator[datetime]:
    for entry in mappings(metadata.get("managedFields")):
        labels = mapping(mapping(mapping(entry.get("fieldsV1")).get("f:metadata")).get("f:labels"))
        written = _time(text(entry.get("time")), TIME_FORM)
        if f"f:{MODE_LABEL}" in labels and written is not None:
            yield written


def _time(value: str, form: str) -> datetime | None:
    try:
        return datetime.strptime(value, form).replace(tzinfo=UTC)
    except ValueError:
        return None


def clean(found: Reported | str, mode: Mode, since: datetime | None, now: datetime, wanted: timedelta) -> Line:
    """Whether the report is clean, and has been for as long as `wanted` in the present mode.

    `since`: when the namespace got its mode; what was seen before that says nothing about this mode.
    """
    if isinstance(found, str):
        return _refused(found)
    if found.clean_since is None:
        return _refused(f"the report is not clean: {printable(found.message)}")
    if not wanted:
        return Line("report", State.OK, f"clean since {_minute(found.clean_since)}", _PAGE)
    word = mode_word(mode)
    if found.mode != mode.value:
        return _refused(f"the scanner has not looked since the namespace has mode {word}; it does so every few minutes")
    if since is None:
        return _refused("the API server has no record since when the namespace has its mode; --clean-for 0 needs none")
    begin = max(found.clean_since, since)
    if now - begin < wanted:
        ends = _minute(begin + wanted + _ROUNDED_UP)
        return _refused(f"clean in mode {word} since {_minute(begin)}, and not yet for {wanted}; try again at {ends}")
    return Line("report", State.OK, f"clean in mode {word} since {_minute(begin)}", _PAGE)


def _refused(words: str) -> Line:
    return Line("report", State.FAILED, words, _PAGE)


def _minute(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"
