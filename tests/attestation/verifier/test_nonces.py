"""Nonces: the process that made them accepts them, once, and for a minute."""

from __future__ import annotations

import base64

import pytest

from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.session.nonces import Nonces


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def reason(nonces: Nonces, nonce: str) -> Reason:
    with pytest.raises(RefusedError) as caught:
        nonces.spend(nonce)
    return caught.value.reason


def test_the_process_that_made_it_takes_it_and_no_other() -> None:
    clock = Clock()
    own = Nonces(clock)
    nonce = own.issue()
    assert reason(Nonces(clock), nonce) is Reason.NONCE_FOREIGN
    own.spend(nonce)


def test_it_is_32_bytes_and_never_the_same() -> None:
    nonces = Nonces(Clock())
    issued = {nonces.issue() for _ in range(1000)}
    assert len(issued) == 1000
    assert {len(base64.b64decode(nonce)) for nonce in issued} == {32}


def test_every_flipped_bit_is_noticed() -> None:
    nonces = Nonces(Clock())
    raw = base64.b64decode(nonces.issue())
    for bit in range(8 * len(raw)):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        assert reason(nonces, base64.b64encode(flipped).decode()) is Reason.NONCE_FOREIGN
    nonces.spend(base64.b64encode(raw).decode())


@pytest.mark.parametrize("nonce", ["", "A", "AAAA", "é", base64.b64encode(bytes(33)).decode()])
def test_another_text_is_foreign(nonce: str) -> None:
    assert reason(Nonces(Clock()), nonce) is Reason.NONCE_FOREIGN


def test_it_lives_for_a_minute() -> None:
    clock = Clock()
    nonces = Nonces(clock)
    early, late = nonces.issue(), nonces.issue()
    clock.now += 60
    nonces.spend(early)
    clock.now += 1
    assert reason(nonces, late) is Reason.NONCE_EXPIRED


def test_it_is_taken_once_however_its_base64_is_written() -> None:
    nonces = Nonces(Clock())
    nonce = nonces.issue()
    nonces.spend(nonce)
    assert reason(nonces, nonce) is Reason.NONCE_REPLAYED
    # The last character before the padding has four bits that base64 does not use.
    respelled = nonce[:-2] + chr(ord(nonce[-2]) + 1) + "="
    if base64.b64decode(respelled) == base64.b64decode(nonce):
        assert reason(nonces, respelled) is Reason.NONCE_REPLAYED


def test_the_set_is_bounded_and_a_full_one_takes_nothing_more_until_old_ones_end() -> None:
    clock = Clock()
    nonces = Nonces(clock, limit=2)
    for _ in range(2):
        nonces.spend(nonces.issue())
    waiting = nonces.issue()
    assert reason(nonces, waiting) is Reason.OVERLOADED
    clock.now += 63
    nonces.spend(nonces.issue())
