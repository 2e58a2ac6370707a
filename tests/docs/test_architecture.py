"""docs/architecture.md and CONTRIBUTING.md draw the code as it is."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator

import pytest

from tests.support.paths import ROOT

_ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
_CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
_LINTER = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
_BUILD_ONLY = {"demo", "tools"}
_PACKAGES = set(_LINTER["root_packages"]) - _BUILD_ONLY
_ROW = re.compile(r"^\| `(\w+)/` \| .* \| (.*) \|$", re.MULTILINE)
_IMPORTS = {folder: set(re.findall(r"`(\w+)`", cell)) for folder, cell in _ROW.findall(_ARCHITECTURE)}


def _imported(package: str) -> Iterator[str]:
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (each.name for each in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module


def test_each_package_has_a_row() -> None:
    assert _IMPORTS.keys() == _PACKAGES


@pytest.mark.parametrize("package", sorted(_PACKAGES))
def test_the_page_says_what_a_package_imports(package: str) -> None:
    imported = {name.partition(".")[0] for name in _imported(package)}
    assert imported & _PACKAGES - {package} == _IMPORTS[package]


@pytest.mark.parametrize("contract", [each["name"] for each in _LINTER["contracts"]])
def test_the_page_names_each_contract_of_the_linter(contract: str) -> None:
    assert contract in " ".join(_ARCHITECTURE.split())


@pytest.mark.parametrize(
    "contract", [each for each in _LINTER["contracts"] if each["type"] == "layers"], ids=lambda each: each["name"]
)
def test_the_page_draws_the_layers_as_the_linter_checks_them(contract: dict[str, list[str]]) -> None:
    for container in contract["containers"]:
        drawn = f"{container.replace('.', '/')}/ {' '.join(contract['layers'])}"
        assert drawn in " ".join(_ARCHITECTURE.split())


def test_twelve_behaviours_lie_where_the_page_says() -> None:
    (table,) = re.findall(r"^\| where is … .*?\n\n", _CONTRIBUTING, re.MULTILINE | re.DOTALL)
    files = re.findall(r"\| `([^`]+)` \|$", table, re.MULTILINE)
    assert len(files) == len(set(files)) == 12
    assert [each for each in files if not (ROOT / each).is_file()] == []
