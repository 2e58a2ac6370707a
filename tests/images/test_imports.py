"""Which files of ours go into an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tools.images.imports import closure
from tools.images.targets import TARGETS


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Packages a and b; a.main reaches b.far by way of a.near."""
    files = {
        "a/__init__.py": "",
        "a/main.py": "import os\nfrom a import near\n",
        "a/near.py": "def late():\n    from .deep import thing\n    import b.far as far\n",
        "a/deep/__init__.py": "from .thing import name\n",
        "a/deep/thing.py": "from .. import up\nname = 1\n",
        "a/up.py": "",
        "a/alone.py": "",
        "b/__init__.py": "",
        "b/far.py": "",
        "b/farther.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_closure_holds_every_imported_module_and_no_other(source: Path) -> None:
    assert [file.as_posix() for file in closure(source, ["a.main"])] == [
        "a/__init__.py",
        "a/deep/__init__.py",
        "a/deep/thing.py",
        "a/main.py",
        "a/near.py",
        "a/up.py",
        "b/__init__.py",
        "b/far.py",
    ]


def test_a_missing_start_module_is_named(source: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.gone"):
        closure(source, ["a.gone"])


@pytest.mark.parametrize(
    ("image", "left_out"),
    [
        ("sidecar", ("kbs/verifier.py", "attestation/verifier/", "attestation/simulator/")),
        # It is a guest of its own replicas, when it starts sealed.
        ("verifier", ("sidecar/", "attestation/simulator/")),
        ("webhook", ("kbs/guest.py", "kbs/verifier.py", "attestation/")),
    ],
)
def test_an_image_carries_nothing_of_the_other_side(image: str, left_out: tuple[str, ...]) -> None:
    carried = [file.as_posix() for file in closure(ROOT, TARGETS[image].modules)]
    assert [file for file in carried if file.startswith(left_out)] == []
