"""`python -m tests.manifests` writes the guards and renders the kustomizations.

With `--release` it first keeps what was rendered before.

What is kept, manifests/previous/install.yaml, is what the tests upgrade from.
"""

from __future__ import annotations

import shutil
import sys

from cli.guards import GUARDS
from tests.cluster.binaries import KUBERNETES, build
from tests.manifests.rendering import MANIFESTS, PREVIOUS, RENDERED, guard_file, guard_text, render


def main() -> None:
    """Write what changed, and say so."""
    build(lambda line: print(line, file=sys.stderr, flush=True), KUBERNETES)
    if "--release" in sys.argv[1:]:
        PREVIOUS.parent.mkdir(exist_ok=True)
        shutil.copyfile(MANIFESTS / "install.yaml", PREVIOUS)
        print("kept manifests/previous/install.yaml")
    for name in GUARDS:
        path = guard_file(name)
        if path.read_text() != (text := guard_text(name)):
            path.write_text(text)
            print(f"wrote {path.relative_to(MANIFESTS.parent)}")
    for name, folder in RENDERED.items():
        file, text = MANIFESTS / name, render(MANIFESTS / folder)
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
            print(f"wrote manifests/{name}")


main()
