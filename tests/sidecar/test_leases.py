"""Leased credentials: OpenBao's database engine makes users of a real PostgreSQL, and the sidecar keeps them alive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from plan.document import EnvVariable, SecretFile
from sidecar.reasons import Exit
from sidecar.renew.lease_renewer import HANDOVER_SECONDS
from sidecar.renew.leases import RETRY_SECONDS
from tests.attestation.verifier.process import Verifier
from tests.sidecar.clock import Clock
from tests.sidecar.front import front, never
from tests.sidecar.pod import Pod, clean, refused
from tests.sidecar.postgres import Postgres, postgres
from tests.sidecar.resident import application, resident
from tests.sidecar.test_shutdown import alive
from tests.support.openbao import OpenBao
from tests.support.until import until

pytestmark = pytest.mark.slow

RENEWAL = "/v1/sys/leases/renew"
DUE = 600 * 2 / 3  # what lives for ten minutes is renewed then, or up to a twentieth earlier
_READ = 'path "database/creds/*" { capabilities = ["read"] }'
_REVOKE = 'path "sys/leases/revoke" { capabilities = ["update"] }'


@pytest.fixture(scope="module")
def database(bao: OpenBao) -> Iterator[Postgres]:
    with postgres() as server:
        server.offer(bao, "lasting", "50m", "1h")
        yield server


@pytest.fixture
def short(bao: OpenBao, database: Postgres) -> str:
    """A role whose leases live for ten minutes, and an hour when renewed."""
    database.offer(bao, "short", "10m", "1h")
    return "short"


@pytest.fixture
def role(bao: OpenBao, verifier_process: Verifier) -> Iterator[None]:
    """The workload may have credentials, and end its own leases."""
    bao.done("PUT", "sys/policies/acl/database", {"policy": f"{_READ}\n{_REVOKE}"})
    bao.write_role(token_policies=["database"])
    yield
    bao.write_role(token_policies=["knative", "tests"])


def wanting(pod: Pod, name: str) -> Pod:
    path = f"database/creds/{name}"
    pod.change(
        secrets=(
            SecretFile("user", path, "user", key="username"),
            SecretFile("login", path, "login", template="{{{username}}} {{{password}}}"),
        )
    )
    return pod


def login(pod: Pod) -> tuple[str, str]:
    user, password = (pod.secrets / "login").read_text().split()
    return user, password


def leases(bao: OpenBao, name: str) -> set[str]:
    status, found = bao.call("LIST", f"sys/leases/lookup/database/creds/{name}")
    return set(found["data"]["keys"]) if status == 200 else set()


def test_credentials_appear_and_go_with_the_pod(pod: Pod, bao: OpenBao, database: Postgres, role: None) -> None:
    before = alive(bao)
    with resident(wanting(pod, "lasting")) as sidecar:
        sidecar.wait("published")
        name, password = login(pod)
        assert database.accepts(name, password)
        assert len(leases(bao, "lasting")) == 1, "read once, though two files want it"
        ended = sidecar.stop()
    assert ended.code == 0
    clean(ended, (name, password))
    until(lambda: not leases(bao, "lasting"))
    assert not database.accepts(name, password)
    assert alive(bao) - before == set()


def near_its_maximum(bao: OpenBao, database: Postgres, role: str) -> None:
    """From now on Vault renews a lease of the role for less than half of its first life."""
    database.offer(bao, role, "4m", "4m")


def test_a_lease_is_renewed_and_replaced_near_its_maximum(
    pod: Pod, bao: OpenBao, database: Postgres, role: None, short: str, clock: Clock, tmp_path: Path, name: str
) -> None:
    wanting(pod, short).change(on_change=f"signal:SIGHUP:{name}")
    with (
        front(tmp_path / "front", (bao.tls_port, bao.ca), never) as fronted,
        application(tmp_path, pod.secrets / "user", name) as app,
    ):
        pod.change(vault=pod.plan.vault._replace(url=fronted.url, ca=fronted.ca))
        with resident(pod) as sidecar:
            sidecar.wait("published")
            first = login(pod)
            clock.advance(DUE)
            until(lambda: fronted.paths().count(RENEWAL) == 1)
            near_its_maximum(bao, database, short)
            clock.advance(DUE)
            sidecar.wait("signalled")
            second = login(pod)
            assert app.stdout is not None
            assert app.stdout.readline().strip() == second[0] != first[0]
            assert fronted.paths().count(RENEWAL) == 2
            assert len(sidecar.named("published")) == 2, "once renewed, once replaced"
            assert len(sidecar.named("attested")) == 1
            assert database.accepts(*second)
            clock.advance(HANDOVER_SECONDS)
            sidecar.wait("lease_revoked")
            until(lambda: not database.accepts(*first))
            assert len(leases(bao, short)) <= 2
            ended = sidecar.stop()
    assert ended.code == 0
    assert not [each for each in ended.events if each["level"] != "info"]
    clean(ended, (*first, *second))
    until(lambda: not leases(bao, short))


def test_without_the_permission_to_end_a_lease_it_is_said_and_ends_by_itself(
    pod: Pod, bao: OpenBao, database: Postgres, role: None, short: str, clock: Clock
) -> None:
    bao.done("PUT", "sys/policies/acl/database", {"policy": _READ})
    with resident(wanting(pod, short)) as sidecar:
        sidecar.wait("published")
        first = login(pod)
        (lease,) = leases(bao, short)
        near_its_maximum(bao, database, short)
        clock.advance(DUE)
        sidecar.wait("published", 2)
        clock.advance(HANDOVER_SECONDS)
        assert "HTTP 403" in sidecar.wait("lease_not_revoked")[0]["detail"]
        assert database.accepts(*first)
        bao.done("PUT", "sys/leases/renew", {"lease_id": f"database/creds/{short}/{lease}", "increment": 1})
        until(lambda: not database.accepts(*first))
        assert sidecar.stop().code == 0


def test_a_new_token_brings_new_credentials_before_the_old_ones_end(
    pod: Pod, bao: OpenBao, database: Postgres, role: None, clock: Clock
) -> None:
    bao.write_role(token_policies=["database"], token_explicit_max_ttl="10m")
    before = alive(bao)
    with resident(wanting(pod, "lasting")) as sidecar:
        sidecar.wait("published")
        first = login(pod)
        clock.advance(DUE)
        sidecar.wait("published", 2)
        second = login(pod)
        assert database.accepts(*first), "an application has time to change over"
        assert database.accepts(*second)
        clock.advance(HANDOVER_SECONDS)
        published, revoked = sidecar.named("published")[1], sidecar.wait("token_revoked")[0]
        assert revoked["uptime_ms"] - published["uptime_ms"] >= HANDOVER_SECONDS * 1000
        until(lambda: not database.accepts(*first))
        assert len(leases(bao, "lasting")) == 1
        ended = sidecar.stop()
    assert ended.code == 0
    assert not [each for each in ended.events if each["level"] != "info"]
    assert alive(bao) - before == set()


def test_while_one_role_is_broken_all_old_credentials_stay(
    pod: Pod, bao: OpenBao, database: Postgres, role: None, clock: Clock
) -> None:
    """What a new token gave before it turned out not to do is not shown: it ends with that token."""
    bao.write_role(token_policies=["database", "tests"], token_explicit_max_ttl="10m")
    database.offer(bao, "other", "50m", "1h")
    wanting(pod, "lasting")
    pod.change(secrets=(*pod.plan.secrets, SecretFile("other", "database/creds/other", "other", key="username")))
    before = alive(bao)
    with resident(pod) as sidecar:
        sidecar.wait("published")
        first, other = login(pod), (pod.secrets / "other").read_text()
        bao.done("DELETE", "database/roles/other")
        try:
            clock.advance(DUE)
            sidecar.wait("trouble")
            sidecar.wait("token_revoked")
            assert (login(pod), (pod.secrets / "other").read_text()) == (first, other)
            assert database.accepts(*first)
            assert len(alive(bao) - before) <= 2, "what was taken in vain is given back"
        finally:
            database.offer(bao, "other", "50m", "1h")
        sidecar.wait("published", 2)
        assert (pod.secrets / "other").read_text() != other
        assert database.accepts(*login(pod))
        ended = sidecar.stop()
    assert ended.code == 0
    assert alive(bao) - before == set()


def test_a_broken_role_does_not_hold_up_the_others(
    pod: Pod, bao: OpenBao, database: Postgres, role: None, short: str, clock: Clock
) -> None:
    database.offer(bao, "other", "10m", "1h")
    wanting(pod, short)
    pod.change(secrets=(SecretFile("other", "database/creds/other", "other", key="username"), *pod.plan.secrets))
    with resident(pod) as sidecar:
        sidecar.wait("published")
        first = login(pod)
        bao.done("DELETE", "database/roles/other")
        near_its_maximum(bao, database, short)
        clock.advance(DUE)
        assert sidecar.wait("trouble")[0]["subject"] == "secret database/creds/other"
        until(lambda: login(pod) != first)
        assert database.accepts(*login(pod))
        database.offer(bao, "other", "10m", "1h")
        clock.advance(2 * RETRY_SECONDS)
        sidecar.wait("recovered", subject="secret database/creds/other")
        assert sidecar.stop().code == 0


def test_agent_init_refuses_a_secret_with_a_lease(pod: Pod, bao: OpenBao) -> None:
    before = alive(bao)
    pod.change(env=(EnvVariable("web", "USER", path="database/creds/lasting", key="username"),))
    event = refused(pod.run(), Exit.CONFIGURATION, "secret-path")
    assert "needs agent: sidecar" in event["detail"]
    assert alive(bao) == before
