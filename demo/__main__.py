"""`make demo`: runs the scenario and prints it."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from demo import steps
from demo.environment import started
from demo.transcript import Transcript, UnexpectedError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main() -> int:
    """Exit code: 0, 1 when a step has another result than it should, 130 when interrupted."""
    for number in _SIGNALS:
        signal.signal(number, _interrupt)
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


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the cleanup
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
