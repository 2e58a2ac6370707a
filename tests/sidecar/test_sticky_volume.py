"""A Kata guest's memory volumes: tmpfs of mode 1777 that root owns, where the kernel follows a link for its owner only.

The application has another user than `morphisms-init`. With `fs.protected_symlinks=1`, every common kernel's default,
it cannot follow a link that lies in such a volume's root (proc_sys_fs(5)).
"""

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
from tests.sidecar.test_ownership import AS_ANOTHER, CONSUMER, FS_GROUP, OURS
from tests.support.exec_helper import build_helper
from tests.support.paths import ROOT
from tests.support.protected_links import is_followed

DB = f"{HOME}/db"
# In a mount namespace of its own: the guest's volumes, `morphisms-init`, then the application through the exec helper.
_GUEST = f"""
set -eu
root=$1; group=$2; ours=$3; consumer=$4; python=$5; code=$6; helper=$7; plan_file=$8; times=$9
for name in secrets run; do
    mount -t tmpfs -o mode=3777,uid=0,gid=$group guest "$root/$name"
done
for turn in $(seq "$times"); do
    {layout.PLAN_VARIABLE}=$(cat "$plan_file") "$python" -c "$code" "$root" "$helper" "$ours" "$group"
done
find "$root/secrets" "$root/run" -printf '%y %U %m %p\\n' > "$root/listing"
cd /
exec setpriv --reuid "$consumer" --regid "$consumer" --groups "$group" \\
    "$root/run/exec" web -- /bin/sh -c 'cat "$1/conf/a" "$1/b" "$1/..data/b"; printf %s "$A"' app "$root/secrets"
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users reach, in a machine where this process may mount."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
        pytest.skip("a volume as in a guest is mounted in a mount namespace of its own, which needs root")
    if shutil.which("setpriv") is None:
        pytest.skip("becoming the application's user needs setpriv (util-linux)")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def _in_guest(pod: Pod, folder: Path, times: int = 1) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
    """The application's output in such a guest, and type, user, mode and path of everything in its volumes."""
    root = folder / "pod"
    root.mkdir()
    token = pod.new_token()
    there = Pod(root, pod.helper, pod.plan, lambda: token)
    there.change(
        secrets=(SecretFile("a", DB, "conf/a", key="user"), SecretFile("b", DB, "b", key="password")),
        env=(EnvVariable("web", "A", path=DB, key="password"),),
    )
    (root / "last-words").chmod(0o666)
    (root / "token").write_text(token)
    plan = folder / "plan"
    plan.write_text(write_plan(there.plan))
    helper = build_helper(folder / "helper", f'-DRUN_DIRECTORY=\\"{there.run_folder}\\" -DWAIT_MILLISECONDS=1000')
    words = [str(root), str(FS_GROUP), str(OURS), str(CONSUMER), sys.executable, AS_ANOTHER + START, str(helper)]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", _GUEST, "guest", *words, str(plan), str(times)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=120,
    )
    listing = root / "listing"
    return done, [line.split(" ", 3) for line in listing.read_text().splitlines()] if listing.exists() else []


@pytest.mark.parametrize("times", [1, 2], ids=["first", "again"])
def test_an_application_of_another_user_starts_with_its_secrets(pod: Pod, folder: Path, times: int) -> None:
    done, entries = _in_guest(pod, folder, times)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"alice{CANARY}-two{CANARY}-two{CANARY}-two"
    found = {path: (kind, int(user), int(mode, 8)) for kind, user, mode, path in entries}
    root = folder / "pod"
    assert found[str(root / "secrets")][1:] == (0, 0o3777), "the volume is not as in a guest"
    assert str(root / "secrets/..data/conf/a") in found
    # Also where this machine's own kernel would follow each link.
    for path, (kind, user, _) in found.items():
        _, holder, mode = found.get(str(Path(path).parent), ("d", 0, 0))
        assert kind != "l" or is_followed(user, holder, mode, CONSUMER), f"{path} is followed by its owner only"
