"""The leader's part: take one step after another, each one guarded write."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from certs.ca_bundle import bundle_patch
from certs.metrics import CertificateMetrics
from certs.periods import Periods
from certs.rotation import Change, Publish, Step, Wait, next_step
from certs.secret_data import data_for, secret_of
from certs.state import ROTATE, Live, State, read_live, read_state, secret_data
from server import logs
from server.kubernetes.client import JSON_PATCH, MERGE_PATCH, Client
from server.kubernetes.errors import StatusError, reason_of, status_of
from server.kubernetes.objects import WatchedObject, version_of

# Owns no field: an object that it makes has nothing in it.
_FIELD_MANAGER: Final = "morphisms-webhook-maker"

_RETRY: Final = timedelta(seconds=2)
_MAX_RETRY: Final = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class WatchedState:
    """The objects that hold all state: the two Secrets, and the live webhook configurations."""

    authority: WatchedObject
    leaf: WatchedObject
    configurations: Sequence[WatchedObject]

    @property
    def is_known(self) -> bool:
        """Whether the API server has said of each what it is."""
        return all(each.is_known for each in (self.authority, self.leaf, *self.configurations))

    def live(self) -> list[Live]:
        """The webhook configurations that exist."""
        return [read_live(each.ref.resource, each.value) for each in self.configurations if each.value is not None]


class Leader:
    """One term of leading; a new term knows nothing of former ones. `names` are the webhook's DNS names."""

    def __init__(self, client: Client, names: Sequence[str], state: WatchedState, metrics: CertificateMetrics) -> None:
        self._client = client
        self._names = names
        self._watched = state
        self._secrets = {each.ref.name: each for each in (state.authority, state.leaf)}
        self._configurations = list(state.configurations)
        self._metrics = metrics
        self._since: dict[x509.Certificate, datetime] = {}
        self._failures = 0

    async def step(self, periods: Periods) -> datetime | None:
        """Take one step. The answer is when to take the next unless something changes before, None for at once."""
        now = self._client.clock.now()
        if not self._watched.is_known:
            return now + _MAX_RETRY
        state = self._state()
        self._observe(state, now)
        step = next_step(state, self._since, now, periods)
        if isinstance(step, Wait):
            self._failures = 0
            return step.until
        label = step.value if isinstance(step, Change) else "publish bundle"
        try:
            await self._take(step, state, now, periods)
        except Exception as error:  # logged, counted, and tried again
            self._metrics.steps.labels(label, "failed").inc()
            return self._failed(step, label, error)
        self._metrics.steps.labels(label, "done").inc()
        logs.info("certificate_step", step=label, object=_object_of(step))
        self._failures = 0
        return None

    def _state(self) -> State:
        watched = self._watched
        return read_state(self._names, watched.authority.value, watched.leaf.value, watched.live())

    def _observe(self, state: State, now: datetime) -> None:
        trusted = {found for found in state.bundle if state.live and state.trusted_by_all(found)}
        self._since = {found: self._since.get(found, now) for found in trusted}

    async def _take(self, step: Step, state: State, now: datetime, periods: Periods) -> None:
        if isinstance(step, Change):
            await self._write(step, state, now, periods)
        elif isinstance(step, Publish):
            await self._publish(step.name, state.bundle)

    async def _write(self, change: Change, state: State, now: datetime, periods: Periods) -> None:
        secret = self._secrets[secret_of(change)]
        if secret.value is None:
            empty = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret.ref.name}}
            secret.accept(await self._client.apply(secret.ref.path, empty, _FIELD_MANAGER))
            if secret_data(secret.value):
                return  # another replica has filled it meanwhile: the next step looks again
        data = {
            key: base64.b64encode(value).decode() if value is not None else None
            for key, value in data_for(change, state, now, periods).items()
        }
        metadata: dict[str, object] = {"resourceVersion": version_of(secret.value)}
        if state.rotation_requested and change in (Change.MAKE_COMING, Change.MAKE_AUTHORITY):
            metadata["annotations"] = {ROTATE: None}
        body = {"metadata": metadata, "data": data}
        secret.accept(await self._client.patch(secret.ref.path, MERGE_PATCH, body))

    async def _publish(self, name: str, bundle: Sequence[x509.Certificate]) -> None:
        watched = next(each for each in self._configurations if each.ref.resource == name)
        if watched.value is not None:
            patch = bundle_patch(watched.value, bundle)
            watched.accept(await self._client.patch(watched.ref.path, JSON_PATCH, patch))

    def _failed(self, step: Step, label: str, error: Exception) -> datetime:
        # An outdated version, or a `test` that fails: another writer was faster, and its change is on its way to us.
        if not (isinstance(error, StatusError) and error.is_outdated):
            logs.warning(
                "certificate_step_failed",
                step=label,
                object=_object_of(step),
                reason=reason_of(error),
                status=status_of(error),
            )
        if isinstance(step, Publish):  # the next try is for another configuration, if another one needs it
            self._configurations.sort(key=lambda each: each.ref.resource == step.name)
        self._failures += 1
        delay: timedelta = min(_MAX_RETRY, _RETRY * 2.0 ** min(self._failures - 1, 8))
        return self._client.clock.now() + delay


def _object_of(step: Step) -> str:
    return secret_of(step) if isinstance(step, Change) else step.name if isinstance(step, Publish) else ""
