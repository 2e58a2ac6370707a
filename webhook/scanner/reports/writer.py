"""Writes reports: those that changed, and none of a workload that is not looked at any more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from server import logs
from server.kubernetes.client import MERGE_PATCH, Client
from server.kubernetes.errors import KubernetesError, reason_of, status_of
from webhook.scanner.finding import ObjectId
from webhook.scanner.reports.api import ReportAPI
from webhook.scanner.reports.document import CLUSTER_REPORT, MANAGED_BY, Known, make_report, name_of
from webhook.scanner.reports.results import Result

_PAGE_ITEMS: Final = 200
_MAX_PAGE_BYTES: Final = 64 << 20
_NOT_FOUND: Final = 404


class _Metadata(msgspec.Struct):
    name: str = ""
    namespace: str = ""
    annotations: dict[str, str] = {}


class _Report(msgspec.Struct):
    """Results are long and are not read."""

    metadata: _Metadata


class _ListMetadata(msgspec.Struct, rename={"continue_": "continue"}):
    continue_: str = ""


class _Page(msgspec.Struct):
    metadata: _ListMetadata
    items: list[_Report] | None = None


_read_page: Final = msgspec.json.Decoder(_Page).decode


class ReportWriter:
    """The reports of one pass. `wrote` is called with the outcome of each write; for metrics."""

    def __init__(
        self, client: Client, api: ReportAPI, now: datetime, wrote: Callable[[str], None] = lambda _outcome: None
    ) -> None:
        self._client = client
        self._api = api
        self._now = now
        self._wrote = wrote
        self._known: dict[tuple[str, str], Known] = {}
        self._kept: set[tuple[str, str]] = set()

    async def read(self) -> None:
        """Learn which reports of ours there are. Raises KubernetesError."""
        for path in (self._api.every, self._api.path("")):
            token = ""
            while True:
                query = [("labelSelector", "=".join(MANAGED_BY)), ("limit", str(_PAGE_ITEMS))]
                body = await self._client.read(
                    path, [*query, *([("continue", token)] if token else [])], max_bytes=_MAX_PAGE_BYTES
                )
                page = _read_page(body)
                for report in page.items or ():
                    metadata = report.metadata
                    known = Known.of({"metadata": {"annotations": metadata.annotations}})
                    self._known[metadata.namespace, metadata.name] = known
                token = page.metadata.continue_
                if not token:
                    break

    def known(self, workload: ObjectId | None) -> Known | None:
        """What is kept of the workload's report, or of the cluster's."""
        return self._known.get(_key(workload))

    async def cluster_report(self) -> Mapping[str, Any]:
        """The cluster's report as it is, with its results; empty where there is none. Raises KubernetesError."""
        return await self._client.find(f"{self._api.path('')}/{_key(None)[1]}") or {}

    async def write(
        self, workload: ObjectId | None, results: Sequence[Result], summary: Mapping[str, int], *, is_clean: bool
    ) -> None:
        """Write the report where it says something else than before."""
        key = _key(workload)
        self._kept.add(key)
        known = self._known.get(key)
        report = make_report(self._api, workload, results, summary, is_clean=is_clean, known=known, now=self._now)
        if report is None:
            self._wrote("unchanged")
            return
        path = self._api.path(key[0])
        await self._try("written", self._put(path, key[1], report, is_new=known is None))

    async def prune(self) -> None:
        """Delete the reports that this pass has not written."""
        for namespace, name in sorted(self._known.keys() - self._kept):
            await self._try("deleted", self._client.delete(f"{self._api.path(namespace)}/{name}"))

    async def _put(self, path: str, name: str, report: dict[str, Any], *, is_new: bool) -> None:
        if is_new:
            await self._client.post(path, report)
        else:
            await self._client.patch(f"{path}/{name}", MERGE_PATCH, report)

    async def _try(self, outcome: str, write: Any) -> None:
        try:
            await write
        except KubernetesError as error:
            outcome = "failed"
            if status_of(error) != _NOT_FOUND:  # its namespace, or the report itself, has gone meanwhile
                logs.warning("report_failed", reason=reason_of(error), status=status_of(error))
        self._wrote(outcome)


def _key(workload: ObjectId | None) -> tuple[str, str]:
    return ("", CLUSTER_REPORT) if workload is None else (workload.namespace, name_of(workload))
