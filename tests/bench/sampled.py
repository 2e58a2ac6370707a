"""`morphisms` with a sampler in it: `python sampled.py OUT ARGUMENTS…`; the samples go to OUT when it ends, as JSON.

With `-m MODULE ARGUMENTS…` it is that module in its place.

With each tick of the kernel's clock that finds the process working, a signal notes which of our functions, and which
module of a library, is at work: the innermost frames, so a library's time is found below the function of ours that
called it. What the interpreter runs in C counts for the frame that called it. A sample's share is what counts.
"""

from __future__ import annotations

import collections
import json
import runpy
import signal
import sys
from pathlib import Path
from types import FrameType

_ROOT = str(Path(__file__).parents[2])
sys.path.insert(0, _ROOT)
_OURS = ("attestation", "kbs", "logline", "measured", "plan", "server", "webhook")
_INTERVAL = 0.001
_FOUND: collections.Counter[str] = collections.Counter()


def _note(_: int, frame: FrameType | None) -> None:
    """Count the innermost function of ours, and the library's module that it waits for."""
    inner = ""
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        # All that the server does is below `run`; without another function of ours it is the library's own.
        if name.partition(".")[0] in _OURS and frame.f_code.co_name != "run":
            _FOUND[f"{name}:{frame.f_code.co_name} {inner}"] += 1
            return
        inner = inner or name
        frame = frame.f_back
    _FOUND[f" {inner}"] += 1


def main() -> None:
    """Run the command until it ends."""
    out = Path(sys.argv.pop(1))
    signal.signal(signal.SIGPROF, _note)
    signal.setitimer(signal.ITIMER_PROF, _INTERVAL, _INTERVAL)
    # The load begins with this signal: what the start cost is not asked for.
    signal.signal(signal.SIGUSR2, lambda *_: _FOUND.clear())
    try:
        _run()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        out.write_text(json.dumps(_FOUND))


def _run() -> None:
    if sys.argv[1] == "-m":
        del sys.argv[:2]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        return
    from cli.main import main as command

    command()


if __name__ == "__main__":
    main()
