"""Every package that is locked for an image is there for code that the image runs."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT
from tools.images.imports import closure, foreign
from tools.images.targets import TARGETS

# Imported where it is installed: server/kubernetes/kubeconfig.py says in one line what a server in an image lacks.
LEFT_OUT = {"kubernetes_asyncio"}


def locked(file: Path) -> set[str]:
    """The names in a lock file that count on this platform."""
    lines = (line.rstrip(" \\") for line in file.read_text().splitlines() if line[:1].isalnum())
    requirements = (Requirement(line) for line in lines)
    return {canonicalize_name(each.name) for each in requirements if each.marker is None or each.marker.evaluate()}


def needed(modules: tuple[str, ...]) -> set[str]:
    """The distributions of what these modules of ours import, and all that those require."""
    provided = metadata.packages_distributions()
    imported = foreign(ROOT, closure(ROOT, modules)) - sys.stdlib_module_names - LEFT_OUT
    waiting = [name for module in imported for name in provided[module]]
    found: set[str] = set()
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        found.add(name)
        for requirement in map(Requirement, metadata.requires(name) or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_each_locked_package_is_imported_by_what_the_image_runs_and_none_is_missing(target) -> None:
    assert locked(ROOT / target.requirements) == needed(target.modules)


def test_imports_of_others_are_told_from_our_own(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "__init__.py").write_text("")
    (tmp_path / "ours" / "main.py").write_text(
        "import os.path\nfrom ours import near\n\ndef late():\n    from theirs.deep import thing\n"
    )
    (tmp_path / "ours" / "near.py").write_text("")
    assert foreign(tmp_path, closure(tmp_path, ["ours.main"])) == {"os", "theirs"}
