"""When a token is renewed, and when the guest attests again, by a clock that the test sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbs.messages import VaultToken
from plan.document import Vault
from sidecar.deadline import Deadline
from sidecar.http import Answer
from sidecar.log import Events
from sidecar.shutdown import ShutdownSignal
from sidecar.vault import session as session_module
from sidecar.vault.session import LONGEST_UNATTESTED_SECONDS, TokenGoneError, VaultSession


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


def test_a_look_up_that_is_refused_ends_a_token_only_after_its_life(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A role may withhold look-up. But where Vault was away until the token had ended, the token is what is refused."""
    monkeypatch.setattr(VaultSession, "_request", lambda *_: Answer(403, b""))
    deadline = Deadline(60, ShutdownSignal())
    token = session(90)
    token.look_up(deadline)
    assert token.is_looked_up
    assert token.is_alive
    late = session(90)
    clock[0] += 91
    with pytest.raises(TokenGoneError):
        late.look_up(deadline)
    assert late.is_gone
    assert not late.is_looked_up
