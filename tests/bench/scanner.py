"""The scanner's budget: one pass over 5,000 Services and 50,000 Revisions, its time and its memory.

A process of its own serves the lists, generated page by page from recorded objects, so that neither is measured.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web

from server.kubernetes.client import Client
from server.kubernetes.credentials import ServiceAccount
from tests.support.paths import REVIEWS
from webhook.configuration.model import Configuration
from webhook.modes import Mode
from webhook.scanner.evaluation import Evaluator
from webhook.scanner.lister import ClusterLister
from webhook.scanner.reports.api import OPEN_REPORTS
from webhook.scanner.reports.document import make_report
from webhook.scanner.reports.results import summary_of
from webhook.scanner.scan import scan
from webhook.snapshot import RuntimeClassRecord, Snapshot

SERVICES: Final = 5_000
REVISIONS: Final = 50_000
_BUDGET_MB, _BUDGET_SECONDS = 250, 60
_NAMESPACES: Final = 50
_SERVING: Final = "/apis/serving.knative.dev/v1"
Json = dict[str, Any]


def main() -> None:
    """Print the pass's figures, over the two kinds of the budget, and over their Deployments and ReplicaSets too."""
    for title, more in (("Services and Revisions", 0), ("with a Deployment and a ReplicaSet for each", REVISIONS)):
        figures = _measured(more)
        print(
            f"{title}: {figures['objects']:,} objects, {figures['workloads']:,} reports:"
            f" {figures['seconds']:.1f} s of processor time ({figures['wall']:.1f} s), {figures['mb']:.0f} MB at most;"
            f" budget for Services and Revisions {_BUDGET_SECONDS} s, {_BUDGET_MB} MB"
        )


def _measured(more: int) -> Json:
    command = [sys.executable, "-m", "tests.bench.scanner"]
    with subprocess.Popen([*command, "serve", str(more)], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            done = subprocess.run([*command, "pass", url], check=True, capture_output=True, text=True)
            figures: Json = json.loads(done.stdout.splitlines()[-1])
            return figures
        finally:
            server.terminate()


async def _pass(url: str) -> None:
    snapshot = Snapshot(
        namespaces={f"team-{number}": Mode.AUDIT for number in range(_NAMESPACES)},
        runtime_classes={"kata-qemu-snp": RuntimeClassRecord("kata-qemu-snp", "kata-qemu-snp")},
        now=datetime.now(UTC),
    )
    started, used = time.perf_counter(), time.process_time()
    async with Client(ServiceAccount(url)) as client:
        found = await scan(ClusterLister(client), Evaluator(Configuration(), snapshot), snapshot)
    for each in found.workloads.values():
        results = each.results
        summary = summary_of(results)
        now = datetime.now(UTC)
        make_report(OPEN_REPORTS, each.workload, results, summary, is_clean=each.is_ready, known=None, now=now)
    figures = {
        "objects": found.objects,
        "workloads": len(found.workloads),
        "seconds": time.process_time() - used,
        "wall": time.perf_counter() - started,
        "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(figures))


def _recorded(name: str) -> Json:
    item: Json = json.loads((REVIEWS / f"{name}.json").read_text())["request"]["object"]
    return item


def _copies(item: Json, count: int, services: int, **owner: str) -> Iterator[Json]:
    """Copies that differ in their names, and a little in their templates."""
    for number in range(count):
        copy = deepcopy(item)
        service = number % services
        metadata = copy["metadata"]
        metadata |= {
            "name": f"app-{service}-{number}",
            "namespace": f"team-{service % _NAMESPACES}",
            "uid": f"u-{number}",
        }
        labels = metadata.setdefault("labels", {})
        labels |= {"serving.knative.dev/service": f"app-{service}", "serving.knative.dev/routingState": "active"}
        if owner:
            metadata["ownerReferences"] = [{**owner, "name": f"app-{service}-{number}", "controller": True}]
        template = copy["spec"].get("template", copy)
        env = template["spec"]["containers"][0].setdefault("env", [])
        env.append({"name": "NUMBER", "value": str(number)})
        if number % 7 == 0:
            env.append({"name": "DB_PASSWORD", "value": f"hunter2-Tr0ub4dor-{number}"})
        yield copy


def _serve(more: int) -> None:
    service, revision = (
        _recorded("services-create-payments-by-dev"),
        _recorded("revisions-create-payments-00001-by-controller"),
    )
    deployment = _recorded("deployments-create-payments-by-controller")
    serving = "serving.knative.dev/v1"
    made = {
        f"{_SERVING}/services": lambda: _services(service),
        f"{_SERVING}/revisions": lambda: _copies(revision, REVISIONS, SERVICES),
        "/apis/apps/v1/deployments": lambda: _copies(deployment, more, SERVICES, apiVersion=serving, kind="Revision"),
        "/apis/apps/v1/replicasets": lambda: _copies(
            deployment, more, SERVICES, apiVersion="apps/v1", kind="Deployment"
        ),
    }
    open_lists: dict[str, Iterator[Json]] = {}

    async def handle(request: web.Request) -> web.Response:
        path, limit = request.path, int(request.query["limit"])
        if "continue" not in request.query:
            open_lists[path] = made[path]() if path in made else iter(())
        items = [item for _, item in zip(range(limit), open_lists[path], strict=False)]
        metadata = {"resourceVersion": "1"} | ({"continue": "next"} if len(items) == limit else {})
        return web.json_response({"kind": "List", "metadata": metadata, "items": items})

    async def serve() -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        await asyncio.Event().wait()

    asyncio.run(serve())


def _services(service: Json) -> Iterator[Json]:
    for copy in _copies(service, SERVICES, SERVICES):
        copy["metadata"]["name"] = copy["metadata"]["labels"]["serving.knative.dev/service"]
        yield copy


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve(int(sys.argv[2]))
    else:
        asyncio.run(_pass(sys.argv[2]))
