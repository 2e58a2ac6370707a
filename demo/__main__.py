"""`make demo`: runs the scenario and prints it."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from demo import interrupts, steps
from demo.environment import started
from demo.transcript import Transcript, UnexpectedError


def main() -> int:
    """Exit code: 0, 1 when a step has another result than it should, 130 when interrupted."""
    interrupts.install()
    transcript, began = Transcript(), time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="morphisms-demo-") as folder:
            transcript.say(
                "One Knative Service, from `kubectl apply` to its secret. All parts are real and run on this machine,"
            )
            transcript.warn(
                "but the SEV-SNP processor is SIMULATED: its evidence proves nothing, and every result says so."
            )
            with started(Path(folder), transcript) as environment:
                steps.run_all(environment)
        transcript.say("")
        transcript.good(
            "done", f"in {time.monotonic() - began:.1f} s; every process is stopped and the folder is deleted"
        )
    except UnexpectedError as error:
        print(f"unexpected result: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; every process is stopped and the folder is deleted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
