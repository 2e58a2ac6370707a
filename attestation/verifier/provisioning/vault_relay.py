"""Guests' way to the OpenBao on this machine's loopback: TLS by the verifier's own certificate, once it is unsealed.

OpenBao itself listens on the loopback alone. So nobody reaches one that is not initialised or still sealed, and no file
holds a key for it.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge

from server import logs
from server.peers import peer_address, peer_network
from server.service import Address
from server.tls import HeldCertificate

_CHUNK = 64 << 10
_MAX_CONNECTIONS = 512
_HANDSHAKE_SECONDS, _CONNECT_SECONDS = 5.0, 5.0
_IDLE_SECONDS = 120.0  # longer than clients keep an idle connection


@dataclass(eq=False, slots=True)
class _Passage:
    """One connection of a peer's, and the writers to both ends."""

    peer: str
    guest: asyncio.StreamWriter
    vault: asyncio.StreamWriter | None = field(default=None)

    def abort(self) -> None:
        for writer in (self.guest, self.vault):
            if writer is not None:
                writer.transport.abort()


@dataclass(frozen=True, slots=True)
class Relayed:
    """`listen`: where guests connect. `beside`: where OpenBao listens, without TLS."""

    listen: Address
    beside: Address


class VaultRelay:
    """Passes bytes on while `serve` runs, and refuses connections while `is_closed`."""

    def __init__(
        self,
        relayed: Relayed,
        certificate: HeldCertificate,
        is_closed: Callable[[], bool],
        registry: CollectorRegistry,
    ) -> None:
        self._relayed = relayed
        self._certificate = certificate
        self._is_closed = is_closed
        self._open: dict[_Passage, None] = {}  # in the order of their coming
        count = Gauge("morphisms_relayed_connections", "Guests' connections to OpenBao now.", registry=registry)
        count.set_function(lambda: float(len(self._open)))
        self._cut = Counter(
            "morphisms_relay_cut", "Connections that the relay ended itself.", ["reason"], registry=registry
        )

    async def serve(self) -> None:
        """Listen until cancelled. Raises OSError."""
        host, port = self._relayed.listen
        server = await asyncio.start_server(
            self._pass,
            None if host == "::" else host,
            port,
            limit=_CHUNK,
            ssl=self._certificate.front,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS,
        )
        logs.info("relays_vault", port=port)
        try:
            await server.serve_forever()
        finally:
            for passage in list(self._open):
                passage.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = (writer.get_extra_info("peername") or ("",))[0]
        passage = _Passage(peer_network(peer_address(str(address))), writer)
        if self._is_closed():
            self._cut.labels("sealed").inc()
            passage.abort()
            return
        self._make_room(passage.peer)
        self._open[passage] = None
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                answers, passage.vault = await asyncio.open_connection(*self._relayed.beside, limit=_CHUNK)
            # TLS has no half of a connection: when one end is done, both are.
            copies = [_copy(reader, passage.vault), _copy(answers, writer)]
            tasks = [asyncio.ensure_future(each) for each in copies]
            _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        except (OSError, TimeoutError) as error:
            self._cut.labels("unreachable").inc()
            logs.warning("vault_relay_failed", error=type(error).__name__)
        finally:
            del self._open[passage]
            for each in (passage.vault, writer):
                if each is not None:
                    each.close()

    def _make_room(self, peer: str) -> None:
        """When there are too many, the peer with the most loses its oldest, so that no peer keeps another one out."""
        if len(self._open) < _MAX_CONNECTIONS:
            return
        held = Tally(each.peer for each in self._open)
        held[peer] += 1
        (greediest, _), *_ = held.most_common(1)
        oldest = next((each for each in self._open if each.peer == greediest), next(iter(self._open)))
        self._cut.labels("displaced").inc()
        oldest.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the end, or until nothing has come for a while. `drain` bounds what is held for a slow reader."""
    while True:
        async with asyncio.timeout(_IDLE_SECONDS):
            data = await reader.read(_CHUNK)
            if not data:
                return
            writer.write(data)
            await writer.drain()
