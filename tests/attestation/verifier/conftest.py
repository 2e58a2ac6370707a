"""One OpenBao, one simulated machine and one verifier for all tests that only ask."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from attestation.report.products import MILAN
from attestation.simulator.device import Device
from attestation.simulator.hierarchy import Hierarchy
from tests.attestation.conftest import Platform
from tests.attestation.verifier.key_service import Maker
from tests.attestation.verifier.process import HOST_DATA, Verifier, make_site, policy, verifier
from tests.attestation.verifier.tokens import Issuer
from tests.support.openbao import OpenBao, openbao


@pytest.fixture(scope="session")
def device(hierarchy: Hierarchy) -> Device:
    """The guest whose HOST_DATA the policies name."""
    return Device(hierarchy, host_data=HOST_DATA)


@pytest.fixture(scope="module")
def platform() -> Platform:
    """A Milan hierarchy of the tests' own."""
    return Platform(MILAN, datetime.now(UTC))


@pytest.fixture
def maker(platform: Platform) -> Maker:
    """A chip of that hierarchy, and its key service."""
    return Maker(platform)


@pytest.fixture(scope="session")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with openbao(tmp_path_factory.mktemp("openbao")) as server:
        for service in ("payments", "neighbour"):
            path = f"secret/data/knative/prod/shop/{service}/db"
            server.done("POST", path, {"data": {"password": f"of {service}"}})
        yield server


@pytest.fixture(scope="session")
def running(
    tmp_path_factory: pytest.TempPathFactory, hierarchy: Hierarchy, issuer: Issuer, bao: OpenBao
) -> Iterator[Verifier]:
    """A verifier with one policy, of assurance workload; tests do not change its files."""
    site = make_site(tmp_path_factory.mktemp("verifier"), hierarchy, issuer, bao.url)
    site.write_policy("payments", policy())
    bao.trust(site.public_keys)
    with verifier(site) as process:
        yield process
