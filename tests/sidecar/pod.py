"""A pod as `morphisms-init` sees it: volumes, token and plan in a folder, and the process itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plan import layout
from plan.codec import write_plan
from plan.document import Plan
from tests.sidecar.clock import Clock
from tests.support.paths import ROOT

HOME = "secret/knative/prod/shop/payments"
CANARY = "canary-5b1e"

# The process under test is `sidecar.main` with other places, which nothing but code can say.
START = """
import os, sys
from pathlib import Path
from sidecar.main import run
from sidecar.paths import PodPaths
root, helper, *seconds = sys.argv[1:]
root = Path(root)
folders = (root / "secrets", root / "run", root / "token", Path(helper), root / "last-words")
places = PodPaths(*folders, revocation_seconds=float(*seconds or (60,)))
sys.exit(run(os.environ, places))
"""


@dataclass
class Ended:
    """What a run left behind."""

    code: int
    stderr: str
    last_words: str
    maximum_resident: int = field(default=0)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stderr.splitlines()]

    def named(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.events if each["event"] == event]


@dataclass
class Pod:
    """One pod's folders; `plan` may be replaced before `run`.

    `code` runs in the process before anything else. `revocation_seconds` are more than the real ones, so that a busy
    machine leaves no token behind.
    """

    root: Path
    helper: Path
    plan: Plan
    new_token: Callable[[], str]
    environment: dict[str, str] = field(default_factory=dict)
    code: str = ""
    revocation_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name in ("secrets", "run"):
            (self.root / name).mkdir()
            # As the kubelet makes an emptyDir of a pod with an fsGroup.
            (self.root / name).chmod(0o2777)
        (self.root / "last-words").touch()

    def move_clock(self, *, flows: bool = True) -> Clock:
        """The clock that this pod's processes go by from now on, which the test moves."""
        clock = Clock(self.root / "clock", flows=flows)
        self.code = clock.code
        return clock

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def run_folder(self) -> Path:
        return self.root / "run"

    def change(self, **changes: Any) -> None:
        self.plan = self.plan._replace(**changes)

    def start(self, text: str | None = None) -> subprocess.Popen[str]:
        """The process, with nothing in its environment but the plan."""
        (self.root / "token").write_text(self.new_token())
        environment = {layout.PLAN_VARIABLE: write_plan(self.plan) if text is None else text, **self.environment}
        words = [str(self.root), str(self.helper), str(self.revocation_seconds)]
        command = [sys.executable, "-c", self.code + START, *words]
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def end(self, process: subprocess.Popen[str]) -> Ended:
        assert process.stderr is not None
        stderr = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stderr.close()
        return Ended(process.returncode, stderr, (self.root / "last-words").read_text(), usage.ru_maxrss)

    def run(self, text: str | None = None) -> Ended:
        return self.end(self.start(text))

    def variables(self, container: str) -> dict[str, str]:
        pairs = (self.run_folder / "env" / container).read_bytes().split(b"\0")
        # As the exec helper reads them where nothing is to be expanded.
        return dict(pair.decode().replace("$$", "$").split("=", 1) for pair in pairs[:-1])

    def publication(self) -> tuple[int, int]:
        """Which folder the secrets volume shows: a new publication is another one."""
        status = (self.secrets / "..data").stat()
        return status.st_ino, status.st_mtime_ns

    def published(self) -> list[str]:
        """What consumers see: names that are no part of the layout."""
        found = [each.name for folder in (self.secrets, self.run_folder) for each in folder.iterdir()]
        return sorted(name for name in found if not name.startswith(".."))


def refused(ended: Ended, code: int, reason: str, *canaries: str) -> dict[str, Any]:
    """By its exit code and reason, in one event and one line for people, without a secret."""
    assert ended.code == code, ended.stderr
    event = ended.events[-1]
    assert (event["event"], event["reason"], event["exit_code"]) == ("refused", reason, code)
    assert ended.last_words.startswith("morphisms-init: ")
    assert ended.last_words.count("\n") == 1
    assert event["detail"] in ended.last_words
    assert reason in ended.last_words
    clean(ended, canaries)
    return event


def clean(ended: Ended, canaries: Sequence[str] = ()) -> None:
    """No secret on standard error or in the termination message."""
    for text in (CANARY, "hvs.", "s.ey", "eyJ", "Traceback", *canaries):
        assert text not in ended.stderr
        assert text not in ended.last_words
