"""The project's pages for people, by path."""

from typing import Final

from tests.support.paths import ROOT

_FOLDERS: Final = (".", "docs", "docs/decisions", "sidecar/exec")

PAGES: Final = {
    str(path.relative_to(ROOT)): path.read_text()
    for folder in _FOLDERS
    for path in sorted((ROOT / folder).glob("*.md"))
}
