"""Fixtures that several packages' tests use; tests/conftest.py loads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from attestation.simulator.hierarchy import Hierarchy, open_hierarchy
from tests.attestation.verifier.process import HOST_DATA
from tests.attestation.verifier.tokens import Issuer
from tests.support import packages
from tests.support.exec_helper import build_helper
from tests.support.simulated_machine import simulated_machine


@pytest.fixture(scope="session")
def hierarchy(tmp_path_factory: pytest.TempPathFactory) -> Hierarchy:
    """The certificates of the simulated machines."""
    return open_hierarchy(tmp_path_factory.mktemp("simulated"))


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    """The issuer of the pods' tokens."""
    return Issuer()


@pytest.fixture(scope="session")
def machine(hierarchy: Hierarchy) -> Iterator[str]:
    """The address of a simulated machine, whose HOST_DATA the tests' policies name."""
    with simulated_machine(hierarchy, HOST_DATA) as address:
        yield address


@pytest.fixture(scope="session")
def helper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exec helper as an image carries it."""
    packages.require_c_compiler()
    return build_helper(tmp_path_factory.mktemp("helper"))
