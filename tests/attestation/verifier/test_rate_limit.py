"""Buckets: a burst, then a steady rate, for each pod on its own."""

from __future__ import annotations

from attestation.verifier.rate_limit import RateLimiter


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_then_one_at_a_time() -> None:
    clock = Clock()
    pace = RateLimiter(3, 2.0, clock)
    assert [pace.take("a") for _ in range(5)] == [True, True, True, False, False]
    assert pace.take("b")
    clock.now = 2.0
    assert [pace.take("a") for _ in range(2)] == [True, False]
    clock.now = 100.0
    assert [pace.take("a") for _ in range(4)] == [True, True, True, False]


def test_an_amount_counts_as_often_and_never_more_than_a_full_bucket() -> None:
    clock = Clock()
    pace = RateLimiter(3, 2.0, clock)
    assert [pace.take("a", 2), pace.take("a", 2), pace.take("a")] == [True, False, True]
    clock.now = 5.9
    assert not pace.take("a", 100)
    clock.now = 6.0
    assert [pace.take("a", 100), pace.take("a")] == [True, False]


def test_the_quietest_key_is_forgotten_first() -> None:
    pace = RateLimiter(1, 10.0, Clock(), limit=2)
    assert all([pace.take("a"), pace.take("b")])
    assert not pace.take("a")
    assert pace.take("c")
    assert not pace.take("a")
    assert pace.take("b")
