"""Requests to one API server: raw JSON by path, each within a total deadline and a bound of bytes.

Raw, because the models of a client library take many times the memory of what we keep of an object. A redirect is an
error, since none is ever right and the token must not follow it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from aiohttp.http_exceptions import LineTooLong

from server.bounded_body import whole_body
from server.kubernetes.clock import ServerClock
from server.kubernetes.credentials import Access, Credentials
from server.kubernetes.errors import AnswerError, StatusError, UnreachableError

Object = Mapping[str, Any]
Query = Iterable[tuple[str, str]]

MERGE_PATCH: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
_APPLY_PATCH: Final = "application/apply-patch+yaml"
_JSON: Final = "application/json"

SECONDS: Final = 10.0
"""For one exchange, unless the caller says otherwise."""

MAX_BYTES: Final = 8 << 20
"""Of one answer, unless the caller says otherwise: several times what etcd stores of an object."""

_SUCCESS: Final = {"GET": (200,), "POST": (200, 201), "PUT": (200, 201), "PATCH": (200, 201), "DELETE": (200, 202)}

# What waits for a connection counts into its deadline.
_CONNECTIONS: Final = 64
# A watch's event is one line; twice this is the longest. etcd stores objects of 1.5 MiB by default.
_LINE_BUFFER_BYTES: Final = 2 << 20


class Lines:
    """The whole lines of a streamed answer; a last line that was cut off is left out."""

    def __init__(self, content: aiohttp.StreamReader, idle_seconds: float, answered: Callable[[], None]) -> None:
        self._content = content
        self._idle_seconds = idle_seconds
        self._answered = answered

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        with _translated(self._idle_seconds):
            line = await self._content.readline()
        if line:
            self._answered()
        if not line.endswith(b"\n"):
            raise StopAsyncIteration
        return line


class Client:
    """Every method raises CredentialsError, UnreachableError, StatusError or AnswerError, and nothing else.

    `clock` follows the server's time. `answered_at`: when the server last sent anything, whatever its status, as
    `time.monotonic` counts. `proxies`: whether HTTPS_PROXY and NO_PROXY count, as for kubectl.
    """

    def __init__(self, credentials: Credentials, *, proxies: bool = False) -> None:
        self.clock = ServerClock()
        self.answered_at = time.monotonic()
        self._credentials = credentials
        self._proxies = proxies
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def read(
        self,
        path: str,
        query: Query = (),
        *,
        seconds: float = SECONDS,
        max_bytes: int = MAX_BYTES,
        accept: str = _JSON,
    ) -> bytes:
        """The body of a GET, of a media type in `accept`: the API server answers any other with 406."""
        return await self._exchange("GET", path, query, seconds=seconds, max_bytes=max_bytes, accept=accept)

    async def get(
        self, path: str, query: Query = (), *, seconds: float = SECONDS, max_bytes: int = MAX_BYTES
    ) -> Object:
        """The JSON object that a GET answers with."""
        return _object(await self.read(path, query, seconds=seconds, max_bytes=max_bytes))

    async def find(self, path: str, *, seconds: float = SECONDS, max_bytes: int = MAX_BYTES) -> Object | None:
        """As `get`; None when the server answers that there is no such object."""
        try:
            return await self.get(path, seconds=seconds, max_bytes=max_bytes)
        except StatusError as error:
            if error.status == 404:
                return None
            raise

    async def post(self, path: str, body: Object, *, seconds: float = SECONDS, max_bytes: int = MAX_BYTES) -> Object:
        """Create `body`, or have it reviewed."""
        return _object(await self._exchange("POST", path, (), body, _JSON, seconds=seconds, max_bytes=max_bytes))

    async def put(self, path: str, body: Object) -> Object:
        """Replace the object, guarded by the resourceVersion in `body`.

        Without a resourceVersion, create the object where its kind allows that.
        """
        return _object(await self._exchange("PUT", path, (), body, _JSON))

    async def patch(self, path: str, content_type: str, body: object, query: Query = ()) -> Object:
        """Patch the object; `content_type` is MERGE_PATCH or JSON_PATCH."""
        return _object(await self._exchange("PATCH", path, query, body, content_type))

    async def delete(self, path: str, query: Query = ()) -> Object:
        """Delete the object, or begin to."""
        return _object(await self._exchange("DELETE", path, query))

    async def apply(self, path: str, body: Object, manager: str) -> Object:
        """Server-side apply. With nothing but a name in `body`, create the object when it is absent, and else keep it.

        The name stands in the path, so RBAC can limit the verb `create` to it.
        """
        return _object(await self._exchange("PATCH", path, (("fieldManager", manager),), body, _APPLY_PATCH))

    async def try_out(self, path: str, body: Object, *, seconds: float = SECONDS) -> tuple[int, str]:
        """Create `body` as a dry run, which stores nothing: the status, and what the server says where it refuses."""
        data, headers = json.dumps(body).encode(), {"Content-Type": _JSON}
        query, timeout = (("dryRun", "All"),), aiohttp.ClientTimeout(total=seconds)
        with _translated(seconds):
            response = await self._send("POST", path, query, data, headers, timeout)
            try:
                content = await _read_bounded(response, MAX_BYTES)
            finally:
                response.close()
        message = _object(content).get("message") if response.status not in _SUCCESS["POST"] else ""
        return response.status, message if isinstance(message, str) else ""

    @asynccontextmanager
    async def stream(
        self, path: str, query: Query, *, open_seconds: float, idle_seconds: float, total_seconds: float
    ) -> AsyncIterator[Lines]:
        """The lines of a GET that stays open: a watch.

        Bounds, in seconds: until the server answers, between two parts of the answer, and for all of it.
        """
        timeout = aiohttp.ClientTimeout(total=total_seconds, sock_connect=open_seconds, sock_read=idle_seconds)
        with _translated(open_seconds):
            async with asyncio.timeout(open_seconds):
                response = await self._send("GET", path, query, None, {}, timeout)
        try:
            _check(response, "GET")
            yield Lines(response.content, idle_seconds, self._answered)
        finally:
            response.close()

    async def _exchange(
        self,
        method: str,
        path: str,
        query: Query,
        body: object = None,
        content_type: str = "",
        *,
        seconds: float = SECONDS,
        max_bytes: int = MAX_BYTES,
        accept: str = _JSON,
    ) -> bytes:
        data, headers = None, {"Accept": accept}
        if body is not None:
            data, headers = json.dumps(body).encode(), {**headers, "Content-Type": content_type}
        with _translated(seconds):
            response = await self._send(method, path, query, data, headers, aiohttp.ClientTimeout(total=seconds))
            try:
                content = await _read_bounded(response, max_bytes)
            finally:
                response.close()
        _check(response, method)
        return content

    async def _send(
        self,
        method: str,
        path: str,
        query: Query,
        data: bytes | None,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's, which bounds each part
    ) -> aiohttp.ClientResponse:
        """The response, its body unread. Once more after a 401, when that brings newer credentials."""
        access = await self._credentials.access()
        response = await self._send_as(access, method, path, query, data, headers, timeout)
        if response.status == 401 and await self._credentials.renew(access):
            response.close()
            access = await self._credentials.access()
            response = await self._send_as(access, method, path, query, data, headers, timeout)
        return response

    async def _send_as(
        self,
        access: Access,
        method: str,
        path: str,
        query: Query,
        data: bytes | None,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - as above
    ) -> aiohttp.ClientResponse:
        sent = {"Accept": _JSON, **headers}
        if access.authorization is not None:
            sent["Authorization"] = access.authorization
        response = await self._open_session().request(
            method,
            access.server + path,
            params=list(query),
            data=data,
            headers=sent,
            allow_redirects=False,
            timeout=timeout,
            ssl=access.tls,
            server_hostname=access.server_name,
            proxy=access.proxy,
        )
        self._answered()
        self.clock.observe(response.headers.get("Date"))
        return response

    def _answered(self) -> None:
        self.answered_at = time.monotonic()

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=self._proxies,
                read_bufsize=_LINE_BUFFER_BYTES,
            )
        return self._session


@contextmanager
def _translated(seconds: float) -> Iterator[None]:
    """Let aiohttp's errors leave as ours, without their texts, which quote the URL. `seconds` is the deadline."""
    try:
        yield
    except TimeoutError as error:
        raise UnreachableError(f"no answer in {seconds:g} s", type(error).__name__) from None
    except LineTooLong:
        raise AnswerError("a line is larger than any object") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise UnreachableError(f"cannot be reached: {type(error).__name__}", type(error).__name__) from None


async def _read_bounded(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    content = await whole_body(response, max_bytes)
    if content is None:
        raise AnswerError(f"the answer is larger than {max_bytes} bytes")
    return content


def _check(response: aiohttp.ClientResponse, method: str) -> None:
    if response.status not in _SUCCESS[method]:
        raise StatusError.from_response(response.status, response.headers)


def _object(content: bytes) -> Object:
    try:
        found = json.loads(content.decode())
    except (ValueError, RecursionError):
        raise AnswerError("the answer is not JSON") from None
    if not isinstance(found, dict):
        raise AnswerError("the answer is not a JSON object")
    return found
