"""When a token is renewed, and when the guest attests again, by a clock that the test sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbs.messages import VaultToken
from plan.document import Vault
from sidecar.log import Events
from sidecar.vault import session as session_module
from sidecar.vault.session import LONGEST_UNATTESTED_SECONDS, VaultSession


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be changed in place."""
    now = [1000.0]
    monkeypatch.setattr(session_module.time, "monotonic", lambda: now[0])
    return now


def session(seconds: int, *, renewable: bool = True) -> VaultSession:
    made = VaultSession(Vault("https://vault.example", "", "", (("secret", 2),)), Events(Path("/nonexistent")))
    made.adopt(VaultToken("token", seconds, renewable, "vm", simulated=False))
    return made


def test_a_token_is_renewed_at_two_thirds_of_its_life(clock: list[float]) -> None:
    seconds = session(90).renew_in()
    assert seconds is not None
    assert 0.95 * 60 <= seconds <= 60


def test_a_token_that_cannot_be_renewed_is_replaced_at_two_thirds(clock: list[float]) -> None:
    token = session(90, renewable=False)
    assert token.renew_in() is None
    assert 0.95 * 60 <= token.attest_in() <= 60
    clock[0] += 61
    assert token.attest_in() == 0


def test_a_token_without_a_known_maximum_is_replaced_when_it_expires_at_the_latest(clock: list[float]) -> None:
    assert session(90).attest_in() == 90


def test_a_token_that_does_not_expire_is_replaced_all_the_same(clock: list[float]) -> None:
    seconds = session(0).attest_in()
    assert 0.95 * LONGEST_UNATTESTED_SECONDS <= seconds <= LONGEST_UNATTESTED_SECONDS
