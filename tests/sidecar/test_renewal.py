"""`agent: sidecar`: renews, attests again, publishes what has changed, and gives its token back at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from plan.document import EnvVariable, SecretFile
from tests.sidecar.clock import Clock
from tests.sidecar.front import Front, front, never
from tests.sidecar.pod import CANARY, HOME, Pod, clean
from tests.sidecar.resident import application, resident
from tests.sidecar.secrets import write_secret
from tests.sidecar.test_shutdown import alive
from tests.support.openbao import OpenBao
from tests.support.until import until

ROTATED = f"{HOME}/rotated"
RENEWAL = "/v1/auth/token/renew-self"
LIFE, LONGEST_LIFE = 600, 3600  # of a token of the role


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
    rotating: Pod, bao: OpenBao, clock: Clock, tmp_path: Path
) -> None:
    before = alive(bao)
    with front(tmp_path / "front", (bao.tls_port, bao.ca), never) as fronted:
        rotating.change(vault=rotating.plan.vault._replace(url=fronted.url, ca=fronted.ca))
        _renews_and_attests(rotating, bao, clock, fronted, before)


def _renews_and_attests(pod: Pod, bao: OpenBao, clock: Clock, vault: Front, before: set[str]) -> None:
    # Two thirds of a token's life; all that is due then is due up to a twentieth earlier.
    step, steps = LIFE * 2 / 3, LONGEST_LIFE // LIFE

    def renewals() -> int:
        return vault.paths().count(RENEWAL)

    with resident(pod) as sidecar:
        sidecar.wait("published")
        data = pod.publication()
        for tokens in (1, 2):
            for _ in range(1, steps):
                assert len(sidecar.named("attested")) == tokens
                done = renewals()
                clock.advance(step)
                until(lambda done=done: renewals() > done)
            clock.advance(step)
            sidecar.wait("attested", tokens + 1)
            sidecar.wait("token_revoked", tokens)
        assert len(alive(bao) - before) == 1
        assert pod.publication() == data, "unchanged secrets are not written again"
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
    rotating: Pod, bao: OpenBao, tmp_path: Path, name: str
) -> None:
    rotating.change(
        on_change=f"signal:SIGHUP:{name}",
        env=(EnvVariable("web", "PASSWORD", path=ROTATED, key="password"),),
    )
    with (
        application(tmp_path, rotating.secrets / "password", name) as process,
        resident(rotating, reread=0.5) as sidecar,
    ):
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
