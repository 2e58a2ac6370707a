"""docs/trial.md, its commands as they stand there but for the ports: a real OpenBao, a real verifier."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.support import packages
from tests.support.openbao import binary
from tests.support.paths import ROOT
from tests.support.ports import free_port

_PAGE = (ROOT / "docs" / "trial.md").read_text()
_PORTS = ("8007", "8200", "8443")


def test_the_trial_goes_as_the_page_says(tmp_path: Path) -> None:
    binary()
    packages.require(curl="curl", openssl="openssl")
    # A step that fails ends the script, and what the steps before it started.
    before = "set -eu -o pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"
    script = before + "\n".join(re.findall(r"```sh\n(.*?)```", _PAGE, re.DOTALL)) + "\nwait\n"
    for written in _PORTS:
        script = re.sub(rf":{written}\b", f":{free_port()}", script)
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    process = subprocess.Popen(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=600)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert "made 4 changes" in said, said
    assert re.search(r'ok\s*\{"nonce":"', said), said
    assert '"event":"stopped"' in (tmp_path / "verifier.log").read_text()
