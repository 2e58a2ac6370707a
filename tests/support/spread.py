"""How a run's tests are spread over its processes: a file stays together, as do those of one control plane or node.

Modules share servers through their fixtures. The units that take long come first, so that the workers end together.
"""

from __future__ import annotations

from typing import Final

import pytest
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

_CLUSTER: Final = "tests/cluster"
_NODE: Final = "tests/node"
# These start a control plane of their own; the others of the tier share one.
_OWN_CONTROL_PLANE: Final = frozenset(
    f"{_CLUSTER}/test_{name}.py"
    for name in ("certificates", "lifecycle", "policies", "registration", "templates", "upgrade")
)
# These share the second of the conftest's.
_GUARDED: Final = {f"{_CLUSTER}/test_guards.py": f"{_CLUSTER}/test_policies.py"}
# The units that take longest, in this order; the others follow as they were collected.
_FIRST: Final = (
    _CLUSTER,
    _NODE,
    f"{_CLUSTER}/test_certificates.py",
    f"{_CLUSTER}/test_templates.py",
    f"{_CLUSTER}/test_registration.py",
    f"{_CLUSTER}/test_upgrade.py",
    f"{_CLUSTER}/test_lifecycle.py",
    f"{_CLUSTER}/test_policies.py",
)
# Then whole folders whose files start processes, before those that only compute, of which the first takes longest.
_FOLDERS: Final = (
    "tests/e2e/",
    "tests/demo/",
    "tests/sidecar/",
    "tests/attestation/verifier/",
    "tests/webhook/server/",
    "tests/images/",
    "tests/cli/",
    "tests/webhook/properties/",
)


def unit_of(nodeid: str) -> str:
    """What stays in one process."""
    file = nodeid.partition("::")[0]
    if file.startswith(f"{_NODE}/"):
        return _NODE
    if file in _GUARDED:
        return _GUARDED[file]
    shared = file.startswith(f"{_CLUSTER}/") and file not in _OWN_CONTROL_PLANE
    return _CLUSTER if shared else file


def rank(unit: str) -> int:
    """The lower, the earlier."""
    if unit in _FIRST:
        return _FIRST.index(unit)
    folders = (number for number, folder in enumerate(_FOLDERS) if unit.startswith(folder))
    return len(_FIRST) + next(folders, len(_FOLDERS))


class Spread(LoadFileScheduling):  # type: ignore[misc]
    """Hands the units out, one after another, to the workers that have nothing left to do."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        config.option.loadscopereorder = False  # by the number of tests
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Spread | None:
    """In place of `--dist loadgroup`, whose marks this pytest and xdist lose on the way."""
    return Spread(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Bring the items of a worker, which are handed out in this order, into it."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: rank(unit_of(item.nodeid)))
