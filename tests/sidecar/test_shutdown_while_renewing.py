"""SIGTERM and SIGKILL to a sidecar that stays, while it publishes, renews and attests again as fast as it can."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from plan.document import EnvVariable, SecretFile
from sidecar.reasons import Exit
from tests.attestation.verifier.process import Verifier
from tests.sidecar.front import Request, Spoilt, front
from tests.sidecar.pod import CANARY, HOME, Pod, clean, refused
from tests.sidecar.resident import resident
from tests.sidecar.secrets import write_secret
from tests.sidecar.test_shutdown import alive, none_left
from tests.support.openbao import OpenBao

pytestmark = pytest.mark.slow

BUSY = f"{HOME}/busy"
_RANDOM = random.Random(5)
# From before the interpreter is up until well into the third token.
MOMENTS = sorted(round(_RANDOM.uniform(0.05, 5.0), 3) for _ in range(20))


@pytest.fixture
def hurried(bao: OpenBao, verifier_process: Verifier) -> Iterator[None]:
    """Tokens that are replaced every other second."""
    bao.write_role(token_policies=["knative", "tests"], token_ttl="2s", token_explicit_max_ttl="3s")
    yield
    bao.write_role(token_policies=["knative", "tests"])


@pytest.fixture
def changing(pod: Pod, bao: OpenBao) -> Iterator[Pod]:
    """A pod whose secret never stays the same."""
    ended = threading.Event()
    write_secret(bao, "busy", {"key": f"{CANARY}-0"})

    def change() -> None:
        count = 0
        while not ended.wait(0.05):
            count += 1
            write_secret(bao, "busy", {"key": f"{CANARY}-{count}"})

    thread = threading.Thread(target=change)
    thread.start()
    pod.change(
        secrets=tuple(SecretFile(f"s{n}", BUSY, f"folder/s{n}") for n in range(20)),
        env=(EnvVariable("web", "KEY", path=BUSY, key="key"),),
    )
    yield pod
    ended.set()
    thread.join()


def is_whole(pod: Pod) -> bool:
    """All files of one version, in each volume; False when nothing is there."""
    names = pod.published()
    if "folder" in names:
        found = [each.read_text() for each in sorted((pod.secrets / "folder").iterdir())]
        assert len(found) == 20
        assert len(set(found)) == 1
        assert json.loads(found[0])["key"].startswith(CANARY)
    if "env" in names:
        assert pod.variables("web")["KEY"].startswith(CANARY)
    return names == ["env", "exec", "folder", "ready"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_sigterm_at_any_moment(changing: Pod, bao: OpenBao, hurried: None, moment: float) -> None:
    before = alive(bao)
    with resident(changing, reread=0.05) as sidecar:
        time.sleep(moment)  # a moment that nobody chose
        ended = sidecar.stop()
    clean(ended)
    none_left(bao, before)
    # They are short-lived, so that there are many; each was given back all the same, or had ended, which is said.
    assert len(ended.named("token_revoked") + ended.named("token_not_revoked")) == len(ended.named("attested"))
    if ended.code == Exit.PUBLISHED:
        assert is_whole(changing)
        assert ended.last_words == ""
    else:
        assert ended.code in (Exit.STOPPED, -signal.SIGTERM), ended.stderr  # the latter: Python had not started
        assert changing.published() == []


@pytest.mark.parametrize("moment", [moment for moment in MOMENTS if moment > 0.5][::2])
def test_sigkill_never_leaves_half_and_the_next_start_mends_it(changing: Pod, hurried: None, moment: float) -> None:
    with resident(changing, reread=0.05) as sidecar:
        time.sleep(moment)
        sidecar.stop(signal.SIGKILL)
        is_whole(changing)
    with resident(changing, reread=0.05) as sidecar:
        sidecar.wait("published")
        assert sidecar.stop().code == 0
    assert is_whole(changing)
    left = [each.name for folder in (changing.secrets, changing.run_folder) for each in folder.iterdir()]
    hidden = [name for name in left if name.startswith("..")]
    assert hidden == ["..data", "..data"], "nothing of the killed one is left"


def test_a_second_sigterm_changes_nothing(pod: Pod, bao: OpenBao, tmp_path: Path) -> None:
    revoking, go_on = threading.Event(), threading.Event()

    def slowly(request: Request, _seen: Sequence[Request]) -> Spoilt | None:
        if request.path.endswith("revoke-self"):
            revoking.set()
            go_on.wait(120)
        return None

    before = alive(bao)
    with front(tmp_path / "front", (bao.tls_port, bao.ca), slowly) as fronted:
        pod.change(vault=pod.plan.vault._replace(url=fronted.url, ca=fronted.ca))
        with resident(pod) as sidecar:
            sidecar.wait("published")
            sidecar.process.send_signal(signal.SIGTERM)
            assert revoking.wait(120)
            sidecar.process.send_signal(signal.SIGTERM)
            sidecar.process.send_signal(signal.SIGINT)
            go_on.set()
            ended = sidecar.end()
    assert ended.code == 0
    assert ended.named("token_revoked")
    assert alive(bao) - before == set()


def test_sigterm_before_anything_is_published_is_143(pod: Pod, bao: OpenBao, tmp_path: Path) -> None:
    asked = threading.Event()

    def mute(request: Request, _seen: Sequence[Request]) -> Spoilt | None:
        if "/data/" in request.path:
            asked.set()
            return Spoilt(200, (), b" " * 1000, trickle=True)
        return None

    before = alive(bao)
    with front(tmp_path / "front", (bao.tls_port, bao.ca), mute) as fronted:
        pod.change(
            vault=pod.plan.vault._replace(url=fronted.url, ca=fronted.ca),
            secrets=(SecretFile("db", f"{HOME}/db", "db"),),
        )
        with resident(pod) as sidecar:
            assert asked.wait(120)
            ended = sidecar.stop()
    refused(ended, Exit.STOPPED, "stopped")
    assert alive(bao) - before == set()
    assert pod.published() == []
