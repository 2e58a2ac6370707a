"""A consumer under another user id reads the files through the pod's fsGroup; other users cannot read them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from plan import layout
from plan.codec import write_plan
from plan.document import EnvVariable, SecretFile
from tests.sidecar.pod import CANARY, HOME, START, Pod
from tests.support.paths import ROOT

DB = f"{HOME}/db"
FS_GROUP, OURS, CONSUMER, STRANGER = 23456, 23457, 23458, 23459


# An interpreter in root's home is closed to other users: everything is imported before we become one.
AS_ANOTHER = """
import codecs, os, sys, email.utils, shutil
import sidecar.main, sidecar.attest.handshake, sidecar.publish.atomic_writer, sidecar.publish.render
import sidecar.vault.client, attestation.evidence.simulated
[codecs.lookup(each) for each in ("ascii", "latin-1", "idna", "utf-16-be", "unicode_escape")]
os.setgroups([int(sys.argv.pop())])
user = int(sys.argv.pop())
os.setresgid(user, user, user)
os.setresuid(user, user, user)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users reach; a test's own is closed to them."""
    if os.geteuid() != 0:
        pytest.skip("becoming other users needs root")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def _run(words: list[str], user: int, group: int | None = None) -> int:
    groups = [] if group is None else [group]
    done = subprocess.run(words, user=user, group=user, extra_groups=groups, cwd="/", env={}, capture_output=True)
    return done.returncode


@pytest.mark.parametrize("own", [True, False], ids=["0400", "0440"])
def test_files_are_readable_by_the_users_that_the_plan_means(pod: Pod, open_folder: Path, own: bool) -> None:
    helper = Path(shutil.copy(pod.helper, open_folder / "helper"))
    token = pod.new_token()
    root = open_folder / "pod"
    root.mkdir()
    there = Pod(root, helper, pod.plan, lambda: token)
    for folder in (there.secrets, there.run_folder):
        os.chown(folder, 0, FS_GROUP)
        folder.chmod(0o2777)  # chown took the bit away
    (root / "last-words").chmod(0o666)
    (root / "token").write_text(token)
    there.change(
        file_mode="0400" if own else "0440",
        secrets=(SecretFile("a", DB, "folder/a", key="password"),),
        env=(EnvVariable("web", "A", path=DB, key="password"),),
    )
    words = [sys.executable, "-c", AS_ANOTHER + START, str(root), str(helper), str(OURS), str(FS_GROUP)]
    environment = {layout.PLAN_VARIABLE: write_plan(there.plan)}
    done = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for file in (there.secrets / "folder/a", there.run_folder / "env/web"):
        assert CANARY in file.read_text()
        assert _run(["cat", str(file)], OURS) == 0
        assert (_run(["cat", str(file)], CONSUMER, FS_GROUP) == 0) is not own
        assert _run(["cat", str(file)], STRANGER) != 0
        assert file.stat().st_uid == OURS
    usage = 80  # sidecar/exec/README.md: it ran, and says how to
    assert _run([str(there.run_folder / "exec")], CONSUMER, FS_GROUP) == usage
