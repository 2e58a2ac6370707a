"""The engine that guests evaluate their policy with: built once from `tests/measured/engine`, cached outside the tree.

`python -m tests.support.policy_engine` builds it and says so. It needs cargo; where that is missing the tests that
ask a policy are skipped, and say so.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pytest

from tests.cluster.binaries import only_one
from tests.support.paths import ROOT

_SOURCE: Final = ROOT / "tests" / "measured" / "engine"
_CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "morphisms" / "policy-engine"
_FILES: Final = ("Cargo.toml", "Cargo.lock", "src/main.rs")


class Engine:
    """One guest's policy and its state. `ask` puts a request as kata-agent does."""

    def __init__(self, policy: str) -> None:
        self._process = subprocess.Popen([program()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.load(policy)

    def load(self, policy: str) -> None:
        """Begin anew with this policy, which must be one that the engine can read."""
        answer = self._exchange({"policy": policy})
        assert answer == {"loaded": True}, answer

    def ask(self, kind: str, request: dict[str, Any]) -> bool:
        """Whether the guest would carry the request out."""
        answer = self._exchange({"kind": kind, "request": request})
        self.error = answer.get("error", "")
        return bool(answer["allowed"])

    def value(self, query: str, request: dict[str, Any]) -> list[Any]:
        """The values of a query, to see why a request is refused."""
        return list(self._exchange({"eval": query, "request": request})["values"])

    def _exchange(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


def program() -> Path:
    """The engine; skips the test where it cannot be built."""
    source = b"".join((_SOURCE / name).read_bytes() for name in _FILES)
    target = _CACHE / f"engine-{hashlib.sha256(source).hexdigest()[:16]}"
    if not target.exists():
        if shutil.which("cargo") is None:
            pytest.skip("needs Rust's cargo, which builds the engine that guests evaluate their policy with")
        _CACHE.mkdir(parents=True, exist_ok=True)
        with only_one(_CACHE / "lock", "another build of the policy engine", _say):
            if not target.exists():
                _build(target)
    return target


def _build(target: Path) -> None:
    _say("building the policy engine (once, about a minute)")
    work = _CACHE / "build"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(_SOURCE, work)
    (work / "Cargo.lock").write_text(_with_sources((_SOURCE / "Cargo.lock").read_text(), work))
    subprocess.run(["cargo", "build", "--release", "--quiet", "--locked"], cwd=work, check=True)
    (work / "target" / "release" / "policy-engine").rename(target)
    shutil.rmtree(work)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _with_sources(lock: str, work: Path) -> str:
    """The lock with each package's source, which is not committed: it is the registry that cargo itself uses."""
    (work / "Cargo.lock").unlink()
    subprocess.run(["cargo", "generate-lockfile", "--quiet"], cwd=work, check=True)
    source = re.search(r"^source = .*\n", (work / "Cargo.lock").read_text(), re.MULTILINE)
    assert source is not None
    return re.sub(r"^checksum = ", lambda match: source[0] + match[0], lock, flags=re.MULTILINE)


if __name__ == "__main__":
    if shutil.which("cargo") is None:
        print("no cargo: tests that evaluate a guest's policy will be skipped")
    else:
        program()
