"""What the pages point at exists: other pages and their sections, files, modules and things in modules."""

from __future__ import annotations

import importlib
import re
import tomllib
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.support.pages import PAGES
from tests.support.paths import ROOT
from webhook.configuration.model import Configuration

_SHARED = ("plan", "kbs", "logline", "measured", "server", "certs")
_PACKAGES = tuple(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"])
_FOLDERS = (*_PACKAGES, "tests", "docs", "manifests", "requirements")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
# A path in the text or in a picture: `webhook/decide.py`, `tests/cluster`, `docs/decisions/`.
_PATH = re.compile(rf"(?<![\w/.:-])(?:{'|'.join(_FOLDERS)})(?:/[A-Za-z0-9_.{{}},*-]+)+/?")
_MODULE = re.compile(rf"`(?:python -m )?((?:{'|'.join(_PACKAGES)}|tests)(?:\.[A-Za-z_]\w*)+)(?:\([^`]*\))?`")
# In a message of the code's: docs/install.md, docs/install.md#the-guards. An anchor that is put together has braces.
_PAGE = re.compile(r"(?<![\w/.-])docs/[\w/-]+\.md(?:#[\w-]+)?(?!\{)")
# Written as an example, not as a file that exists.
_PLACEHOLDER = re.compile(r"[A-Z]{2,}|\*|[{}]|\.\.\.|…")
_BUILT = ("sidecar/exec/build",)
_KEYS = {f"sidecar.{key}" for key in type(Configuration().sidecar).model_fields}
"""Keys of the configuration that read like a module."""


@cache
def _anchors(page: Path) -> frozenset[str]:
    """The anchors that GitHub gives a page's headings."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_pages_and_sections_that_exist(page: str) -> None:
    for link in _LINK.findall(PAGES[page]):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target), link


@pytest.mark.parametrize("package", _PACKAGES)
def test_messages_name_pages_and_sections_that_exist(package: str) -> None:
    for module in sorted((ROOT / package).rglob("*.py")):
        for name in _PAGE.findall(module.read_text()):
            page, _, anchor = name.partition("#")
            assert page in PAGES, (module, name)
            assert not anchor or anchor in _anchors(ROOT / page), (module, name)


@pytest.mark.parametrize("page", PAGES)
def test_paths_that_are_named_exist(page: str) -> None:
    for path in (each.rstrip("./,") for each in _PATH.findall(PAGES[page])):
        if _PLACEHOLDER.search(path) or path.startswith(_BUILT):
            continue
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES)
def test_modules_that_are_named_exist_with_what_is_named_in_them(page: str) -> None:
    for name in _MODULE.findall(PAGES[page]):
        if name in _KEYS or name.endswith(".py"):
            continue
        parts = name.split(".")
        depth = max(n for n in range(1, len(parts) + 1) if _is_module(parts[:n]))
        assert depth > 1 or len(parts) == 1, name
        found = importlib.import_module(".".join(parts[:depth]))
        for part in parts[depth:]:
            assert hasattr(found, part), name
            found = getattr(found, part)


def _is_module(parts: list[str]) -> bool:
    path = ROOT.joinpath(*parts)
    return path.is_dir() or path.with_suffix(".py").is_file()


def test_the_pages_are_found() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/install.md", "docs/decisions/README.md"} <= PAGES.keys()
