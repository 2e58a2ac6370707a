"""AMD's key service: its URLs, and a client that stays within the service's limits.

The service gives about one VCEK in ten seconds to an address and answers 429 beyond that, for minutes. So requests for
VCEKs wait in one queue, at the service's limits, in which the clients take turns; equal ones share an answer. Chains
and revocation lists have a lane of their own. It cannot give VLEKs: those come from the guest.
Source: AMD 57230, "VCEK Certificate and KDS Interface Specification".
"""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from attestation.errors import KeyServiceError
from attestation.pki.turns import Turns
from attestation.report.products import ProductLine
from attestation.report.tcb import Tcb

DEFAULT_URL = "https://kdsintf.amd.com"
MAX_ANSWER_SIZE = 64 * 1024  # a VCEK has 1.4 KB, a chain 4.7 KB, a CRL 0.9 KB
_QUERY_NAMES = {"fmc": "fmcSPL", "bootloader": "blSPL", "tee": "teeSPL", "snp": "snpSPL", "microcode": "ucodeSPL"}


@dataclass(frozen=True, slots=True)
class VcekId:
    """What a VCEK is derived from, and so all that identifies it: it never changes.

    `chip_id`: as many bytes as the line has, 8 or 64.
    """

    line: ProductLine
    chip_id: bytes
    tcb: Tcb

    def path(self) -> str:
        """Path and query at the key service."""
        query = "&".join(f"{_QUERY_NAMES[name]}={version:02d}" for name, version in self.tcb.as_dict().items())
        return f"/vcek/v1/{self.line.name}/{self.chip_id.hex()}?{query}"


def chain_path(line: ProductLine, *, vlek: bool) -> str:
    """Path of a PEM file with ASK (or ASVK) and ARK."""
    return f"/{'vlek' if vlek else 'vcek'}/v1/{line.name}/cert_chain"


def crl_path(line: ProductLine, *, vlek: bool) -> str:
    """Path of a DER revocation list."""
    return f"/{'vlek' if vlek else 'vcek'}/v1/{line.name}/crl"


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as the client sees it; tests pass their own. `now`: seconds, only ever forward."""

    now: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Limits, in seconds but for the counts.

    `between_vceks`: least distance of two requests for VCEKs. `failure_memory`: how long a failure is repeated without
    a new request. `longest_wait`: the most that a Retry-After is honoured before the request counts as failed.
    `queue_limit`: VCEKs that wait at once; `client_share`: of one client. `client_failures`: VCEKs of one client that
    the service may not know within `failure_memory`, before the client has to wait.
    """

    between_vceks: float = 10.0
    failure_memory: float = 60.0
    default_retry_after: float = 10.0
    longest_wait: float = 120.0
    attempts: int = 5
    request_timeout: float = 20.0
    queue_limit: int = 256
    client_share: int = 32
    client_failures: int = 3


@dataclass
class _Lane:
    """Requests that wait for one another. `not_before`: until a Retry-After is over."""

    spaced: bool
    not_before: float = 0.0
    next_start: float = 0.0


class _UnknownError(KeyServiceError):
    """The service has answered that there is no such thing."""


@dataclass
class KeyService:
    """One client a process. Its methods raise KeyServiceError and nothing else of their own.

    A caller that stops waiting (cancellation, its own deadline) does not stop the request: the next one joins it.
    `failed` is told the reason of each failure that is then remembered.
    """

    session: aiohttp.ClientSession
    base_url: str = DEFAULT_URL
    limits: RequestLimits = field(default_factory=RequestLimits)
    clock: Clock = field(default_factory=Clock)
    failed: Callable[[str], None] = lambda _: None
    _vceks: _Lane = field(default_factory=lambda: _Lane(spaced=True), init=False)
    _lists: _Lane = field(default_factory=lambda: _Lane(spaced=False), init=False)
    _list_turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _running: dict[str, asyncio.Task[bytes]] = field(default_factory=dict, init=False)
    _answers: dict[str, asyncio.Future[bytes]] = field(default_factory=dict, init=False)
    _clients: dict[str, set[str]] = field(default_factory=dict, init=False)
    _failed: dict[str, tuple[float, str]] = field(default_factory=dict, init=False)
    _unknown: dict[str, list[float]] = field(default_factory=dict, init=False)
    _worker: asyncio.Task[None] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._turns = Turns(self.limits.queue_limit, self.limits.client_share)

    async def vcek(self, identity: VcekId, client: str) -> bytes:
        """One VCEK, DER, unverified. `client`: the one whose turn it takes, such as a workload."""
        if identity.line.simulated or not identity.line.supported:
            raise KeyServiceError(f"AMD's key service is not asked about {identity.line.name}")
        if len(identity.chip_id) != identity.line.chip_id_size or not any(identity.chip_id):
            raise KeyServiceError("CHIP_ID is masked: AMD's key service has no VCEK for it")
        path = identity.path()
        self._forget_old_failures()
        self._raise_known_failure(path)
        if self._is_out_of_favor(client):
            raise _too_many_unknown(client)
        self._clients.setdefault(path, set()).add(client)
        return await asyncio.shield(self._answer(path, client))

    async def chain(self, line: ProductLine, *, vlek: bool) -> bytes:
        """ASK (or ASVK) and ARK, PEM, unverified."""
        return await self._get(chain_path(line, vlek=vlek))

    async def crl(self, line: ProductLine, *, vlek: bool) -> bytes:
        """A revocation list, DER, unverified."""
        return await self._get(crl_path(line, vlek=vlek))

    async def close(self) -> None:
        """Stop all requests. The session is the caller's."""
        tasks: list[asyncio.Task[Any]] = [*self._running.values(), *([] if self._worker is None else [self._worker])]
        for task in tasks:
            task.cancel()
        for answer in self._answers.values():
            answer.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _get(self, path: str) -> bytes:
        """A chain or a list: at most one request for it is under way, and failures are remembered for a while."""
        self._forget_old_failures()
        self._raise_known_failure(path)
        task = self._running.get(path)
        if task is None:
            task = asyncio.create_task(self._fetch_list(path))
            self._running[path] = task
            task.add_done_callback(lambda _: self._running.pop(path, None))
            task.add_done_callback(_seen)
        return await asyncio.shield(task)

    async def _fetch_list(self, path: str) -> bytes:
        async with self._list_turn:
            await self._wait_for_turn(self._lists)
            return await self._attempts(path, self._lists)

    def _answer(self, path: str, client: str) -> asyncio.Future[bytes]:
        """The answer of a VCEK's request: under way, or with a place in this client's line."""
        answer = self._answers.get(path)
        if answer is not None and path not in self._turns:
            return answer  # under way
        displaced = self._turns.add(client, path)
        if answer is None:
            answer = self._answers[path] = asyncio.get_running_loop().create_future()
            answer.add_done_callback(_seen)
        if displaced is not None:
            self._finish(
                displaced, KeyServiceError("the queue for AMD's key service is full of this client's requests")
            )
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return answer

    async def _work(self) -> None:
        """Fetch VCEKs one after another, until none waits. Who is next is decided when the service takes the next."""
        try:
            while self._turns:
                await self._wait_for_turn(self._vceks)
                path = self._turns.take()
                try:
                    self._finish(path, await self._attempts(path, self._vceks))
                except _UnknownError as error:
                    self._count_against(self._clients.get(path, set()))
                    self._finish(path, error)
                except KeyServiceError as error:
                    self._finish(path, error)
        finally:
            self._worker = None

    def _count_against(self, clients: set[str]) -> None:
        """Each has named a chip that the service does not know; too many, and its other requests do not wait on."""
        for client in clients:
            self._unknown.setdefault(client, []).append(self.clock.now() + self.limits.failure_memory)
            if self._is_out_of_favor(client):
                for path in self._turns.drop(client):
                    self._finish(path, _too_many_unknown(client))

    def _is_out_of_favor(self, client: str) -> bool:
        return len(self._unknown.get(client, ())) >= self.limits.client_failures

    def _finish(self, path: str, outcome: bytes | KeyServiceError) -> None:
        answer = self._answers.pop(path)
        self._clients.pop(path, None)
        if answer.cancelled():
            return
        if isinstance(outcome, bytes):
            answer.set_result(outcome)
        else:
            answer.set_exception(outcome)

    def _raise_known_failure(self, path: str) -> None:
        if path in self._failed:
            raise KeyServiceError(f"{self._failed[path][1]} (asked a moment ago)")

    def _forget_old_failures(self) -> None:
        now = self.clock.now()
        for path in [path for path, (until, _) in self._failed.items() if until <= now]:
            del self._failed[path]
        self._unknown = {
            client: kept
            for client, times in self._unknown.items()
            if (kept := [until for until in times if until > now])
        }

    async def _attempts(self, path: str, lane: _Lane) -> bytes:
        """The body at a path; a failure is remembered. The first attempt is made at once."""
        try:
            return await self._answered(path, lane)
        except KeyServiceError as error:
            self._failed[path] = (self.clock.now() + self.limits.failure_memory, str(error))
            self.failed(str(error))
            raise

    async def _answered(self, path: str, lane: _Lane) -> bytes:
        waited = 0.0
        for number in range(self.limits.attempts):
            if number:
                await self._wait_for_turn(lane)
            if lane.spaced:
                lane.next_start = self.clock.now() + self.limits.between_vceks
            status, body, retry_after = await self._request(path)
            if status == 200:
                return body
            if status not in (429, 500, 502, 503, 504):
                raise _UnknownError(f"AMD's key service answered {status}, required 200")
            waited += retry_after
            if waited > self.limits.longest_wait:
                raise KeyServiceError(
                    f"AMD's key service answered {status} and asks for {waited:.0f} s in all,"
                    f" required at most {self.limits.longest_wait:.0f} s"
                )
            lane.not_before = max(lane.not_before, self.clock.now() + retry_after)
        raise KeyServiceError(f"AMD's key service did not answer 200 in {self.limits.attempts} attempts")

    async def _wait_for_turn(self, lane: _Lane) -> None:
        """Not before a Retry-After is over, and VCEKs not before the service gives the next one."""
        remaining = max(lane.not_before, lane.next_start) - self.clock.now()
        if remaining > 0:
            await self.clock.sleep(remaining)

    async def _request(self, path: str) -> tuple[int, bytes, float]:
        timeout = aiohttp.ClientTimeout(total=self.limits.request_timeout)
        try:
            async with self.session.get(
                self.base_url.rstrip("/") + path, timeout=timeout, allow_redirects=False
            ) as response:
                body = await _bounded(response.content)
                return response.status, body, self._retry_after(response.headers.get("Retry-After"))
        except aiohttp.ClientHttpProxyError as error:
            raise KeyServiceError(f"the proxy on the way to AMD's key service answered {error.status}") from None
        except aiohttp.ClientProxyConnectionError:
            raise KeyServiceError("the proxy on the way to AMD's key service cannot be reached") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KeyServiceError(f"AMD's key service cannot be reached: {type(error).__name__}") from None

    def _retry_after(self, header: str | None) -> float:
        """Seconds, from a number or a date (RFC 9110, 10.2.3); the default for anything else."""
        if header is None:
            return self.limits.default_retry_after
        if header.isascii() and header.isdigit() and len(header) <= 9:
            return float(header)
        try:
            return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - self.clock.wall())
        except (ValueError, TypeError, OverflowError):
            return self.limits.default_retry_after


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    """As server/bounded_body.py, which certificates must not import: the sidecar carries nothing of the server."""
    parts: list[bytes] = []
    size = 0
    async for part in content.iter_chunked(8192):
        size += len(part)
        if size > MAX_ANSWER_SIZE:
            raise KeyServiceError(f"AMD's key service answered more than {MAX_ANSWER_SIZE} bytes")
        parts.append(part)
    return b"".join(parts)


def _too_many_unknown(client: str) -> KeyServiceError:
    return KeyServiceError(f"AMD's key service did not know the last chips that {client} named")


def _seen(finished: asyncio.Future[Any]) -> None:
    """A failure counts as seen, also when every caller has left."""
    if not finished.cancelled():
        finished.exception()
