"""Appraisal policies and guests from one secret in Vault's KV engine, version 2.

One secret, and not one per policy, so that CI can replace the set by check-and-set. Each record in it stands under
CLUSTER/NAMESPACE/SERVICE and for itself: a broken one keeps its last good text, and one that is gone is withdrawn. A
secret that was deleted withdraws all of them; one that cannot be read keeps what was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from urllib.parse import quote

from attestation.verifier.policies.load import PolicyReader
from attestation.verifier.policies.model import PolicySet
from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.vault.credentials import Credentials
from server import logs
from server.watched import FileMetrics
from server.yaml.strict import ConfigurationError, Loaded

NAME = "policies"
_REFRESH_SECONDS, _RETRY_SECONDS = 10.0, 0.5


class PolicySecret:
    """The newest valid version, while `watch` runs. `clusters`: name to whether its pods are looked up."""

    def __init__(
        self, credentials: Credentials, mount: str, path: str, clusters: Mapping[str, bool], metrics: FileMetrics
    ) -> None:
        self._credentials = credentials
        self._url = f"{quote(mount)}/data/{quote(path)}"
        self._place = f"{mount}/{path}"
        self._reader = PolicyReader(clusters)
        self._metrics = metrics
        self._loaded: Loaded[PolicySet] | None = None
        self._version: int | None = None
        self._made: object = None
        self._problems = ["not read yet"]

    @property
    def value(self) -> PolicySet:
        """The policies in force. Raises RefusedError(POLICIES_UNAVAILABLE) until a version was read."""
        if self._loaded is None:
            raise RefusedError(Reason.POLICIES_UNAVAILABLE, self._problems[0])
        return self._loaded.value

    def check(self) -> str | None:
        """The gate: None once a version was read."""
        return None if self._loaded is not None else Reason.POLICIES_UNAVAILABLE.value

    async def watch(self) -> None:
        """Follow new versions until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(_RETRY_SECONDS if self._loaded is None else _REFRESH_SECONDS)

    async def refresh(self) -> None:
        """Read the secret once; report what is broken in it and keep the last valid text of that."""
        try:
            answer = await self._credentials.read_secret(self._url)
            if answer is None:
                self._withdraw()
                return
            metadata, document = answer.get("metadata"), answer.get("data")
            version = metadata.get("version") if isinstance(metadata, dict) else None
            if not isinstance(version, int) or not isinstance(document, dict):
                raise ConfigurationError([f"{self._place}: is not a secret of a KV engine, version 2"])
            # A secret that was removed with its history and created again counts from one again.
            made = (version, metadata.get("created_time") if isinstance(metadata, dict) else None)
            if made == self._made and not self._problems:
                return
            loaded = await asyncio.to_thread(self._reader.document, document, f"{self._place} version {version}")
        except RefusedError as error:
            self._fail([f"{self._place}: {error}"])
            return
        except ConfigurationError as error:
            self._fail(list(error.problems))
            return
        self._made, self._version = made, version
        self._accept(loaded)

    def _withdraw(self) -> None:
        """Drop all records of a secret that was deleted. One that was never there is still awaited."""
        if self._loaded is None:
            self._fail([f"{self._place}: there is no such secret, or its newest version is deleted"])
        elif self._loaded.value.policies:
            self._made = None
            self._accept(self._reader.document({"policies": {}, "guests": {}}, self._place))

    def _accept(self, loaded: Loaded[PolicySet]) -> None:
        before, self._loaded = self._loaded, loaded
        if before is not None and before.digest != loaded.digest:
            self._metrics.digest.remove(NAME, before.digest)
        self._metrics.digest.labels(NAME, loaded.digest).set(1)
        self._metrics.success.labels(NAME).set(1)
        self._metrics.timestamp.labels(NAME).set(time.time())
        if loaded.problems:
            self._fail(list(loaded.problems))
        self._problems = []
        logs.info("policies_loaded", place=self._place, version=self._version, policies=len(loaded.value.policies))

    def _fail(self, problems: list[str]) -> None:
        self._metrics.success.labels(NAME).set(0)
        if problems != self._problems:  # one line per fault, not per poll
            logs.error("policies_not_loaded", problems=problems, kept=self._version)
        self._problems = problems
