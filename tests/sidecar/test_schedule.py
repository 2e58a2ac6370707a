"""What is due when, and who has to wait."""

from __future__ import annotations

import pytest

from sidecar.errors import SidecarError
from sidecar.reasons import Reason
from sidecar.renew.schedule import Schedule, Task
from sidecar.shutdown import ShutdownSignal


@pytest.fixture
def schedule() -> Schedule:
    return Schedule(Task)


def due(schedule: Schedule) -> Task | None:
    return schedule.wait(ShutdownSignal(), 0.0)


def test_a_task_without_failures_takes_a_new_due_time(schedule: Schedule) -> None:
    schedule.set_unless_backing_off(Task.ATTESTATION, 0.0)
    assert due(schedule) is Task.ATTESTATION


def test_a_task_that_is_due_later_is_not_slept_for_in_one_piece(schedule: Schedule) -> None:
    """A paused VM's clock stands still: the loop has to look at it now and then."""
    schedule.set(Task.TOKEN, 3600.0)
    assert schedule.wait(ShutdownSignal(), 0.01) is None


def test_a_refused_task_keeps_its_back_off_until_it_is_set(schedule: Schedule) -> None:
    """Each renewal of the old token says when the guest should prove itself again: that must not undo the back-off."""
    refused = SidecarError(Reason.VERIFIER_REFUSED, "no")
    for _ in range(8):
        schedule.retry(Task.ATTESTATION, refused)
    schedule.set_unless_backing_off(Task.ATTESTATION, 0.0)
    schedule.run_now(Task.ATTESTATION)
    assert due(schedule) is None
    schedule.set(Task.ATTESTATION, 0.0)
    assert due(schedule) is Task.ATTESTATION
