"""Bounded HTTP to Vault. Clusters' API servers have a client of their own: `server.kubernetes.client`."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from attestation.errors import PeerError
from kbs.trust import trusting
from server.bounded_body import whole_body
from server.yaml.strict import ConfigurationError


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body of an answer. `date`: its Date, None where it has none."""

    status: int
    body: bytes = field(repr=False)
    date: str | None = None


@dataclass
class Peer:
    """One server. `ca`: PEM file, None for the system's store. `limit` in bytes, `timeout` in seconds for the whole
    exchange. `read`: gives the file's content.
    """

    url: str
    ca: Path | None = None
    timeout: float = 5.0
    limit: int = 1 << 20
    read: Callable[[Path], bytes] = Path.read_bytes
    _session: aiohttp.ClientSession | None = field(default=None, init=False, repr=False)

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float | None = None,
    ) -> Answer:
        """One request. Raises PeerError; any status is an answer, a redirect too. `seconds`: in place of `timeout`."""
        longest = self.timeout if seconds is None else seconds
        session = self._session
        if session is None or session.closed:
            # Bounds a peer that hangs: waiting for a connection counts into the timeout.
            connector = aiohttp.TCPConnector(ssl=self.context(), limit=64)
            session = self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        sent = dict(headers or {})
        try:
            async with session.request(
                method,
                self.url.rstrip("/") + path,
                data=body,
                headers=sent,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=longest),
            ) as response:
                content = await whole_body(response, self.limit)
                if content is None:
                    raise PeerError(f"answered more than {self.limit} bytes")
                return Answer(response.status, content, response.headers.get("Date"))
        except TimeoutError:
            raise PeerError(f"no answer in {longest:g} s", is_slow=True) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise PeerError(f"cannot be reached: {type(error).__name__}") from None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def context(self) -> ssl.SSLContext | bool:
        """For TLS: the configured CA alone, or the system's. Raises OSError or ValueError for an unusable file."""
        if not self.url.startswith("https:"):
            return True
        ca = "" if self.ca is None else self.read(self.ca).decode(errors="replace")
        if self.ca is not None and not ca:
            raise ValueError("the file is empty")
        context = trusting(ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


class Peers:
    """All peers of this process; their connections end with it. `read`: gives the content of a CA file."""

    def __init__(self, read: Callable[[Path], bytes] = Path.read_bytes) -> None:
        self._read = read
        self._closing: list[Callable[[], Awaitable[None]]] = []

    def add(self, url: str, ca: Path | None, timeout: float = 5.0) -> Peer:
        """A new peer. Raises ConfigurationError when its CA file cannot be used."""
        peer = Peer(url, ca, timeout, read=self._read)
        try:
            peer.context()
        except (OSError, ValueError):
            raise ConfigurationError([f"{ca}: not a readable PEM file with CA certificates"]) from None
        self.close_too(peer.close)
        return peer

    def close_too(self, close: Callable[[], Awaitable[None]]) -> None:
        """Also close these connections at the end."""
        self._closing.append(close)

    async def close_at_end(self) -> None:
        """Wait to be cancelled, then close all connections."""
        try:
            await asyncio.Event().wait()
        finally:
            for close in self._closing:
                await close()
