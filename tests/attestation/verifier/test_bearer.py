"""Bearers: any replica with the key honours them, for a minute."""

from __future__ import annotations

import pytest

from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.session.bearer import BEARER_SECONDS, Bearers, Grant

KEY = b"k" * 32
GRANT = Grant("0123456789abcdef", "digest", "prod/shop/payments", "n", {"kty": "EC"}, {"assurance": "vm"})


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def reason(bearers: Bearers, token: str) -> Reason:
    with pytest.raises(RefusedError) as caught:
        bearers.read(token)
    return caught.value.reason


def test_another_replica_with_the_key_reads_what_one_wrote() -> None:
    clock = Clock()
    assert Bearers(KEY, clock).read(Bearers(KEY, clock).issue(GRANT)) == GRANT
    assert reason(Bearers(b"o" * 32, clock), Bearers(KEY, clock).issue(GRANT)) is Reason.BEARER_INVALID


def test_it_lives_for_a_minute() -> None:
    clock = Clock()
    bearers = Bearers(KEY, clock)
    token = bearers.issue(GRANT)
    clock.now += BEARER_SECONDS - 1
    assert bearers.read(token) == GRANT
    clock.now += 1
    assert reason(bearers, token) is Reason.BEARER_EXPIRED


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "é.é.é", "a" * 20_000, "eyJhbGciOiJub25lIn0.e30."])
def test_what_is_none_is_invalid(token: str) -> None:
    assert reason(Bearers(KEY, Clock()), token) is Reason.BEARER_INVALID
