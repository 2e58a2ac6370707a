"""Requests as an API server gets them, and each way in which an answer can be unusable."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from server.kubernetes.client import JSON_PATCH, MERGE_PATCH, Client
from server.kubernetes.credentials import ServiceAccount
from server.kubernetes.errors import AnswerError, KubernetesError, StatusError, UnreachableError, reason_of, status_of
from tests.server.kubernetes.conftest import Recorder
from tests.webhook.cluster.apiserver import Fault, body, hang, refuse, status

Call = Callable[[Client], Awaitable[object]]
PATH = "/api/v1/namespaces/shop/secrets/one"
_PATIENCE = 60.0


@pytest.mark.parametrize(
    ("call", "method", "content_type", "query"),
    [
        (lambda client: client.post(PATH, {"a": 1}), "POST", "application/json", ""),
        (lambda client: client.put(PATH, {"a": 1}), "PUT", "application/json", ""),
        (lambda client: client.patch(PATH, MERGE_PATCH, {"a": 1}), "PATCH", MERGE_PATCH, ""),
        (lambda client: client.patch(PATH, JSON_PATCH, {"a": 1}), "PATCH", JSON_PATCH, ""),
        (
            lambda client: client.apply(PATH, {"a": 1}, "us"),
            "PATCH",
            "application/apply-patch+yaml",
            "?fieldManager=us",
        ),
    ],
)
async def test_writes_say_what_their_body_is(
    recorder: Recorder, client: Client, call: Call, method: str, content_type: str, query: str
) -> None:
    assert await call(client) == {"a": 1}
    assert recorder.requests == [(method, PATH + query, content_type, b'{"a": 1}')]


async def test_queries_are_encoded_and_paths_stay_as_they_are(recorder: Recorder, client: Client) -> None:
    await client.get("/api/v1/namespaces/..%2Fx/pods/a%2Fb", [("labelSelector", "a/b!=c&d"), ("continue", "x+y=")])
    ((method, path, _, content),) = recorder.requests
    assert (method, content) == ("GET", b"")
    assert path == "/api/v1/namespaces/..%2Fx/pods/a%2Fb?labelSelector=a/b!%3Dc%26d&continue=x%2By%3D"


async def test_an_absent_object_is_none_and_any_other_failure_is_not(recorder: Recorder, client: Client) -> None:
    recorder.answers.extend([status(404), status(403)])
    assert await client.find(PATH) is None
    with pytest.raises(StatusError) as caught:
        await client.find(PATH)
    assert (caught.value.status, caught.value.reason, status_of(caught.value)) == (403, "status", 403)


@pytest.mark.parametrize(("given", "seconds"), [("7", 7.0), (None, 0.0), ("Wed, 21 Oct 2026", 0.0), ("-3", 0.0)])
async def test_a_status_error_carries_how_long_to_wait(
    recorder: Recorder, client: Client, given: str | None, seconds: float
) -> None:
    recorder.answers.append(status(429, given))
    with pytest.raises(StatusError) as caught:
        await client.get(PATH)
    assert caught.value.retry_after_seconds == seconds


@pytest.mark.parametrize(("code", "is_outdated"), [(409, True), (422, True), (403, False), (500, False)])
async def test_an_outdated_write_is_told_from_a_refused_one(
    recorder: Recorder, client: Client, code: int, is_outdated: bool
) -> None:
    recorder.answers.append(status(code))
    with pytest.raises(StatusError) as caught:
        await client.put(PATH, {})
    assert caught.value.is_outdated is is_outdated


async def test_a_redirect_is_an_error_and_is_not_followed(recorder: Recorder, client: Client) -> None:
    async def elsewhere(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    recorder.answers.append(elsewhere)
    with pytest.raises(StatusError) as caught:
        await client.get(PATH)
    assert caught.value.status == 307
    assert len(recorder.requests) == 1


async def test_a_get_that_creates_is_an_error(recorder: Recorder, client: Client) -> None:
    recorder.answers.extend([status(201), status(201)])
    with pytest.raises(StatusError):
        await client.get(PATH)
    assert (await client.put(PATH, {}))["code"] == 201


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        (body(b""), AnswerError, "not JSON"),
        (body(b"hunter2"), AnswerError, "not JSON"),
        (body(b"[" * 100_000), AnswerError, "not JSON"),
        (body(b'["hunter2"]'), AnswerError, "not a JSON object"),
        (body(b'{"a":"' + b"x" * 200_000 + b'"}'), AnswerError, "larger than 150000 bytes"),
        (hang, UnreachableError, r"no answer in 0\.2 s"),
    ],
)
async def test_an_unusable_answer_is_an_error_without_its_content(
    recorder: Recorder, client: Client, fault: Fault, kind: type[KubernetesError], text: str
) -> None:
    recorder.answers.append(fault)
    with pytest.raises(kind, match=text) as caught:
        await client.get(PATH, seconds=0.2 if fault is hang else _PATIENCE, max_bytes=150_000)
    assert "hunter2" not in str(caught.value)
    assert recorder.url not in str(caught.value)


async def test_a_body_that_trickles_meets_the_total_deadline(recorder: Recorder, client: Client) -> None:
    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.02)

    recorder.answers.append(trickle)
    started = time.monotonic()
    with pytest.raises(UnreachableError):
        await client.get(PATH, seconds=0.3)
    assert time.monotonic() - started < 60


async def test_a_server_that_is_not_there_is_unreachable() -> None:
    async with Client(ServiceAccount("http://127.0.0.1:1")) as client:
        with pytest.raises(UnreachableError) as caught:
            await client.get(PATH)
    assert reason_of(caught.value) == "ClientConnectorError"
    assert "127.0.0.1" not in str(caught.value)


async def test_its_clock_follows_the_servers(recorder: Recorder, client: Client) -> None:
    async def dated(_request: web.Request) -> web.StreamResponse:
        return web.json_response({}, headers={"Date": "Tue, 15 Nov 1994 08:12:31 GMT"})

    recorder.answers.append(dated)
    await client.get(PATH)
    assert client.clock.now().year == 1994


# Streams


async def _stream(client: Client, seconds: float = _PATIENCE) -> list[bytes]:
    async with client.stream(PATH, (), open_seconds=seconds, idle_seconds=seconds, total_seconds=_PATIENCE) as lines:
        return [line async for line in lines]


def _lines(*parts: bytes, hangs: bool = False) -> Fault:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for part in parts:
            await response.write(part)
        return await hang(request) if hangs else response

    return answer


async def test_a_stream_is_its_whole_lines(recorder: Recorder, client: Client) -> None:
    recorder.answers.append(_lines(b"one\ntw", b"o\nthr"))
    assert await _stream(client) == [b"one\n", b"two\n"]


@pytest.mark.parametrize(
    ("fault", "kind", "seconds"),
    [
        (status(410), StatusError, _PATIENCE),
        (hang, UnreachableError, 0.3),
        (_lines(b"one\n", hangs=True), UnreachableError, 0.3),
        (_lines(b"x" * (5 << 20)), AnswerError, _PATIENCE),
    ],
)
async def test_a_stream_that_fails_raises_one_of_our_errors(
    recorder: Recorder, client: Client, fault: Fault, kind: type[KubernetesError], seconds: float
) -> None:
    recorder.answers.append(fault)
    with pytest.raises(kind):
        await _stream(client, seconds)


async def test_a_refused_connection_is_unreachable(recorder: Recorder, client: Client) -> None:
    recorder.answers.extend([refuse, refuse])
    with pytest.raises(UnreachableError):
        await client.put(PATH, {})


async def test_what_the_body_of_a_stream_raises_is_left_alone(recorder: Recorder, client: Client) -> None:
    recorder.answers.append(_lines(b"one\n"))
    with pytest.raises(TimeoutError, match="mine"):
        async with client.stream(PATH, (), open_seconds=_PATIENCE, idle_seconds=_PATIENCE, total_seconds=_PATIENCE):
            raise TimeoutError("mine")
