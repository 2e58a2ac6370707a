"""Two Secrets, two webhook configurations and some replicas as plain data, changed by the real steps and writes.

Time is a number that a test moves. What API servers believe lags behind what is written, by up to the settling time.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from prometheus_client import CollectorRegistry

from certs.chain import valid, voucher
from certs.metrics import CertificateMetrics
from certs.pem import Pair, read_pair, write_certificates
from certs.periods import Periods
from certs.rotation import Change, Publish, Step, Wait, next_step
from certs.secret_data import data_for, secret_of
from certs.serving import Serving
from certs.state import AUTHORITY_SECRET, LEAF_SECRET, ROTATE, Live, Object, State, read_live, read_state

NAMES = ("hook.system.svc", "hook.system.svc.cluster.local", "hook.system")
PERIODS = Periods(leaf=timedelta(days=7), authority=timedelta(days=365), settle=timedelta(minutes=1))
START = datetime(2030, 1, 1, tzinfo=UTC)
CONFIGURATIONS = ("mutating", "validating")


class Replica:
    """A replica's real `Serving`; `connected` is whether it sees what changes."""

    def __init__(self) -> None:
        metrics = CertificateMetrics(CollectorRegistry(), lambda: False, lambda: 0.0)
        self.serving = Serving(NAMES, self._install, metrics)
        self.leaf: Pair | None = None
        self.connected = True

    def _install(self, certificate: bytes, key: bytes) -> None:
        self.leaf = read_pair(certificate, key)
        assert self.leaf is not None


class Cluster:
    """The world. A leader's term begins with `crash` and knows nothing but what it sees."""

    def __init__(self, replicas: int = 2, webhooks: int = 2) -> None:
        self.now = START
        self.secrets: dict[str, dict[str, bytes] | None] = {AUTHORITY_SECRET: {}, LEAF_SECRET: {}}
        self.asked = False
        self.bundles: dict[str, list[bytes]] = {name: [b""] * webhooks for name in CONFIGURATIONS}
        self.history: list[tuple[datetime, dict[str, list[bytes]]]] = []
        self.since: dict[x509.Certificate, datetime] = {}
        self.replicas = [Replica() for _ in range(replicas)]
        self.taken: list[Step] = []
        self.refusing: set[str] = set()

    # What the leader does

    def step(self) -> Step:
        """Look, decide, write; as `certs.leader` does it against an API server."""
        state = self.state()
        trusted = {found for found in state.bundle if state.live and state.trusted_by_all(found)}
        self.since = {found: self.since.get(found, self.now) for found in trusted}
        step = next_step(state, self.since, self.now, PERIODS)
        if isinstance(step, Change):
            self._write(step, state)
        elif isinstance(step, Publish) and step.name not in self.refusing:
            pem = write_certificates(state.bundle)
            self.set_bundles({step.name: [pem] * len(self.bundles[step.name])})
        self.taken.append(step)
        self.look()
        return step

    def settle(self, most: int = 60) -> list[Step]:
        """Steps until there is nothing to do for a while, waiting where the leader waits for things to settle."""
        done: list[Step] = []
        for _ in range(most):
            step = self.step()
            done.append(step)
            if isinstance(step, Wait):
                if step.until - self.now > timedelta(minutes=5):
                    return done
                self.pass_time(step.until - self.now)
        raise AssertionError(f"no rest: {done}")

    def crash(self) -> None:
        """Another leader, who has seen nothing yet."""
        self.since = {}

    # What goes on around

    def pass_time(self, span: timedelta) -> None:
        self.now += span
        self.look()

    def look(self) -> None:
        leaf, live = self._secret(LEAF_SECRET), self.live()
        for replica in self.replicas:
            if replica.connected:
                replica.serving.reconcile(leaf, live, self.now)

    def set_bundles(self, bundles: dict[str, list[bytes]]) -> None:
        self.history.append((self.now, dict(self.bundles)))
        self.bundles = {**self.bundles, **bundles}

    # What there is

    def state(self) -> State:
        return read_state(NAMES, self._secret(AUTHORITY_SECRET), self._secret(LEAF_SECRET), self.live())

    def live(self) -> list[Live]:
        return [_live(name, pems) for name, pems in self.bundles.items()]

    def believed(self) -> list[Live]:
        """Every version of a configuration that some API server may still go by."""
        recent = [bundles for until, bundles in self.history if self.now - until < PERIODS.settle]
        return [_live(name, pems) for bundles in (*recent, self.bundles) for name, pems in bundles.items()]

    def distrusted(self, believed: Sequence[Live]) -> list[Replica]:
        """Replicas whose unexpired certificate somebody would refuse."""
        bundles = [bundle or () for live in believed for bundle in live.bundles]
        return [
            replica
            for replica in self.replicas
            if (leaf := replica.leaf) is not None
            and valid(leaf.certificate, self.now)
            and not all(voucher(bundle, leaf.certificate) for bundle in bundles)
        ]

    def _secret(self, name: str) -> Object | None:
        data = self.secrets[name]
        if data is None:
            return None
        metadata: dict[str, Any] = {"name": name}
        if self.asked and name == AUTHORITY_SECRET:
            metadata["annotations"] = {ROTATE: "now"}
        return {"metadata": metadata, "data": {key: base64.b64encode(value).decode() for key, value in data.items()}}

    def _write(self, change: Change, state: State) -> None:
        name = secret_of(change)
        merged = {**(self.secrets[name] or {}), **data_for(change, state, self.now, PERIODS)}
        self.secrets[name] = {key: value for key, value in merged.items() if value is not None}
        if change in (Change.MAKE_COMING, Change.MAKE_AUTHORITY):
            self.asked = False


def _live(name: str, pems: Sequence[bytes]) -> Live:
    webhooks = [{"clientConfig": {"caBundle": base64.b64encode(pem).decode()}} for pem in pems]
    return read_live(name, {"webhooks": webhooks})
