"""The leader's part: take one step after another, each one guarded write."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from certs.clock import Clock
from certs.log import Log
from certs.metrics import CertificateMetrics
from certs.objects import MERGE, PATCH, AnswerError, Followed, Objects, version_of
from certs.pem import write_certificates
from certs.periods import Periods
from certs.rotation import Change, Publish, Step, Wait, next_step
from certs.secret_data import secret_of, write
from certs.state import AUTHORITY_SECRET, ROTATE, Object, State, read_live, read_state, secret_data, webhooks_of

# Owns no field: an object that it makes has nothing in it.
_MAKER: Final = "morphisms-webhook-maker"

_RETRY: Final = timedelta(seconds=2)
_MOST_RETRY: Final = timedelta(seconds=30)


class Leading:
    """One term of leading; a new term knows nothing of former ones."""

    def __init__(
        self,
        objects: Objects,
        clock: Clock,
        names: Sequence[str],
        secrets: Mapping[str, Followed],
        configurations: Sequence[Followed],
        metrics: CertificateMetrics,
        log: Log,
    ) -> None:
        self._objects = objects
        self._clock = clock
        self._names = names
        self._secrets = secrets
        self._configurations = list(configurations)
        self._metrics = metrics
        self._log = log
        self._since: dict[x509.Certificate, datetime] = {}
        self._failures = 0

    async def step(self, periods: Periods) -> datetime | None:
        """Take one step; the time to look again unless something changes before, None for at once."""
        if not all(each.known for each in (*self._secrets.values(), *self._configurations)):
            return self._clock.now() + _MOST_RETRY
        now = self._clock.now()
        state = self._state()
        self._observe(state, now)
        step = next_step(state, self._since, now, periods)
        if isinstance(step, Wait):
            self._failures = 0
            return step.until
        label = step.value if isinstance(step, Change) else "publish bundle"
        try:
            await self._take(step, state, now, periods)
        except Exception as error:  # told, counted, and tried again
            self._metrics.steps.labels(label, "failed").inc()
            return self._failed(step, label, error)
        self._metrics.steps.labels(label, "done").inc()
        self._log.info("certificate_step", step=label, object=_object_of(step))
        self._failures = 0
        return None

    def _state(self) -> State:
        values = {name: followed.value for name, followed in self._secrets.items()}
        live = [read_live(each.place.kind, each.value) for each in self._configurations if each.value is not None]
        authority = values.pop(AUTHORITY_SECRET)
        (leaf,) = values.values()
        return read_state(self._names, authority, leaf, live)

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
            name = secret.place.name
            empty = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
            secret.accept(await self._objects.ensure(secret.place, empty, _MAKER))
            if secret_data(secret.value):
                return  # another has made it meanwhile: look again
        data = {
            key: base64.b64encode(value).decode() if value is not None else None
            for key, value in write(change, state, now, periods).items()
        }
        metadata: dict[str, object] = {"resourceVersion": version_of(secret.value)}
        if state.asked and change in (Change.MAKE_COMING, Change.MAKE_AUTHORITY):
            metadata["annotations"] = {ROTATE: None}
        secret.accept(await self._objects.patch(secret.place, MERGE, {"metadata": metadata, "data": data}))

    async def _publish(self, name: str, bundle: Sequence[x509.Certificate]) -> None:
        followed = next(each for each in self._configurations if each.place.kind == name)
        if followed.value is not None:
            followed.accept(await self._objects.patch(followed.place, PATCH, bundle_patch(followed.value, bundle)))

    def _failed(self, step: Step, label: str, error: Exception) -> datetime:
        status = error.status if isinstance(error, AnswerError) else None
        # 409 and 422 (a `test` that fails): somebody was faster, and what they did is on its way to us.
        if status not in (409, 422):
            self._log.warning(
                "certificate_step_failed",
                step=label,
                object=_object_of(step),
                reason=type(error).__name__,
                status=status,
            )
        if isinstance(step, Publish):  # the next try is for another one, if another one needs it
            self._configurations.sort(key=lambda each: each.place.kind == step.name)
        self._failures += 1
        delay: timedelta = min(_MOST_RETRY, _RETRY * 2.0 ** min(self._failures - 1, 8))
        return self._clock.now() + delay


def bundle_patch(configuration: Object, bundle: Sequence[x509.Certificate]) -> list[dict[str, object]]:
    """JSON Patch (RFC 6902) that sets the caBundle of the webhooks that have another one, and nothing else.

    It applies to the very version that was looked at: a list has indices only, and somebody may have changed it.
    """
    encoded = base64.b64encode(write_certificates(bundle)).decode()
    patch: list[dict[str, object]] = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": version_of(configuration)}
    ]
    for index, webhook in enumerate(webhooks_of(configuration)):
        if not _has(webhook, bundle):
            patch.append({"op": "test", "path": f"/webhooks/{index}/name", "value": webhook.get("name")})
            # `add` of a member also replaces it; a caBundle that is empty is not there to be replaced.
            patch.append({"op": "add", "path": f"/webhooks/{index}/clientConfig/caBundle", "value": encoded})
    return patch


def _has(webhook: Mapping[str, object], bundle: Sequence[x509.Certificate]) -> bool:
    (found,) = read_live("", {"webhooks": [webhook]}).bundles
    return found is not None and set(found) == set(bundle)


def _object_of(step: Step) -> str:
    return secret_of(step) if isinstance(step, Change) else step.name if isinstance(step, Publish) else ""
