"""The Debian packages of tests/packages.txt, and the tests that are skipped for want of one."""

from __future__ import annotations

import functools
import os
import shutil
from typing import Final

import pytest

from tests.support.paths import ROOT

FILE: Final = ROOT / "tests" / "packages.txt"
_WITHOUT: Final = "needs Debian's package "
# CI installs them, and nothing else shows what these tests do: a skip there would go unseen.
_IN_CI: Final = frozenset({"chromium-headless-shell", "prometheus"})


@functools.cache
def purposes() -> dict[str, str]:
    """What tests use each package for, by the package's name."""
    lines = [line for line in FILE.read_text().splitlines() if line and not line.startswith("#")]
    entries = [line.partition("#") for line in lines]
    return {name.strip(): purpose.strip() for name, _, purpose in entries}


def without(package: str) -> str:
    """The reason of a skip for want of `package`. Raises KeyError for a package that the file does not list."""
    return f"{_WITHOUT}{package}: {purposes()[package]}"


def named_in(reason: str) -> str | None:
    """The package that such a reason names; None for any other reason."""
    _, found, rest = reason.partition(_WITHOUT)
    return rest.partition(":")[0] if found else None


def require(**programs: str) -> None:
    """Skip the test when a program is not on PATH. Keyword: the program; value: the package that has it.

    A browser or a Prometheus that CI (which sets CI) lacks is a failure.
    """
    for program, package in programs.items():
        if shutil.which(program) is None:
            if package in _IN_CI and os.environ.get("CI"):
                pytest.fail(without(package))
            pytest.skip(without(package))


def require_c_compiler() -> str:
    """The path of `cc`, or a skip when the helper that becomes the application cannot be built."""
    require(cc="gcc", make="make")
    return shutil.which("cc") or ""
