"""A sidecar that stays: its process, what it says while it runs, its probes."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plan import layout
from plan.codec import write_plan
from tests.sidecar.pod import Ended, Pod
from tests.support.paths import ROOT

# As in tests.sidecar.pod; the kubelet's port and a secret's age are the test's too.
START = """
import os, sys
from pathlib import Path
from sidecar.main import run
from sidecar.paths import PodPaths
root, helper, port, reread, revocation = sys.argv[1:]
root = Path(root)
folders = (root / "secrets", root / "run", root / "token", Path(helper), root / "last-words")
places = PodPaths(*folders, ("127.0.0.1", int(port)), float(reread), float(revocation))
sys.exit(run(os.environ, places))
"""
PATIENCE = 120.0
"""Seconds; it only ends a test that hangs, on a machine however busy."""


@dataclass
class Resident:
    """A running sidecar and every event so far."""

    pod: Pod
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    _news: threading.Condition = field(default_factory=threading.Condition)
    _ended: bool = False

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in list(self.lines)]

    def named(self, event: str, **members: Any) -> list[dict[str, Any]]:
        """Events of this name with these members."""
        return [each for each in self.events if each["event"] == event and members.items() <= each.items()]

    def wait(self, event: str, count: int = 1, *, seconds: float = PATIENCE, **members: Any) -> list[dict[str, Any]]:
        """Until so many of them have come."""
        with self._news:
            self._news.wait_for(lambda: len(self.named(event, **members)) >= count or self._ended, seconds)
        found = self.named(event, **members)
        assert len(found) >= count, f"{event} {members} did not come {count} times: {''.join(self.lines)}"
        return found

    @property
    def port(self) -> int:
        return int(self.wait("started")[0]["health_port"])

    def probe(self, path: str) -> tuple[int, dict[str, Any]]:
        """As the kubelet asks."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = json.loads(answer.read())
        connection.close()
        return answer.status, body

    def resident_bytes(self) -> int:
        with open(f"/proc/{self.process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def stop(self, number: int = signal.SIGTERM) -> Ended:
        """A signal, and what is left after it."""
        self.process.send_signal(number)
        return self.end()

    def end(self) -> Ended:
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return Ended(code, "".join(self.lines), (self.pod.root / "last-words").read_text())


@contextlib.contextmanager
def resident(pod: Pod, *, reread: float = 300.0, port: int = 0, prefix: Sequence[str] = ()) -> Iterator[Resident]:
    """The pod's sidecar, started through the command `prefix`; killed at the end if it still runs."""
    pod.change(agent="sidecar")
    (pod.root / "token").write_text(pod.new_token())
    words = [str(pod.root), str(pod.helper), str(port), str(reread), str(pod.revocation_seconds)]
    command = [*prefix, sys.executable, "-c", pod.code + START, *words]
    environment = {layout.PLAN_VARIABLE: write_plan(pod.plan), **pod.environment}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    running = Resident(pod, process)
    try:
        yield running
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        running._reader.join(PATIENCE)
        assert process.stderr is not None
        process.stderr.close()


_APPLICATION = """#!{python}
import pathlib, signal, sys
signal.signal(signal.SIGHUP, lambda *_: print(pathlib.Path({file!r}).read_text(), flush=True))
print("ready", flush=True)
while True:
    signal.pause()
"""


@contextlib.contextmanager
def application(folder: Path, file: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    """A process of this name that prints the file at each SIGHUP."""
    (folder / "bin").mkdir(exist_ok=True)
    program = folder / "bin" / name
    program.write_text(_APPLICATION.format(python=sys.executable, file=str(file)))
    program.chmod(0o755)
    process = subprocess.Popen([program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
