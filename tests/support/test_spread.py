"""Which files of the cluster tier stay together, and what the workers begin with."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.spread import rank, unit_of

_CLUSTER = sorted((ROOT / "tests" / "cluster").glob("test_*.py"))


@pytest.mark.parametrize("file", _CLUSTER, ids=lambda file: file.stem)
def test_a_file_of_the_tier_is_alone_where_it_starts_its_own_control_plane(file: Path) -> None:
    """Two workers would start two of the shared one, and a file that waits for it would keep its worker busy."""
    unit = unit_of(f"{file.relative_to(ROOT)}::test_a[1]")
    text = file.read_text()
    if "guarded: ControlPlane" in text:
        assert unit == "tests/cluster/test_policies.py"
    else:
        assert unit == (str(file.relative_to(ROOT)) if "control_plane(" in text else "tests/cluster")


def test_a_worker_begins_with_control_planes_and_ends_with_what_only_computes() -> None:
    expected = [
        "tests/cluster",
        "tests/cluster/test_certificates.py",
        "tests/e2e/test_shutdown.py",
        "tests/sidecar/test_refusals.py",
        "tests/webhook/properties/test_policy.py",
        "tests/webhook/golden/test_golden.py",
    ]
    units = random.sample(expected, len(expected))
    assert sorted(units, key=rank) == expected


def test_a_file_stays_together() -> None:
    assert unit_of("tests/sidecar/test_leases.py::test_a") == unit_of("tests/sidecar/test_leases.py::TestB::test_c[x]")
