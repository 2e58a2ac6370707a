"""A pytest plugin: the interpreters that tests start keep what they have compiled.

A run starts many hundreds of them. Where the environment says `PYTHONDONTWRITEBYTECODE`, each would compile the
project's modules anew, which is a third of the processor time of its start.
"""

from __future__ import annotations

import os
import sys

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    """For this process and its children, the workers among them."""
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
