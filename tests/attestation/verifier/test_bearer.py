"""Bearers: known to the process that made them, for one login, for a minute."""

from __future__ import annotations

from dataclasses import replace

import pytest

from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.session.bearer import BEARER_SECONDS, Bearers, Grant
from tests.attestation.verifier.grants import GRANT


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def of_pod(uid: str) -> Grant:
    basis = replace(GRANT.basis, pod=replace(GRANT.basis.pod, pod_uid=uid))
    return replace(GRANT, basis=basis)


def reason(bearers: Bearers, bearer: str) -> Reason:
    with pytest.raises(RefusedError) as caught:
        bearers.take(bearer)
    return caught.value.reason


def test_it_is_for_one_login_of_the_process_that_made_it() -> None:
    bearers, other = Bearers(Clock()), Bearers(Clock())
    bearer = bearers.issue(GRANT)
    assert reason(other, bearer) is Reason.BEARER_INVALID
    assert bearers.take(bearer).grant == GRANT
    assert reason(bearers, bearer) is Reason.BEARER_USED
    assert len(bearers) == 0


def test_one_that_was_given_back_serves_until_its_first_end() -> None:
    clock = Clock()
    bearers = Bearers(clock)
    bearer = bearers.issue(GRANT)
    clock.now += BEARER_SECONDS - 1
    bearers.give_back(bearers.take(bearer))
    bearers.give_back(bearers.take(bearer))
    clock.now += 1
    assert reason(bearers, bearer) is Reason.BEARER_EXPIRED


def test_it_lives_for_a_minute() -> None:
    clock = Clock()
    bearers = Bearers(clock)
    early, late = bearers.issue(GRANT), bearers.issue(GRANT)
    clock.now += BEARER_SECONDS - 1
    assert bearers.take(early).grant == GRANT
    clock.now += 1
    assert reason(bearers, late) is Reason.BEARER_EXPIRED


def test_a_pod_that_keeps_attesting_displaces_its_own_alone() -> None:
    bearers = Bearers(Clock(), limit=6)
    other = bearers.issue(of_pod("other"))
    own = [bearers.issue(GRANT) for _ in range(50)]
    assert len(bearers) == 5
    assert [reason(bearers, each) for each in own[:46]] == [Reason.BEARER_USED] * 46
    assert all(bearers.take(each) for each in own[46:])
    assert bearers.take(other)


def test_a_full_store_takes_no_more_until_old_ones_end() -> None:
    clock = Clock()
    bearers = Bearers(clock, limit=2)
    for uid in ("a", "b"):
        bearers.issue(of_pod(uid))
    with pytest.raises(RefusedError, match="overloaded"):
        bearers.issue(GRANT)
    clock.now += BEARER_SECONDS
    assert bearers.take(bearers.issue(GRANT))
    assert len(bearers) == 0


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "é.é.é", "a" * 20_000, "eyJhbGciOiJub25lIn0.e30."])
def test_another_text_is_invalid(token: str) -> None:
    assert reason(Bearers(Clock()), token) is Reason.BEARER_INVALID


def test_another_spelling_of_a_bearer_is_invalid() -> None:
    """Its last character has two bits to spare, which a lenient reader of base64 leaves out."""
    bearers = Bearers(Clock())
    bearer = bearers.issue(GRANT)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    others = [each for each in alphabet if each != bearer[-1]]
    assert {reason(bearers, bearer[:-1] + each) for each in others} == {Reason.BEARER_INVALID}
    assert reason(bearers, bearer + "=") is Reason.BEARER_INVALID
    assert bearers.take(bearer)
