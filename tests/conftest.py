"""How tests are spread over processes: a file stays together, and the control plane's files are one group."""

from __future__ import annotations

import pytest
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

pytest_plugins = ["tests.support.fixtures", "tests.support.signals", "tests.support.skips"]


class _Spread(LoadFileScheduling):  # type: ignore[misc]
    """Modules share servers through their fixtures, and the cluster tier one control plane."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/cluster" if nodeid.startswith("tests/cluster/") else str(super()._split_scope(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _Spread | None:
    """In place of `--dist loadgroup`, whose marks this pytest and xdist lose on the way."""
    return _Spread(config, log) if config.getvalue("dist") == "loadgroup" else None
