"""The verifier's clock: what it is compared with, and that a wrong one stops the verifier, not the other way round."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path

import pytest

from attestation.verifier.clock import Clock, build_time
from attestation.verifier.reasons import Reason, RefusedError

NOW = 1_800_000_000.0


class Time:
    """A host's wall clock and a monotonic one."""

    wall, steady = NOW, 50.0

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


def clock(time: Time, built: float = 0.0) -> Clock:
    return Clock(lambda: time.wall, lambda: time.steady, built)


def off(given: Clock) -> bool:
    problem = given.check()
    if problem is None:
        given.require()
        return False
    with pytest.raises(RefusedError) as caught:
        given.require()
    assert caught.value.reason is Reason.CLOCK
    assert caught.value.detail == problem
    return True


def date(seconds: float) -> str:
    return formatdate(seconds, usegmt=True)


def test_it_is_not_before_its_build() -> None:
    time = Time()
    assert off(clock(time, NOW + 1))
    assert not off(clock(time, NOW))


def test_it_is_not_before_a_list_that_it_has_seen() -> None:
    time = Time()
    given = clock(time)
    given.saw_lists([datetime.fromtimestamp(NOW - 100, UTC), datetime.fromtimestamp(NOW - 500, UTC)])
    time.wall -= 100
    assert not off(given)
    time.wall -= 1
    assert off(given)


def test_a_list_of_the_future_does_not_stop_it() -> None:
    time = Time()
    given = clock(time)
    given.saw_lists([datetime.fromtimestamp(NOW + 1, UTC)])
    assert not off(given)


@pytest.mark.parametrize(("difference", "expected"), [(-31, True), (-30, False), (0, False), (30, False), (31, True)])
def test_it_is_near_vaults(difference: float, expected: bool) -> None:
    time = Time()
    given = clock(time)
    given.saw_vault(date(NOW + difference))
    assert off(given) is expected


def test_a_step_is_seen_at_once_and_a_later_answer_mends_it() -> None:
    time = Time()
    given = clock(time)
    given.saw_vault(date(NOW))
    time.passes(3600)
    assert not off(given)
    time.wall -= 60
    assert off(given)
    time.wall += 60
    assert not off(given)
    time.wall += 600
    given.saw_vault(date(NOW + 4200))
    assert not off(given)


@pytest.mark.parametrize("answer", [None, "", "soon", "Thu, 99 Nov 2026 16:52:17 GMT"])
def test_an_answer_without_a_date_says_nothing(answer: str | None) -> None:
    given = clock(Time())
    given.saw_vault(answer)
    assert not off(given)


@pytest.mark.parametrize(("write", "expected"), [(lambda file: file.write_text("1800000000\n"), NOW), (None, 0.0)])
def test_the_build_is_an_images(tmp_path: Path, write: Callable[[Path], object] | None, expected: float) -> None:
    if write is not None:
        write(tmp_path / "built")
    assert build_time(tmp_path) == expected
