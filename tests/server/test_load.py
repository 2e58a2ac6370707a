"""Shares of a server's load: they bind only under contention, and a newcomer always finds room."""

from __future__ import annotations

import pytest

from server.limits import Limits
from server.load import HeldBody, Load, Pool
from server.peers import peer_address, peer_network

KIB = 1024
LIMITS = Limits(bodies_bytes=1600 * KIB, concurrency=160, small_body_bytes=16 * KIB)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Bodies:
    """Bodies of several peers in one load."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.clock = Clock()
        self.load = Load(limits, self.clock)
        self.evicted: list[str] = []

    def hold(self, name: str, size: int, *, peer: str, preferred: bool = False) -> HeldBody | None:
        body = self.load.begin(peer, lambda: self.evicted.append(name), preferred=preferred)
        return body if self.load.hold(body, size) else None


@pytest.mark.parametrize(("preferred", "expected"), [(False, 130), (True, 150)])
def test_one_peer_may_use_all_but_what_is_kept(preferred: bool, expected: int) -> None:
    """130 = 160 less the reserve (an eighth) and the spare (a sixteenth); a preferred request may use the reserve."""
    pool = Pool(160, LIMITS.reserve, LIMITS.spare)
    while pool.fits("one", 1, preferred=preferred):
        pool.take("one", 1)
    assert pool.used == expected
    assert pool.fits("two", 1, preferred=True)


def test_peers_that_come_later_get_room_until_all_have_their_share() -> None:
    pool = Pool(160, LIMITS.reserve, LIMITS.spare)
    for peer in ("one", "two", "three"):
        while pool.fits(peer, 1, preferred=True):
            pool.take(peer, 1)
    assert pool.of_peer["one"] == 150
    assert pool.used == 160


def test_a_peer_that_gave_all_back_is_forgotten() -> None:
    pool = Pool(10, 0, 0)
    pool.take("one", 3)
    pool.give("one", 3)
    assert (pool.used, pool.of_peer) == (0, {})


def test_a_full_pool_takes_the_oldest_unfinished_body_of_the_greediest_peer() -> None:
    bodies = Bodies()
    for number in range(10):
        assert bodies.hold(f"a{number}", 100 * KIB, peer="attacker")
    assert bodies.hold("b0", 300 * KIB, peer="other")
    assert bodies.hold("honest", 400 * KIB, peer="honest")
    assert bodies.evicted == ["a0", "a1", "a2"]
    assert bodies.load.bytes_held == (700 + 300 + 400) * KIB


def test_a_complete_body_is_never_evicted() -> None:
    bodies = Bodies()
    complete = bodies.hold("complete", 1300 * KIB, peer="attacker")
    assert complete is not None
    bodies.load.settle(complete)
    assert bodies.hold("honest", 400 * KIB, peer="honest") is None
    bodies.load.release(complete)
    assert bodies.hold("honest", 400 * KIB, peer="honest")
    assert bodies.evicted == []


def test_a_peer_with_less_is_not_evicted_for_one_with_more() -> None:
    bodies = Bodies()
    bodies.hold("small", 400 * KIB, peer="honest")
    assert bodies.hold("large", 900 * KIB, peer="attacker")
    assert bodies.hold("more", 200 * KIB, peer="attacker") is None
    assert bodies.evicted == []


def test_within_one_peer_a_stale_body_gives_way_and_a_young_one_does_not() -> None:
    bodies = Bodies()
    assert bodies.hold("stale", 1300 * KIB, peer="nat")
    assert bodies.hold("too early", 100 * KIB, peer="nat") is None
    bodies.clock.now += 1.0
    assert bodies.hold("new", 100 * KIB, peer="nat")
    assert bodies.evicted == ["stale"]


def test_a_body_does_not_evict_itself() -> None:
    bodies = Bodies()
    body = bodies.hold("large", 1300 * KIB, peer="nat")
    assert body is not None
    bodies.clock.now += 5.0
    assert not bodies.load.hold(body, 100 * KIB)
    assert bodies.evicted == []


def test_the_reserve_is_for_preferred_bodies() -> None:
    bodies = Bodies()
    assert bodies.hold("large", 1300 * KIB, peer="nat")
    assert bodies.hold("also large", KIB, peer="nat") is None
    assert bodies.hold("small", 200 * KIB, peer="nat", preferred=True)


def run(load: Load, peer: str, count: int) -> None:
    for _ in range(count):
        load.enter(peer)


def test_readiness_follows_running_handlers_with_hysteresis() -> None:
    load = Load(LIMITS, Clock())
    run(load, "nat", 127)
    assert load.problem() is None
    load.enter("nat")
    assert load.problem() == "too many requests at once: 128 of 160 handlers run"
    for _ in range(40):
        load.leave("nat")
    assert load.problem() is not None
    for _ in range(8):
        load.leave("nat")
    assert load.problem() is None


def test_one_peer_of_two_does_not_end_readiness() -> None:
    clock = Clock()
    load = Load(LIMITS, clock)
    load.enter("honest")
    load.leave("honest")
    run(load, "attacker", 150)
    assert load.problem() is None
    clock.now += 11  # no honest peer is there any more: this peer is all load
    assert load.problem() is not None


def test_peers_within_their_shares_end_readiness_together() -> None:
    load = Load(LIMITS, Clock())
    for number in range(8):
        run(load, f"peer-{number}", 16)
    assert load.problem() is not None


def test_complete_bodies_end_readiness_and_unfinished_ones_do_not() -> None:
    bodies = Bodies()
    body = bodies.hold("large", 1300 * KIB, peer="nat")
    assert body is not None
    assert bodies.load.problem() is None
    bodies.load.settle(body)
    assert bodies.load.problem() == "too many bytes at once: request bodies hold 1331200 of 1638400 bytes"
    bodies.load.release(body)
    assert bodies.load.problem() is None


def test_refusals_of_peers_within_their_share_end_readiness_for_some_seconds() -> None:
    clock = Clock()
    load = Load(LIMITS, clock)
    for _ in range(4):
        load.refused("honest")
    assert load.problem() is None
    load.refused("honest")
    assert load.problem() == "5 of 5 requests refused for want of room in 5 s"
    clock.now += 4
    assert load.problem() is not None
    clock.now += 1
    assert load.problem() is None


def test_few_refusals_among_many_answers_are_no_pressure() -> None:
    load = Load(LIMITS, Clock())
    for _ in range(46):
        load.enter("honest")
        load.leave("honest")
    for _ in range(5):
        load.refused("honest")
    assert load.problem() is None


def test_refusals_of_unfinished_bodies_alone_are_no_pressure() -> None:
    """Such an attack on a server that has nothing else to do must not take it away from those who come later."""
    bodies = Bodies()
    while bodies.hold("small", 10 * KIB, peer="attacker", preferred=True):
        pass
    for _ in range(50):
        bodies.load.refused("attacker")
    assert bodies.load.problem() is None
    assert bodies.hold("honest", 10 * KIB, peer="honest", preferred=True)


def test_refusals_of_a_greedy_peer_are_no_pressure() -> None:
    load = Load(LIMITS, Clock())
    load.enter("honest")
    load.leave("honest")
    run(load, "attacker", 60)
    for _ in range(50):
        load.refused("attacker")
    assert load.problem() is None


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:0:1:ffff::1", "2001:db8:0:1::/64"),
        ("2001:db8:0:1::2", "2001:db8:0:1::/64"),
        ("2001:db8:0:2::2", "2001:db8:0:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        (":", ":"),
    ],
)
def test_a_peer_is_an_address_or_a_64(address: str, network: str) -> None:
    assert peer_network(address) == network


@pytest.mark.parametrize(
    ("address", "written"),
    [("::ffff:192.0.2.7", "192.0.2.7"), ("192.0.2.7", "192.0.2.7"), ("::1", "::1"), ("::ffff:", "::ffff:"), ("", "")],
)
def test_an_address_is_written_in_its_own_family(address: str, written: str) -> None:
    assert peer_address(address) == written
