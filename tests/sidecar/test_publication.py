"""From a plan to published secrets, on real parts: a simulated machine's process, the verifier, OpenBao over TLS."""

from __future__ import annotations

import hashlib
import json
import stat
import subprocess
from pathlib import Path

import pytest

from plan.document import EnvFrom, EnvVariable, SecretFile
from sidecar.errors import SidecarError
from sidecar.publish.atomic_writer import publish
from sidecar.publish.render import File
from sidecar.reasons import Reason
from tests.attestation.verifier.process import Verifier
from tests.sidecar.front import front, never
from tests.sidecar.pod import CANARY, HOME, Pod, clean
from tests.sidecar.secrets import write_secret
from tests.support.exec_helper import build_helper
from tests.support.openbao import OpenBao

DB = f"{HOME}/db"


def test_everything_a_plan_can_ask_for_is_published(pod: Pod, bao: OpenBao) -> None:
    pod.change(
        secrets=(
            SecretFile("whole", DB, "db.json"),
            SecretFile("key", DB, "password", key="password"),
            SecretFile("old", DB, "tls/before", key="password", version=1, mode="0400"),
            SecretFile("rendered", DB, "dsn", template="pg://{{{user}}}:{{{password}}}@db:{{{port}}}"),
            SecretFile("first-version-engine", "old/shop", "shop", key="key"),
        ),
        env=(
            EnvVariable("web", "PASSWORD", path=DB, key="password"),
            EnvVariable("web", "BEFORE", path=DB, key="password", version=1),
            EnvVariable("web", "DSN", value=f"a ${{vault:{DB}#user}}:${{vault:{DB}#password@1}} $HOME"),
            EnvVariable("worker", "TLS", path=DB, key="tls"),
        ),
        env_from=(EnvFrom("worker", DB),),
    )
    ended = pod.run()
    assert ended.code == 0, ended.stderr
    clean(ended)
    assert ended.last_words == ""
    secrets = pod.secrets
    whole = (secrets / "db.json").read_text()
    assert whole == f'{{"password":"{CANARY}-two","port":5432,"tls":true,"user":"alice"}}'
    assert (secrets / "password").read_text() == f"{CANARY}-two"
    assert (secrets / "tls/before").read_text() == f"{CANARY}-one"
    assert (secrets / "dsn").read_text() == f"pg://alice:{CANARY}-two@db:5432"
    assert (secrets / "shop").read_text() == f"{CANARY}-old"
    assert pod.variables("web") == {
        "PASSWORD": f"{CANARY}-two",
        "BEFORE": f"{CANARY}-one",
        "DSN": f"a alice:{CANARY}-one $HOME",
    }
    assert pod.variables("worker") == {**{k: _text(v) for k, v in json.loads(whole).items()}, "TLS": "true"}
    assert pod.published() == ["db.json", "dsn", "env", "exec", "password", "ready", "shop", "tls"]
    assert [each["event"] for each in ended.events] == ["started", "attested", "published", "token_revoked"]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def test_the_volume_holds_no_link_and_the_group_reads(pod: Pod) -> None:
    pod.change(secrets=(SecretFile("a", DB, "tls/a", key="user"), SecretFile("b", DB, "b", key="user", mode="0400")))
    assert pod.run().code == 0
    data = pod.secrets / "..data"
    for root in (pod.secrets, pod.run_folder):
        assert not [each for each in root.rglob("*") if each.is_symlink()]
    assert (pod.secrets / "tls/a").samefile(data / "tls/a"), "one file, twice named"
    assert _mode(pod.secrets / "tls/a") == 0o440
    assert _mode(pod.secrets / "b") == 0o400
    for folder in (data, data / "tls", pod.secrets / "tls"):
        assert _mode(folder) & 0o777 == 0o750
        assert _mode(folder) & stat.S_ISGID, "the volume's group must own what is below"
    assert _mode(pod.run_folder / "exec") == 0o550
    assert _mode(pod.run_folder / "ready") == 0o440


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_second_run_switches_and_leaves_nothing_of_the_first(pod: Pod) -> None:
    pod.change(secrets=(SecretFile("a", DB, "a", key="user"), SecretFile("b", DB, "b", key="user")))
    assert pod.run().code == 0
    before = pod.publication()
    (pod.secrets / "..2001_left_by_a_killed_process").mkdir()
    pod.change(secrets=(SecretFile("b", DB, "b", key="password"),))
    assert pod.run().code == 0
    assert pod.publication() != before
    assert sorted(each.name for each in pod.secrets.iterdir()) == ["..data", "b"]
    assert [each.name for each in (pod.secrets / "..data").iterdir()] == ["b"]


def test_servers_that_close_after_each_answer_are_no_obstacle(
    pod: Pod, bao: OpenBao, verifier_process: Verifier, tmp_path: Path
) -> None:
    """As Go's servers while they shut down, and proxies without kept connections; the CA's text has comments."""
    write_secret(bao, "long", {"key": "x" * 20_000})
    comment = "# Schlüssel für Prüfstände\n"
    with (
        front(tmp_path / "verifier", (verifier_process.port, pod.plan.verifier.ca), never, closes=True) as verifier,
        front(tmp_path / "vault", (bao.tls_port, bao.ca), never, closes=True) as vault,
    ):
        pod.change(
            verifier=pod.plan.verifier._replace(url=verifier.url, ca=comment + verifier.ca),
            vault=pod.plan.vault._replace(url=vault.url, ca="\ufeff" + vault.ca),
            secrets=(SecretFile("long", f"{HOME}/long", "long", key="key"),),
        )
        ended = pod.run()
    assert ended.code == 0, ended.stderr
    assert (pod.secrets / "long").read_text() == "x" * 20_000


@pytest.mark.parametrize("left", ["name", "folder", "missing"])
def test_what_a_killed_process_left_half_shown_is_shown_whole(tmp_path: Path, left: str) -> None:
    """Killed between the first name and the exchange of `..data`."""
    secrets, run = tmp_path / "secrets", tmp_path / "run"
    for root in (secrets, run):
        root.mkdir()
    wanted = {"a": File(b"new", 0o440), "conf/b": File(b"new", 0o440)}
    publish(secrets, {name: File(b"old", 0o440) for name in wanted}, run, {"exec": File(b"x", 0o550)})
    if left == "name":
        (secrets / "a").unlink()
        (secrets / "a").write_bytes(b"new")
    elif left == "folder":
        (secrets / "conf").rename(secrets / "..next")
        (secrets / "conf").mkdir()
    else:
        (secrets / "a").unlink()
    changed, _ = publish(secrets, wanted, run, {"exec": File(b"x", 0o550)})
    assert changed == set(wanted)
    for name in wanted:
        assert (secrets / name).read_bytes() == b"new"
        assert (secrets / name).samefile(secrets / "..data" / name)
    assert sorted(each.name for each in secrets.iterdir()) == ["..data", "a", "conf"]
    assert not [each for each in secrets.rglob("*") if each.is_symlink()]
    assert publish(secrets, wanted, run, {"exec": File(b"x", 0o550)}) == (set(), set())


@pytest.mark.parametrize("left", ["name", "folder", "missing"])
def test_the_same_secrets_mend_a_half_shown_volume(tmp_path: Path, left: str) -> None:
    secrets, run = tmp_path / "secrets", tmp_path / "run"
    for root in (secrets, run):
        root.mkdir()
    wanted = {"a": File(b"same", 0o440), "conf/b": File(b"same", 0o440)}
    publish(secrets, wanted, run, {})
    if left == "name":
        (secrets / "a").unlink()
        (secrets / "a").write_bytes(b"half")
    elif left == "folder":
        (secrets / "conf/b").unlink()
    else:
        (secrets / "a").unlink()
    assert publish(secrets, wanted, run, {})[0] == {"conf/b" if left == "folder" else "a"}
    assert [(secrets / name).read_bytes() for name in wanted] == [b"same", b"same"]


def test_a_pod_without_secrets_proves_its_guest_and_is_ready(pod: Pod, bao: OpenBao) -> None:
    ended = pod.run()
    assert ended.code == 0, ended.stderr
    assert pod.published() == ["exec", "ready"]
    assert ended.named("token_revoked")


def test_the_real_helper_becomes_an_application_with_the_secret(pod: Pod, tmp_path: Path) -> None:
    defines = f'-DRUN_DIRECTORY=\\"{pod.run_folder}\\" -DWAIT_MILLISECONDS=1000'
    pod.helper = build_helper(tmp_path / "helper", defines)
    pod.change(env=(EnvVariable("web", "PASSWORD", path=DB, key="password"), EnvVariable("idle", "A", value="plain")))
    assert pod.run().code == 0
    digest = "import hashlib, os; print(hashlib.sha256(os.environb[b'PASSWORD']).hexdigest())"
    words: list[str | Path] = [pod.run_folder / "exec", "web", "--", "python3", "-c", digest]
    done = subprocess.run(
        words, env={"PATH": "/usr/bin:/bin:/usr/local/bin"}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == hashlib.sha256(f"{CANARY}-two".encode()).hexdigest()


def test_takes_over_the_helper_that_the_hook_has_installed(tmp_path: Path) -> None:
    """The kubelet runs `exec --install` as soon as the container runs, so mostly before the first publication."""
    secrets, run = tmp_path / "secrets", tmp_path / "run"
    for root in (secrets, run):
        root.mkdir()
    helper = build_helper(tmp_path / "helper", f'-DRUN_DIRECTORY=\\"{run}\\"')
    files = {"exec": File(helper.read_bytes(), 0o550), "env/web": File(b"", 0o440)}
    assert subprocess.run([helper, "--install"], timeout=120).returncode == 0
    publish(secrets, {}, run, files)
    assert (run / "exec").samefile(run / "..data" / "exec")
    assert sorted(each.name for each in run.iterdir()) == ["..data", "env", "exec", "ready"]
    assert subprocess.run([helper, "--install"], timeout=120).returncode == 0
    assert publish(secrets, {}, run, files) == (set(), set())


@pytest.mark.parametrize("planted", ["content", "mode", "link"])
def test_a_helper_that_another_has_planted_is_no_start(tmp_path: Path, planted: str) -> None:
    secrets, run, program = tmp_path / "secrets", tmp_path / "run", File(b"\x7fELF", 0o550)
    for root in (secrets, run):
        root.mkdir()
    target = tmp_path / "elsewhere" if planted == "link" else run / "exec"
    target.write_bytes(b"#!/bin/evil" if planted == "content" else program.content)
    target.chmod(0o750 if planted == "mode" else program.mode)
    if planted == "link":
        (run / "exec").symlink_to(target)
    with pytest.raises(SidecarError) as refused:
        publish(secrets, {}, run, {"exec": program})
    assert refused.value.reason is Reason.VOLUME
    assert not (run / "ready").exists()


def test_an_application_that_starts_before_the_secrets_gets_them(pod: Pod, tmp_path: Path) -> None:
    """As behind a hook: the helper is installed and the application's command runs before `morphisms-init` works."""
    defines = f'-DRUN_DIRECTORY=\\"{pod.run_folder}\\" -DWAIT_MILLISECONDS=600000'
    pod.helper = build_helper(tmp_path / "helper", defines)
    pod.change(env=(EnvVariable("web", "PASSWORD", path=DB, key="password"),))
    assert subprocess.run([pod.helper, "--install"], timeout=120).returncode == 0
    digest = "import hashlib, os; print(hashlib.sha256(os.environb[b'PASSWORD']).hexdigest())"
    words: list[str | Path] = [pod.run_folder / "exec", "web", "--", "python3", "-c", digest]
    environment = {"PATH": "/usr/bin:/bin:/usr/local/bin"}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as application:
        assert pod.run().code == 0
        output, _ = application.communicate(timeout=120)
    assert (application.returncode, output.strip()) == (0, hashlib.sha256(f"{CANARY}-two".encode()).hexdigest())
