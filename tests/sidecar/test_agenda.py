"""What is due when, and who has to wait."""

from __future__ import annotations

import pytest

from sidecar.errors import Exit, RefusalError
from sidecar.renew.schedule import Agenda, Duty
from sidecar.shutdown import Stop


@pytest.fixture
def agenda() -> Agenda:
    return Agenda(Duty)


def due(agenda: Agenda) -> Duty | None:
    return agenda.wait(Stop(), 0.0)


def test_what_is_expected_is_due(agenda: Agenda) -> None:
    agenda.expect(Duty.ATTESTATION, 0.0)
    assert due(agenda) is Duty.ATTESTATION


def test_who_was_refused_waits_whatever_is_expected_of_him(agenda: Agenda) -> None:
    """Each renewal of the old token says when the guest should prove itself again: that must not undo the back-off."""
    refused = RefusalError(Exit.VERIFIER_REFUSED, "verifier-refused", "no")
    for _ in range(8):
        agenda.retry(Duty.ATTESTATION, refused)
    agenda.expect(Duty.ATTESTATION, 0.0)
    agenda.hasten(Duty.ATTESTATION)
    assert due(agenda) is None
    agenda.set(Duty.ATTESTATION, 0.0)
    assert due(agenda) is Duty.ATTESTATION
