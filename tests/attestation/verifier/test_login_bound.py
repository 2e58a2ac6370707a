"""How often one guest may log in without a pod token: in any ten minutes, whatever it does in between."""

from __future__ import annotations

import pytest

from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.session.login_bound import MOST_LOGINS, WITHIN_SECONDS, LoginBound


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def refusal(bound: LoginBound, report_id: str) -> Reason:
    with pytest.raises(RefusedError) as caught:
        bound.take(report_id)
    return caught.value.reason


def test_the_fourth_login_waits_until_the_first_is_ten_minutes_old(clock: Clock) -> None:
    bound = LoginBound(clock)
    for _ in range(MOST_LOGINS):
        bound.take("a")
        clock.now += 100
    assert refusal(bound, "a") is Reason.GUEST_TOO_OFTEN
    clock.now = 1000.0 + WITHIN_SECONDS - 1
    assert refusal(bound, "a") is Reason.GUEST_TOO_OFTEN
    clock.now = 1000.0 + WITHIN_SECONDS
    bound.take("a")
    # The next one waits for the second, not for all of them: no ten minutes have more than three.
    assert refusal(bound, "a") is Reason.GUEST_TOO_OFTEN


def test_guests_do_not_share_a_bound(clock: Clock) -> None:
    bound = LoginBound(clock)
    for _ in range(MOST_LOGINS):
        bound.take("a")
    bound.take("b")


def test_a_login_that_vault_did_not_make_is_given_back(clock: Clock) -> None:
    bound = LoginBound(clock)
    for _ in range(5):
        bound.take("a")
        bound.give_back("a")
    for _ in range(MOST_LOGINS):
        bound.take("a")
    assert refusal(bound, "a") is Reason.GUEST_TOO_OFTEN


def test_many_guests_push_none_out_and_old_ones_are_forgotten(clock: Clock) -> None:
    bound = LoginBound(clock, limit=2)
    for _ in range(MOST_LOGINS):
        bound.take("a")
    bound.take("b")
    assert refusal(bound, "c") is Reason.OVERLOADED
    assert refusal(bound, "a") is Reason.GUEST_TOO_OFTEN
    clock.now += WITHIN_SECONDS
    bound.take("c")
