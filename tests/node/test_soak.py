"""Scaling, rotation and faults for minutes leave nothing behind: no token, mount, process or descriptor.

SOAK_MINUTES says how long, 3 unless it is set; `make soak` takes 30. Evidence is simulated, and the runtime class is
plain runc.
"""

from __future__ import annotations

import os

import pytest

from tests.node.soak import Soak
from tests.node.stack import PATIENCE_SECONDS, Stack
from tests.support.shown import Report
from tests.support.until import until

pytestmark = [pytest.mark.node, pytest.mark.slow]

# An API server keeps up to 25 idle connections to a webhook, and a verifier as many sidecars' for a while.
_MOST_MORE_DESCRIPTORS = 64
_MOST_MEBIBYTES = 250


@pytest.fixture(scope="module")
def soaked(stack: Stack, report: Report) -> Soak:
    """After its minutes, with the Service that stays still there."""
    soak = Soak(stack, report)
    soak.begin()
    soak.run(float(os.environ.get("SOAK_MINUTES") or 3))
    report(soak.table())
    return soak


def test_no_process_holds_more_descriptors_than_its_connections_need(soaked: Soak) -> None:
    for name, held in soaked.held.items():
        most = held.first + _MOST_MORE_DESCRIPTORS

        def few(name: str = name, most: int = most) -> bool:
            return soaked.descriptors(name) <= most

        until(few, PATIENCE_SECONDS)


def test_no_process_holds_much_memory(soaked: Soak) -> None:
    for name, held in soaked.held.items():
        assert held.samples, f"no process of {name} was seen"
        assert max(sample.resident for each in held.samples.values() for sample in each) < _MOST_MEBIBYTES, name


def test_a_pod_that_is_gone_leaves_no_token_in_vault_and_nothing_on_the_node(soaked: Soak, report: Report) -> None:
    while_it_ran, leases = soaked.tokens(), soaked.leases()
    assert while_it_ran > 0  # of the Service that stays: what is counted below is counted at all
    assert soaked.traces()
    soaked.end()
    # A sidecar that was killed could not give its token back; that ends after ten minutes.
    until(lambda: soaked.tokens() == 0, 2 * PATIENCE_SECONDS)
    until(lambda: soaked.traces() == [], PATIENCE_SECONDS)
    ended = f"tokens {while_it_ran} -> 0, leases of whatever Service {leases} -> {soaked.leases()}"
    report(f"soak: {ended}; no mount and no process of {len(soaked.uids)} pods is left")
