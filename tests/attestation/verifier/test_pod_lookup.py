"""Reading the pod back from an API server that answers, lies, hangs, or is not there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from attestation.verifier.cluster.pod_lookup import PodLookup
from attestation.verifier.cluster.pod_token import PodIdentity
from attestation.verifier.reasons import Reason, RefusedError
from server.kubernetes.client import Client
from server.kubernetes.credentials import ServiceAccount

POD = PodIdentity("prod", "shop", "default", "payments-1", "uid-1")
LIVE: dict[str, Any] = {
    "metadata": {
        "uid": "uid-1",
        "labels": {"serving.knative.dev/service": "payments", "serving.knative.dev/revision": "payments-00002"},
    },
    "spec": {"serviceAccountName": "default"},
    "status": {"phase": "Pending", "containerStatuses": [{"imageID": "registry.example/a@sha256:" + "a" * 64}, {}]},
}


class Api:
    """An API server with one pod."""

    def __init__(self) -> None:
        self.status = 200
        self.body = json.dumps(LIVE).encode()
        self.asked: list[tuple[str, str | None]] = []
        self.hang = False

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append((request.raw_path, request.headers.get("Authorization")))
        if self.hang:
            await asyncio.sleep(300)
        return web.Response(status=self.status, body=self.body, headers={"Location": "/elsewhere"})


@pytest.fixture
async def api() -> AsyncIterator[tuple[Api, str]]:
    server = Api()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    yield server, f"http://127.0.0.1:{port}"
    await runner.cleanup()


async def read(url: str, pod: PodIdentity = POD, token: Path | None = None, seconds: float = 60.0) -> PodIdentity:
    client = Client(ServiceAccount(url, token=token))
    try:
        return await PodLookup(client, seconds).look_up(pod)
    finally:
        await client.close()


async def reason(url: str, **options: Any) -> Reason:
    with pytest.raises(RefusedError) as caught:
        await read(url, **options)
    return caught.value.reason


async def test_service_revision_and_images_are_the_live_pods(api: tuple[Api, str], tmp_path: Path) -> None:
    server, url = api
    (tmp_path / "token").write_text("of-the-verifier\n")
    found = await read(url, token=tmp_path / "token")
    assert (found.service, found.revision, found.images) == ("payments", "payments-00002", ("sha256:" + "a" * 64,))
    assert server.asked == [("/api/v1/namespaces/shop/pods/payments-1", "Bearer of-the-verifier")]
    assert found.claims()["k8s_service"] == "payments"


async def test_a_pod_without_the_label_is_of_no_service(api: tuple[Api, str]) -> None:
    server, url = api
    server.body = json.dumps({**LIVE, "metadata": {"uid": "uid-1"}}).encode()
    assert (await read(url)).service == ""


async def test_names_stay_in_their_place_of_the_path(api: tuple[Api, str]) -> None:
    server, url = api
    await read(url, PodIdentity("prod", "../x", "default", "a/b?c", "uid-1"))
    assert server.asked[0][0] == "/api/v1/namespaces/..%2Fx/pods/a%2Fb%3Fc"


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"uid": "uid-2"}},
        {"metadata": {}},
        {"metadata": {"uid": "uid-1", "deletionTimestamp": "2026-01-01T00:00:00Z"}},
        {"spec": {"serviceAccountName": "admin"}},
        {"status": {"phase": "Failed"}},
        {"status": {"phase": "Succeeded"}},
    ],
)
async def test_another_or_ended_pod_is_refused(api: tuple[Api, str], change: dict[str, Any]) -> None:
    server, url = api
    server.body = json.dumps({**LIVE, **change}).encode()
    assert await reason(url) is Reason.POD_MISMATCH


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (404, b"{}", Reason.POD_MISMATCH),
        (401, b"{}", Reason.POD_UNAVAILABLE),
        (403, b"{}", Reason.POD_UNAVAILABLE),
        (500, b"{}", Reason.POD_UNAVAILABLE),
        (302, b"", Reason.POD_UNAVAILABLE),
        (200, b"", Reason.POD_UNAVAILABLE),
        (200, b"[" * 100_000, Reason.POD_UNAVAILABLE),
        (200, b" " * ((1 << 20) + 1), Reason.POD_UNAVAILABLE),
        (200, b"[]", Reason.POD_MISMATCH),
        (200, b'{"metadata":[],"spec":1}', Reason.POD_MISMATCH),
    ],
)
async def test_what_is_no_answer_is_no_belief(api: tuple[Api, str], status: int, body: bytes, expected: Reason) -> None:
    server, url = api
    server.status, server.body = status, body
    assert await reason(url) is expected
    assert len(server.asked) == 1


async def test_one_that_hangs_or_is_not_there_is_unavailable(api: tuple[Api, str], tmp_path: Path) -> None:
    server, url = api
    server.hang = True
    assert await reason(url, seconds=0.2) is Reason.POD_UNAVAILABLE
    assert await reason("http://127.0.0.1:1") is Reason.POD_UNAVAILABLE
    assert await reason(url, token=tmp_path / "gone") is Reason.POD_UNAVAILABLE
