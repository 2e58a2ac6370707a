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


def _copies(item: Json, count: int, services: int, name: str = "app-@SERVICE@-@NUMBER@", **owner: str) -> Iterator[str]:
    """Copies as JSON that differ in their names, and a little in their templates; every seventh holds a password.

    The text is made once: to copy and write each object would take the server longer than the pass takes.
    """
    plain, telling = (_text(item, name, owner, *more) for more in ((), (_PASSWORD,)))
    for number in range(count):
        service = number % services
        text = plain if number % 7 else telling
        text = text.replace("@SERVICE@", str(service)).replace("@NUMBER@", str(number))
        yield text.replace("@TEAM@", f"team-{service % _NAMESPACES}")


_PASSWORD: Final = {"name": "DB_PASSWORD", "value": "hunter2-Tr0ub4dor-@NUMBER@"}


def _text(item: Json, name: str, owner: Json, *variables: Json) -> str:
    """The object as JSON, with `@SERVICE@`, `@NUMBER@` and `@TEAM@` where copies differ."""
    copy = deepcopy(item)
    metadata = copy["metadata"]
    metadata |= {"name": name, "namespace": "@TEAM@", "uid": "u-@NUMBER@"}
    labels = metadata.setdefault("labels", {})
    labels |= {"serving.knative.dev/service": "app-@SERVICE@", "serving.knative.dev/routingState": "active"}
    if owner:
        metadata["ownerReferences"] = [{**owner, "name": "app-@SERVICE@-@NUMBER@", "controller": True}]
    template = copy["spec"].get("template", copy)
    env = template["spec"]["containers"][0].setdefault("env", [])
    env += [{"name": "ORDINAL", "value": "@NUMBER@"}, *variables]
    return json.dumps(copy)


def _serve(more: int) -> None:
    service, revision = (
        _recorded("services-create-payments-by-dev"),
        _recorded("revisions-create-payments-00001-by-controller"),
    )
    deployment = _recorded("deployments-create-payments-by-controller")
    serving = "serving.knative.dev/v1"
    made = {
        f"{_SERVING}/services": lambda: _copies(service, SERVICES, SERVICES, "app-@SERVICE@"),
        f"{_SERVING}/revisions": lambda: _copies(revision, REVISIONS, SERVICES),
        "/apis/apps/v1/deployments": lambda: _copies(deployment, more, SERVICES, apiVersion=serving, kind="Revision"),
        "/apis/apps/v1/replicasets": lambda: _copies(
            deployment, more, SERVICES, apiVersion="apps/v1", kind="Deployment"
        ),
    }
    open_lists: dict[str, Iterator[str]] = {}

    async def handle(request: web.Request) -> web.Response:
        path, limit = request.path, int(request.query["limit"])
        if "continue" not in request.query:
            open_lists[path] = made[path]() if path in made else iter(())
        items = [item for _, item in zip(range(limit), open_lists[path], strict=False)]
        metadata = json.dumps({"resourceVersion": "1"} | ({"continue": "next"} if len(items) == limit else {}))
        text = f'{{"kind": "List", "metadata": {metadata}, "items": [{",".join(items)}]}}'
        return web.Response(text=text, content_type="application/json")

    async def serve() -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve(int(sys.argv[2]))
    else:
        asyncio.run(_pass(sys.argv[2]))
