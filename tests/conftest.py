"""How tests are spread over processes: a file stays together, and the control plane's files are one group."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)  # before xdist looks for groups; a folder's own conftest comes before this one
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A group for each test that has none (`--dist loadgroup`): modules share servers through their fixtures."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(str(item.path)))
