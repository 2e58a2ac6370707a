"""What all tests share is in tests/support/; how they are spread over processes, in tests/support/spread.py."""

from __future__ import annotations

pytest_plugins = [
    "tests.node.tier",
    "tests.support.bytecode",
    "tests.support.fixtures",
    "tests.support.hypothesis_profiles",
    "tests.support.signals",
    "tests.support.skips",
    "tests.support.spread",
]
