"""Probes again and again while this replica leads, and publishes the results in one ConfigMap."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from server import logs
from server.kubernetes.client import MERGE_PATCH
from server.kubernetes.errors import KubernetesError, StatusError, reason_of, status_of
from webhook.configuration.model import Configuration
from webhook.scanner.metrics import ScannerMetrics
from webhook.scanner.probes.probe import probe, read_own_tokens
from webhook.scanner.probes.published import KEY, Published, about, write_published
from webhook.wellknown import PROBES_CONFIG_MAP

if TYPE_CHECKING:
    from server.kubernetes.client import Client

_LOOK_SECONDS: Final = 0.5
_LEAST_SECONDS: Final = 10.0
_FIELD_MANAGER: Final = "morphisms-scanner"


class Prober:
    """`run` until cancelled. `seconds` is the time between two rounds, and at least ten of them pass in any case."""

    def __init__(
        self,
        configuration: Callable[[], Configuration],
        metrics: ScannerMetrics,
        is_leader: Callable[[], bool],
        *,
        namespace: str,
        seconds: float,
        least_seconds: float = _LEAST_SECONDS,
    ) -> None:
        self._configuration = configuration
        self._metrics = metrics
        self._is_leader = is_leader
        self._path = f"/api/v1/namespaces/{namespace}/configmaps/{PROBES_CONFIG_MAP}"
        self._namespace = namespace
        self._seconds = seconds
        self._least_seconds = least_seconds
        self._wakes = asyncio.Event()
        self._probed: tuple[float, str] | None = None

    def wake(self) -> None:
        """Look whether a round is due, such as when this replica begins to lead."""
        self._wakes.set()

    async def run(self, client: Client) -> None:
        """Probe at once, when the configuration's addresses or CAs change, and every `seconds`."""
        while True:
            if self._is_leader() and self._is_due():
                await self._round(client)
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._wakes.wait()
            self._wakes.clear()

    def _is_due(self) -> bool:
        if self._probed is None:
            return True
        at, subject = self._probed
        passed = time.monotonic() - at
        if passed < self._least_seconds:
            return False
        return passed >= self._seconds or subject != about(self._configuration())

    async def _round(self, client: Client) -> None:
        configuration = self._configuration()
        self._probed = (time.monotonic(), about(configuration))
        own = await read_own_tokens(client)
        at = client.clock.now()
        probes = await probe(configuration, own)
        logs.info("probed", **{check.value.replace("-", "_"): each.state.value for check, each in probes.items()})
        self._metrics.probed({check.value: each.state.value for check, each in probes.items()})
        if not self._is_leader():
            return
        data = {KEY: write_published(Published(at, about(configuration), probes))}
        try:
            await self._write(client, data)
        except KubernetesError as error:
            logs.warning("probes_not_written", reason=reason_of(error), status=status_of(error))

    async def _write(self, client: Client, data: dict[str, str]) -> None:
        try:
            await client.patch(self._path, MERGE_PATCH, {"data": data})
        except StatusError as error:
            if error.status != 404:
                raise
            metadata = {"name": PROBES_CONFIG_MAP, "namespace": self._namespace}
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
            await client.apply(self._path, body, _FIELD_MANAGER)
