"""Buckets: a burst, then a steady rate, for each pod on its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

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


@given(
    burst=st.integers(1, 2000),
    per_second=st.floats(0.0001, 10_000),
    now=st.floats(0, 1e7),
    amounts=st.lists(st.integers(1, 300), min_size=1, max_size=20),
)
def test_a_full_bucket_gives_its_whole_burst_at_any_time(
    burst: int, per_second: float, now: float, amounts: list[int]
) -> None:
    pace, left = RateLimiter(burst, 1 / per_second, lambda: now), burst
    for amount in amounts:
        fits = min(amount, burst) <= left
        assert pace.take("a", amount) is fits
        left -= min(amount, burst) if fits else 0
    assert all(pace.take("a") for _ in range(left))
    assert not pace.take("a")


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
