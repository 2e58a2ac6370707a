"""One run of `morphisms-init` that says where its milliseconds went: `python -IS stages.py STARTED PATHS ROOT HELPER`.

STARTED is the parent's monotonic clock just before this process; the answer, JSON on stdout, has milliseconds by stage.
Time inside a stage that another one encloses counts for the inner one alone.
"""

import time

UP = time.monotonic()

import functools  # noqa: E402  # the interpreter's own start ends above
import gc  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

STARTED, PATHS, ROOT, HELPER = sys.argv[1:]
sys.path += PATHS.split(":")
gc.disable()  # as the image's launcher does


class Stages:
    """A clock that is always charged to one stage."""

    def __init__(self, began: float, stage: str) -> None:
        self.spent: dict[str, float] = {}
        self._stack = [stage]
        self._since = began

    def next(self, stage: str) -> None:
        """What is charged from now on, outside of all others."""
        self._charge()
        self._stack[0] = stage

    def enter(self, name: str) -> None:
        self._charge()
        self._stack.append(name)

    def leave(self) -> None:
        self._charge()
        self._stack.pop()

    def watch(self, owner: Any, name: str, stage: str | Callable[..., str]) -> None:
        """Charge every call of `owner.name`; `stage` may depend on its arguments."""
        real = getattr(owner, name)

        @functools.wraps(real)
        def watched(*arguments: Any, **named: Any) -> Any:
            self.enter(stage if isinstance(stage, str) else stage(*arguments))
            try:
                return real(*arguments, **named)
            finally:
                self.leave()

        setattr(owner, name, watched)

    def _charge(self) -> None:
        now = time.monotonic()
        self.spent[self._stack[-1]] = self.spent.get(self._stack[-1], 0.0) + (now - self._since) * 1000
        self._since = now


def exchange(_client: object, _deadline: object, _method: str, path: str, *_: object) -> str:
    """Which of the exchanges a path is."""
    if path.startswith("/kbs/"):
        return "verifier: " + {"auth": "nonce", "attest": "verdict"}.get(path.rpartition("/")[2], "login to Vault")
    return "revocation" if path.endswith("revoke-self") else "Vault: read"


def main() -> None:
    """Imports, each with what it brings along; then the run."""
    # What this file itself has imported, the run would import too.
    stages = Stages(UP, "import: standard library")
    stages.spent["interpreter"] = (UP - float(STARTED)) * 1000
    for module in ("ssl", "json", "urllib.parse", "hashlib", "ctypes"):
        __import__(module)
    stages.next("import: cryptography, as far as we use it")
    for module in ("asymmetric.ec", "ciphers.aead", "keywrap"):
        __import__(f"cryptography.hazmat.primitives.{module}")
    stages.next("import: ours")
    for module in ("main", "attest.handshake", "publish.atomic_writer", "publish.render", "vault.client"):
        __import__(f"sidecar.{module}")
    stages.next("everything else")

    import sidecar.attest.handshake
    import sidecar.http
    import sidecar.publish.atomic_writer
    from kbs import guest
    from sidecar.main import run
    from sidecar.paths import PodPaths

    stages.watch(sidecar.http.Client, "_trusting", "TLS: trust stores")
    stages.watch(sidecar.http.Client, "_connected", "TLS: two connections")
    stages.watch(sidecar.http.Client, "call", exchange)
    stages.watch(sidecar.attest.handshake, "collect_first", "evidence")
    stages.watch(sidecar.attest.handshake, "EphemeralKey", "ephemeral key")
    stages.watch(guest, "open_token", "opening the token")
    stages.watch(sidecar.publish.atomic_writer, "publish", "publication")
    root = Path(ROOT)
    places = PodPaths(root / "secrets", root / "run", root / "token", Path(HELPER), root / "last-words")
    code = run(os.environ, places)
    stages.enter("the end")
    json.dump({"code": code, "spent": stages.spent}, sys.stdout)


main()
