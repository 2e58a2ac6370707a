"""`agent: sidecar`: renews, attests again, publishes what has changed, and gives its token back at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from plan.document import EnvVariable, SecretFile
from tests.attestation.verifier.process import Verifier
from tests.sidecar.pod import CANARY, HOME, Pod, clean
from tests.sidecar.resident import application, resident
from tests.sidecar.secrets import write_secret
from tests.sidecar.test_shutdown import alive
from tests.support.openbao import OpenBao

ROTATED = f"{HOME}/rotated"


@pytest.fixture
def short_life(bao: OpenBao, verifier_process: Verifier) -> Iterator[None]:
    """Tokens that live 3 s, and 6 s when renewed."""
    bao.write_role(token_policies=["knative", "tests"], token_ttl="3s", token_explicit_max_ttl="6s")
    yield
    bao.write_role(token_policies=["knative", "tests"])


@pytest.fixture
def rotating(pod: Pod, bao: OpenBao) -> Pod:
    """A pod with one secret that the test changes."""
    write_secret(bao, "rotated", {"password": f"{CANARY}-first"})
    pod.change(secrets=(SecretFile("password", ROTATED, "password", key="password"),))
    return pod


def test_it_keeps_running_and_revokes_its_token_on_sigterm(rotating: Pod, bao: OpenBao) -> None:
    before = alive(bao)
    with resident(rotating) as sidecar:
        sidecar.wait("published")
        assert rotating.published() == ["exec", "password", "ready"]
        assert len(alive(bao) - before) == 1
        ended = sidecar.stop()
    assert ended.code == 0
    assert [each["event"] for each in ended.events] == ["started", "attested", "published", "stopping", "token_revoked"]
    assert ended.last_words == ""
    assert alive(bao) - before == set()
    assert (rotating.secrets / "password").read_text() == f"{CANARY}-first", "what was published stays"
    clean(ended)


def test_it_renews_then_attests_again_at_two_thirds_and_drops_the_old_token(
    rotating: Pod, bao: OpenBao, short_life: None
) -> None:
    before = alive(bao)
    with resident(rotating) as sidecar:
        data = (sidecar.wait("published"), rotating.publication())[1]
        first, second, third = sidecar.wait("attested", 3)[:3]
        sidecar.wait("token_revoked", 2)
        # At two thirds of 6 s, up to a twentieth earlier: later than the first 3 s, so the token was renewed.
        for earlier, later in ((first, second), (second, third)):
            assert later["uptime_ms"] - earlier["uptime_ms"] > 3000
        assert len(alive(bao) - before) == 1
        assert rotating.publication() == data, "unchanged secrets are not written again"
        assert len(sidecar.named("published")) == 1
        assert sidecar.probe("/livez")[1] == {"state": "well", "published": 1, "troubles": []}
        ended = sidecar.stop()
    assert ended.code == 0
    assert not [each for each in ended.events if each["level"] != "info"]
    assert alive(bao) - before == set()


def test_the_plan_says_how_often_a_secret_is_read_again(rotating: Pod, bao: OpenBao) -> None:
    rotating.change(reread_seconds=1)
    with resident(rotating, reread=300.0) as sidecar:
        sidecar.wait("published")
        write_secret(bao, "rotated", {"password": f"{CANARY}-second"})
        sidecar.wait("published", 2)
        assert (rotating.secrets / "password").read_text() == f"{CANARY}-second"
        ended = sidecar.stop()
    clean(ended)


def test_a_changed_secret_is_published_at_once_and_the_application_told(
    rotating: Pod, bao: OpenBao, tmp_path: Path
) -> None:
    rotating.change(
        on_change="signal:SIGHUP:morphisms-app",
        env=(EnvVariable("web", "PASSWORD", path=ROTATED, key="password"),),
    )
    with application(tmp_path, rotating.secrets / "password") as process, resident(rotating, reread=0.5) as sidecar:
        sidecar.wait("published")
        assert process.stdout is not None
        write_secret(bao, "rotated", {"password": f"{CANARY}-second"})
        sidecar.wait("signalled", count=1)
        assert process.stdout.readline() == f"{CANARY}-second\n", "when the signal comes, the new file is there"
        assert rotating.variables("web") == {"PASSWORD": f"{CANARY}-second"}
        assert sidecar.named("environment_published", containers=["web"])
        ended = sidecar.stop()
    assert ended.code == 0
    clean(ended)
