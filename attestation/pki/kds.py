"""AMD's key service: its URLs, and a client that stays within the service's limits.

The service gives about one VCEK in ten seconds to an address and answers 429 beyond that, for minutes. So requests wait
in one queue, at the service's limits, and equal ones share an answer. It cannot give VLEKs: those come from the guest.
Source: AMD 57230, "VCEK Certificate and KDS Interface Specification".
"""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from attestation.errors import KeyServiceError
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
    """

    between_vceks: float = 10.0
    failure_memory: float = 60.0
    default_retry_after: float = 10.0
    longest_wait: float = 120.0
    attempts: int = 5
    request_timeout: float = 20.0
    queue_limit: int = 256


@dataclass
class KeyService:
    """One client a process. Its methods raise KeyServiceError and nothing else of their own.

    A caller that stops waiting (cancellation, its own deadline) does not stop the request: the next one joins it.
    """

    session: aiohttp.ClientSession
    base_url: str = DEFAULT_URL
    limits: RequestLimits = field(default_factory=RequestLimits)
    clock: Clock = field(default_factory=Clock)
    _running: dict[str, asyncio.Task[bytes]] = field(default_factory=dict, init=False)
    _failed: dict[str, tuple[float, str]] = field(default_factory=dict, init=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _not_before: float = field(default=0.0, init=False)
    _next_vcek: float = field(default=0.0, init=False)

    async def vcek(self, identity: VcekId) -> bytes:
        """One VCEK, DER, unverified."""
        if identity.line.simulated or not identity.line.supported:
            raise KeyServiceError(f"AMD's key service is not asked about {identity.line.name}")
        if len(identity.chip_id) != identity.line.chip_id_size or not any(identity.chip_id):
            raise KeyServiceError("CHIP_ID is masked: AMD's key service has no VCEK for it")
        return await self._get(identity.path(), spaced=True)

    async def chain(self, line: ProductLine, *, vlek: bool) -> bytes:
        """ASK (or ASVK) and ARK, PEM, unverified."""
        return await self._get(chain_path(line, vlek=vlek))

    async def crl(self, line: ProductLine, *, vlek: bool) -> bytes:
        """A revocation list, DER, unverified."""
        return await self._get(crl_path(line, vlek=vlek))

    async def _get(self, path: str, *, spaced: bool = False) -> bytes:
        """The body at a path: at most one request for it is under way, and failures are remembered for a while."""
        self._forget_old_failures()
        if path in self._failed:
            raise KeyServiceError(f"{self._failed[path][1]} (asked a moment ago)")
        task = self._running.get(path)
        if task is None:
            if len(self._running) >= self.limits.queue_limit:
                raise KeyServiceError(f"{len(self._running)} requests wait already, required fewer")
            task = self._start(path, self._fetch(path, spaced=spaced))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Stop what is under way. The session is the caller's."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, path: str, work: Coroutine[Any, Any, bytes]) -> asyncio.Task[bytes]:
        task = asyncio.create_task(work)
        self._running[path] = task

        def done(finished: asyncio.Task[bytes]) -> None:
            self._running.pop(path, None)
            if not finished.cancelled():
                finished.exception()  # seen, also when every caller has left

        task.add_done_callback(done)
        return task

    def _forget_old_failures(self) -> None:
        now = self.clock.now()
        for path in [path for path, (until, _) in self._failed.items() if until <= now]:
            del self._failed[path]

    async def _fetch(self, path: str, *, spaced: bool) -> bytes:
        try:
            async with self._turn:
                return await self._attempts(path, spaced=spaced)
        except KeyServiceError as error:
            self._failed[path] = (self.clock.now() + self.limits.failure_memory, str(error))
            raise

    async def _attempts(self, path: str, *, spaced: bool) -> bytes:
        waited = 0.0
        for _ in range(self.limits.attempts):
            await self._wait_for_turn(spaced=spaced)
            status, body, retry_after = await self._request(path)
            if status == 200:
                return body
            if status not in (429, 500, 502, 503, 504):
                raise KeyServiceError(f"AMD's key service answered {status}, required 200")
            waited += retry_after
            if waited > self.limits.longest_wait:
                raise KeyServiceError(
                    f"AMD's key service answered {status} and asks for {waited:.0f} s in all,"
                    f" required at most {self.limits.longest_wait:.0f} s"
                )
            self._not_before = max(self._not_before, self.clock.now() + retry_after)
        raise KeyServiceError(f"AMD's key service did not answer 200 in {self.limits.attempts} attempts")

    async def _wait_for_turn(self, *, spaced: bool) -> None:
        """Not before a Retry-After is over, and VCEKs not before the service gives the next one."""
        remaining = max(self._not_before, self._next_vcek if spaced else 0.0) - self.clock.now()
        if remaining > 0:
            await self.clock.sleep(remaining)
        if spaced:
            self._next_vcek = self.clock.now() + self.limits.between_vceks

    async def _request(self, path: str) -> tuple[int, bytes, float]:
        timeout = aiohttp.ClientTimeout(total=self.limits.request_timeout)
        try:
            async with self.session.get(
                self.base_url.rstrip("/") + path, timeout=timeout, allow_redirects=False
            ) as response:
                body = await _bounded(response.content)
                return response.status, body, self._retry_after(response.headers.get("Retry-After"))
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
    parts: list[bytes] = []
    size = 0
    async for part in content.iter_chunked(8192):
        size += len(part)
        if size > MAX_ANSWER_SIZE:
            raise KeyServiceError(f"AMD's key service answered more than {MAX_ANSWER_SIZE} bytes")
        parts.append(part)
    return b"".join(parts)
