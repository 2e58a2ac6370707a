"""`python -m tests.manifests` renders the kustomizations; with `--release` it first keeps what was rendered before.

What is kept, manifests/previous/install.yaml, is what the tests upgrade from.
"""

from __future__ import annotations

import shutil
import sys

from tests.cluster.binaries import KUBERNETES, build
from tests.manifests.rendering import MANIFESTS, PREVIOUS, RENDERED, render


def main() -> None:
    """Write what changed, and say so."""
    build(lambda line: print(line, file=sys.stderr, flush=True), KUBERNETES)
    if "--release" in sys.argv[1:]:
        PREVIOUS.parent.mkdir(exist_ok=True)
        shutil.copyfile(MANIFESTS / "install.yaml", PREVIOUS)
        print("kept manifests/previous/install.yaml")
    for name, folder in RENDERED.items():
        file, text = MANIFESTS / name, render(MANIFESTS / folder)
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
            print(f"wrote manifests/{name}")


main()
