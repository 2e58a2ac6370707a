"""Whatever happens in whatever order, whoever can call a replica believes it: the law that the steps are there for."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from certs.authority import issue_leaf, make_authority
from certs.chain import valid, vouches
from certs.rotation import Wait
from certs.state import AUTHORITY_SECRET, LEAF_SECRET
from tests.certs.cluster import CONFIGURATIONS, NAMES, PERIODS, Cluster, Replica

_KEYS = {
    AUTHORITY_SECRET: ("ca.crt", "ca.key", "next.crt", "next.key", "former.crt", "former.until"),
    LEAF_SECRET: ("tls.crt", "tls.key", "ca.crt"),
}
_PLACES = [(name, key) for name, keys in _KEYS.items() for key in keys]


class Orders(RuleBasedStateMachine):
    """Leaders that die after any write, damage to either Secret, replicas that are cut off, time."""

    @initialize()
    def installed(self) -> None:
        self.cluster = Cluster()
        self.former_lost = False
        self.ended: set[Replica] = set()
        self.cluster.settle()
        # Until every API server has seen the first bundle nobody was ever believed.
        self.cluster.pass_time(PERIODS.settle)

    @rule(steps=st.integers(1, 4))
    def lead(self, steps: int) -> None:
        for _ in range(steps):
            self.cluster.step()

    @precondition(lambda self: not self.cluster.refusing)
    @rule()
    def come_to_rest(self) -> None:
        self.cluster.settle()

    @rule()
    def crash(self) -> None:
        self.cluster.crash()

    @rule(seconds=st.sampled_from([1, 20, 61, 3600, 86_400, 3 * 86_400, 8 * 86_400]))
    def wait(self, seconds: int) -> None:
        self.cluster.pass_time(timedelta(seconds=seconds))

    @rule()
    def ask_for_another(self) -> None:
        self.cluster.asked = True

    @rule(name=st.sampled_from(sorted(_KEYS)))
    def delete(self, name: str) -> None:
        self.cluster.secrets[name] = None
        self.cluster.look()

    @rule(place=st.sampled_from(_PLACES), junk=st.sampled_from([None, b"", b"garbage", b"\xff"]))
    def damage(self, place: tuple[str, str], junk: bytes | None) -> None:
        name, key = place
        data = dict(self.cluster.secrets[name] or {})
        data.pop(key, None)
        if junk is not None:
            data[key] = junk
        self.cluster.secrets[name] = data
        # Only this key knows a CA whose last leaf is in no Secret any more; who is cut off then was told of nothing.
        self.former_lost = self.former_lost or key == "former.crt"
        self.cluster.look()

    @rule()
    def plant_an_authority(self) -> None:
        other = make_authority(self.cluster.now, PERIODS, NAMES)
        self.cluster.secrets[AUTHORITY_SECRET] = {"ca.crt": other.certificate_pem, "ca.key": other.key_pem}

    @rule()
    def plant_a_leaf(self) -> None:
        leaf = issue_leaf(make_authority(self.cluster.now, PERIODS), NAMES, self.cluster.now, PERIODS)
        self.cluster.secrets[LEAF_SECRET] = {"tls.crt": leaf.certificate_pem, "tls.key": leaf.key_pem}
        self.cluster.look()

    @rule(refusing=st.sets(st.sampled_from(CONFIGURATIONS)))
    def refuse(self, refusing: set[str]) -> None:
        self.cluster.refusing = refusing

    @rule(which=st.integers(0, 1), connected=st.booleans())
    def cut_off(self, which: int, connected: bool) -> None:
        self.cluster.replicas[which].connected = connected
        self.cluster.look()

    @precondition(lambda self: len(self.cluster.replicas) < 5)
    @rule()
    def scale_up(self) -> None:
        self.cluster.replicas.append(Replica())
        self.cluster.look()

    @invariant()
    def every_ready_replica_is_believed(self) -> None:
        distrusted = self.cluster.distrusted(self.cluster.believed())
        for replica in self.cluster.replicas:
            if replica.leaf is not None and not valid(replica.leaf.certificate, self.cluster.now):
                self.ended.add(replica)
            elif replica not in distrusted:
                self.ended.discard(replica)
        assert [one for one in distrusted if one.serving.problem() is None and self._counts(one)] == []

    def _counts(self, replica: Replica) -> bool:
        # Whose certificate has ended is believed by nobody, and takes any other until the leader has issued one.
        return replica not in self.ended and (replica.connected or not self.former_lost)

    def teardown(self) -> None:
        """Left alone it comes to rest, whole again, with one CA in the end."""
        cluster = self.cluster
        cluster.refusing = set()
        cluster.asked = False
        for replica in cluster.replicas:
            replica.connected = True
        for _ in range(12):
            cluster.settle()
            cluster.pass_time(timedelta(days=1))
        steps = cluster.settle()
        state = cluster.state()
        assert all(isinstance(step, Wait) for step in steps) or len(steps) < 4
        assert state.authority is not None
        assert state.leaf is not None
        assert vouches(state.authority.certificate, state.leaf.certificate)
        assert all(live.holds_exactly(state.bundle) for live in cluster.live())
        assert all(replica.leaf == state.leaf for replica in cluster.replicas)


TestOrders = Orders.TestCase
TestOrders.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestOrders = pytest.mark.slow(TestOrders)
