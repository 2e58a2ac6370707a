"""TokenReview, against a stand-in of an API server that speaks HTTPS and checks what it is sent."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from attestation.simulator.device import Device
from attestation.simulator.hierarchy import Hierarchy
from attestation.verifier.cluster.pod_token import PodIdentity
from attestation.verifier.cluster.token_review import PATH, TokenReviewer
from attestation.verifier.reasons import Reason, RefusedError
from server.kubernetes.client import Client
from server.kubernetes.credentials import ServiceAccount
from tests.attestation.verifier.process import make_site, policy, verifier
from tests.attestation.verifier.test_refusals import Guest, inside
from tests.attestation.verifier.tokens import AUDIENCE, UID, Issuer
from tests.support.certificates import write_pair

POD = PodIdentity("prod", "shop", "default", "payments-1", UID)


class ApiServer:
    """The stand-in. `status`: what it says of any token; `code`, `hang`: how it fails."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.code, self.hang, self.body = 201, False, b""
        self.seen: list[Any] = []
        self.status: dict[str, Any] = {
            "authenticated": True,
            "audiences": [AUDIENCE],
            "user": {
                "username": "system:serviceaccount:shop:default",
                "extra": {
                    "authentication.kubernetes.io/pod-name": ["payments-1"],
                    "authentication.kubernetes.io/pod-uid": [UID],
                },
            },
        }

    async def answer(self, request: web.Request) -> web.Response:
        if self.hang:
            await asyncio.sleep(300)
        assert request.headers["Authorization"] == "Bearer of the verifier"
        review = await request.json()
        self.seen.append(review)
        body = self.body or json.dumps({**review, "status": self.status}).encode()
        return web.Response(status=self.code, body=body)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[tuple[ApiServer, str]]:
    folder = tmp_path / "api"
    folder.mkdir()
    write_pair(folder)
    (folder / "token").write_text("of the verifier\n")
    server = ApiServer(folder)
    app = web.Application()
    app.router.add_post(PATH, server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield server, f"https://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def confirm(server: ApiServer, url: str, seconds: float = 30.0) -> Reason:
    """The reason of the refusal, BELIEVED without one."""
    client = Client(ServiceAccount(url, server.folder / "ca.crt", server.folder / "token"))
    try:
        await TokenReviewer(client, frozenset({AUDIENCE, "second"}), seconds).confirm("the-token", POD)
    except RefusedError as error:
        # The token itself is nobody's to read.
        return Reason.TOKEN_MALFORMED if "the-token" in str(error) else error.reason
    finally:
        await client.close()
    return Reason.ACCEPTED


async def test_it_is_asked_for_the_audiences_and_believed(api: tuple[ApiServer, str]) -> None:
    server, url = api
    assert await confirm(server, url) is Reason.ACCEPTED
    assert server.seen == [
        {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": "the-token", "audiences": [AUDIENCE, "second"]},
        }
    ]


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("authenticated",), False, Reason.TOKEN_WITHDRAWN),
        (("authenticated",), "true", Reason.TOKEN_WITHDRAWN),
        (("audiences",), ["https://kubernetes.default.svc"], Reason.TOKEN_AUDIENCE),
        (("audiences",), [], Reason.TOKEN_AUDIENCE),
        (("audiences",), None, Reason.TOKEN_AUDIENCE),
        (("audiences",), [{}], Reason.TOKEN_AUDIENCE),
        (("user", "username"), "system:serviceaccount:shop:other", Reason.POD_MISMATCH),
        (("user", "extra", "authentication.kubernetes.io/pod-name"), ["payments-2"], Reason.POD_MISMATCH),
        (("user", "extra", "authentication.kubernetes.io/pod-uid"), [UID, "another"], Reason.POD_MISMATCH),
        (("user", "extra"), None, Reason.POD_MISMATCH),
        (("user",), [], Reason.POD_MISMATCH),
    ],
)
async def test_what_it_does_not_agree_with_is_refused(
    api: tuple[ApiServer, str], path: tuple[str, ...], value: object, reason: Reason
) -> None:
    server, url = api
    inner = server.status
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    assert await confirm(server, url) is reason


@pytest.mark.parametrize(
    ("code", "body"), [(403, b"{}"), (500, b"{}"), (201, b"no JSON"), (201, b"[]"), (201, b"{}"), (302, b"")]
)
async def test_no_usable_answer_is_no_refusal(api: tuple[ApiServer, str], code: int, body: bytes) -> None:
    server, url = api
    server.code, server.body = code, body
    assert await confirm(server, url) is Reason.POD_UNAVAILABLE


async def test_a_slow_or_foreign_server_is_given_up(api: tuple[ApiServer, str], tmp_path: Path) -> None:
    server, url = api
    (tmp_path / "other").mkdir()
    write_pair(tmp_path / "other")
    (tmp_path / "other" / "token").write_text("of the verifier")
    foreign = ApiServer(tmp_path / "other")
    assert await confirm(foreign, url) is Reason.POD_UNAVAILABLE
    assert server.seen == []
    server.hang = True
    assert await confirm(server, url, 0.1) is Reason.POD_UNAVAILABLE


async def test_a_verifier_asks_only_for_tokens_that_its_cluster_signed(
    api: tuple[ApiServer, str], tmp_path: Path, hierarchy: Hierarchy, device: Device, issuer: Issuer
) -> None:
    server, url = api
    (tmp_path / "site").mkdir()
    site = make_site(tmp_path / "site", hierarchy, issuer, "http://127.0.0.1:1")
    site.write_policy("payments", policy())
    files = {"ca": str(server.folder / "ca.crt"), "token": str(server.folder / "token")}
    site.settings["clusters"][0]["tokenReview"] = {"url": url, "timeoutSeconds": 10, **files}

    def guests() -> None:
        with verifier(site) as running:
            client = running.client()
            assert Guest(client, device, issuer.token()).attest().status == 200
            assert len(server.seen) == 1
            forged = Guest(client, device, Issuer().token()).attest()
            assert inside(running, forged)[0] == "token-signature"
            assert len(server.seen) == 1
            server.status["authenticated"] = False
            withdrawn = Guest(client, device, issuer.token()).attest()
            assert (withdrawn.status, inside(running, withdrawn)[0]) == (401, "token-withdrawn")

    await asyncio.to_thread(guests)
