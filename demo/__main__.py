"""The story that `make demo` tells."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from demo import steps
from demo.environment import stage
from demo.scenario import Story, UnexpectedError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main() -> int:
    """Tell it; 1 when a step does not end as it should, 130 when interrupted."""
    for number in _SIGNALS:
        signal.signal(number, _interrupt)
    story, started = Story(), time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="morphisms-demo-") as folder:
            story.say(
                "One Knative Service, from `kubectl apply` to its secret. All parts are real and run on this machine,"
            )
            story.warn(
                "but the SEV-SNP processor is SIMULATED: its evidence proves nothing, and every verdict says so."
            )
            with stage(Path(folder), story) as scene:
                steps.tell(scene)
        story.say("")
        story.good("done", f"in {time.monotonic() - started:.1f} s; every process has ended and the folder is gone")
    except UnexpectedError as error:
        print(f"this should have ended otherwise: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; every process has ended and the folder is gone", file=sys.stderr)
        return 130
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # an impatient second one must not interrupt the cleaning up
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
