"""`python -m tests.cli.knative.golden`: make `golden/1.N.jsonl` anew, by Knative's own functions.

For each version the Go program in `go/` is built against that release of knative.dev/serving, which takes some minutes
and some gigabytes of the Go module cache. The answers are committed, so that tests need neither.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.bench.golang import go
from tests.cli.knative.cases import inputs

HERE: Final = Path(__file__).parent
SERVING: Final = {21: "v0.48.1", 22: "v0.49.0", 23: "v0.50.0"}
"""The release of knative.dev/serving for each Knative 1.N."""


def main(minors: list[int]) -> None:
    """Write the files of these versions."""
    for minor in minors:
        print(f"Knative 1.{minor}: building against knative.dev/serving {SERVING[minor]}")
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(HERE / "go" / "main.go", folder)
            for command in (
                [go(), "mod", "init", "golden"],
                [go(), "get", f"knative.dev/serving@{SERVING[minor]}"],
                [go(), "mod", "tidy"],
                [go(), "build", "-o", "golden", "."],
            ):
                subprocess.run(command, cwd=folder, check=True, capture_output=True)
            text = "".join(f"{json.dumps(one)}\n" for one in inputs())
            answer = subprocess.run([Path(folder) / "golden"], input=text, capture_output=True, text=True, check=True)
        (HERE / "golden" / f"1.{minor}.jsonl").write_text(answer.stdout)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or list(SERVING))
