"""What is taken away while a sidecar runs: token, secret, version, permission, belief. What was published stays."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from plan.document import SecretFile
from tests.attestation.verifier.process import Verifier, policy
from tests.sidecar.pod import CANARY, HOME, Pod, clean
from tests.sidecar.resident import Resident, resident
from tests.sidecar.secrets import v2, write_secret
from tests.sidecar.test_shutdown import alive
from tests.support.openbao import OpenBao
from tests.support.until import until

A, B = f"{HOME}/a", f"{HOME}/b"


@pytest.fixture
def pair(pod: Pod, bao: OpenBao) -> Pod:
    """A pod with two secrets, of which tests spoil the first."""
    for name in "ab":
        bao.call("DELETE", f"{v2(HOME)}/{name}".replace("/data/", "/metadata/"))
        write_secret(bao, name, {"key": f"{CANARY}-1"})
    pod.change(secrets=(SecretFile("a", A, "a", key="key"), SecretFile("b", B, "b", key="key")))
    return pod


def shown(pod: Pod) -> tuple[str, str]:
    return tuple((pod.secrets / name).read_text().removeprefix(f"{CANARY}-") for name in "ab")  # type: ignore[return-value]


def other_still_changes(sidecar: Resident, bao: OpenBao) -> None:
    """One bad secret does not hold up the good one, and is published as it was."""
    before = len(sidecar.named("published"))
    write_secret(bao, "b", {"key": f"{CANARY}-2"})
    sidecar.wait("published", before + 1)
    assert shown(sidecar.pod) == ("1", "2")


def mended(sidecar: Resident, bao: OpenBao) -> None:
    """What is there again is published, and the trouble was told once at its start and once at its end."""
    write_secret(bao, "a", {"key": f"{CANARY}-3"})
    sidecar.wait("recovered", subject=f"secret {A}")
    assert shown(sidecar.pod) == ("3", "2")
    assert len(sidecar.named("trouble")) == len(sidecar.named("recovered")) == 1
    ended = sidecar.stop()
    assert ended.code == 0
    clean(ended)


def test_a_deleted_secret_keeps_its_last_version(pair: Pod, bao: OpenBao) -> None:
    with resident(pair, reread=0.3) as sidecar:
        sidecar.wait("published")
        bao.done("DELETE", f"{v2(HOME)}/a")
        assert sidecar.wait("trouble")[0]["reason"] == "secret-missing"
        other_still_changes(sidecar, bao)
        told = {"state": "troubled", "published": 2, "troubles": ["secret-missing"]}
        until(lambda: sidecar.probe("/livez") == (200, told))
        assert sidecar.probe("/startupz")[0] == 200
        mended(sidecar, bao)


def test_a_destroyed_version_keeps_its_last_content(pair: Pod, bao: OpenBao) -> None:
    with resident(pair, reread=0.3) as sidecar:
        sidecar.wait("published")
        bao.done("PUT", f"{v2(HOME)}/a".replace("/data/", "/destroy/"), {"versions": [1]})
        assert sidecar.wait("trouble")[0]["reason"] == "secret-missing"
        other_still_changes(sidecar, bao)
        mended(sidecar, bao)


def test_a_removed_key_keeps_its_last_value(pair: Pod, bao: OpenBao) -> None:
    with resident(pair, reread=0.3) as sidecar:
        sidecar.wait("published")
        write_secret(bao, "a", {"other": f"{CANARY}-2"})
        assert sidecar.wait("trouble")[0]["reason"] == "key-missing"
        other_still_changes(sidecar, bao)
        mended(sidecar, bao)


def test_a_secret_grown_too_large_keeps_its_last_version(pair: Pod, bao: OpenBao) -> None:
    """Three of its copies would be beyond what the volume may hold."""
    pair.change(secrets=(*pair.plan.secrets, *(SecretFile(f"a{n}", A, f"a{n}", key="key") for n in range(20))))
    with resident(pair, reread=0.3) as sidecar:
        sidecar.wait("published")
        write_secret(bao, "a", {"key": "x" * 900_000})
        assert sidecar.wait("trouble")[0]["reason"] == "too-large"
        assert shown(pair) == ("1", "1")
        write_secret(bao, "a", {"key": f"{CANARY}-3"})
        sidecar.wait("recovered")
        assert shown(pair) == ("3", "1")


def test_a_secret_nested_too_deeply_keeps_its_last_version(pair: Pod, bao: OpenBao) -> None:
    """Vault takes it, and a template needs more depth for it than there is."""
    pair.change(secrets=(SecretFile("c", A, "c", template="{{#key}}there is one{{/key}}"), *pair.plan.secrets))
    with resident(pair, reread=0.3) as sidecar:
        sidecar.wait("published")
        data: object = f"{CANARY}-deep"
        for _ in range(900):
            data = [data]
        write_secret(bao, "a", {"key": data})
        assert sidecar.wait("trouble")[0]["reason"] == "template"
        other_still_changes(sidecar, bao)
        mended(sidecar, bao)


def test_a_pinned_version_is_read_once(pair: Pod, bao: OpenBao) -> None:
    pair.change(secrets=(SecretFile("a", A, "a", key="key", version=1), SecretFile("b", B, "b", key="key")))
    with resident(pair, reread=0.3) as sidecar:
        sidecar.wait("published")
        write_secret(bao, "a", {"key": f"{CANARY}-2"})
        bao.done("PUT", f"{v2(HOME)}/a".replace("/data/", "/destroy/"), {"versions": [1]})
        other_still_changes(sidecar, bao)
        assert not sidecar.named("trouble")


@pytest.fixture
def narrow(bao: OpenBao) -> Iterator[str]:
    """A policy of this test's own that opens both secrets; the templated one, which would too, is left out."""
    bao.done("PUT", "sys/policies/acl/narrow", {"policy": _opening("a", "b")})
    bao.write_role(token_policies=["narrow"])
    yield "sys/policies/acl/narrow"
    bao.write_role(token_policies=["knative", "tests"])


def _opening(*names: str) -> str:
    return "\n".join(f'path "{v2(HOME)}/{name}" {{ capabilities = ["read"] }}' for name in names)


def test_a_permission_that_is_lost_does_not_cost_the_token(pair: Pod, bao: OpenBao, narrow: str) -> None:
    with resident(pair, reread=0.3) as sidecar:
        sidecar.wait("published")
        bao.done("PUT", narrow, {"policy": _opening("b")})
        assert sidecar.wait("trouble")[0]["reason"] == "vault-refused"
        other_still_changes(sidecar, bao)
        assert len(sidecar.named("attested")) == 1
        bao.done("PUT", narrow, {"policy": _opening("a", "b")})
        mended(sidecar, bao)


def test_a_token_that_is_revoked_is_replaced(pair: Pod, bao: OpenBao) -> None:
    before = alive(bao)
    with resident(pair, reread=0.3) as sidecar:
        sidecar.wait("published")
        (accessor,) = alive(bao) - before
        bao.done("POST", "auth/token/revoke-accessor", {"accessor": accessor})
        assert sidecar.wait("trouble")[0]["reason"] == "token-gone"
        sidecar.wait("attested", 2)
        sidecar.wait("recovered", subject="token")
        assert shown(pair) == ("1", "1")
        assert len(sidecar.named("published")) == 1
        other_still_changes(sidecar, bao)
        ended = sidecar.stop()
    assert ended.code == 0
    assert alive(bao) - before == set()


def test_without_the_permission_to_look_a_lost_secret_costs_one_new_token(pair: Pod, bao: OpenBao, narrow: str) -> None:
    """It cannot be told from a token that was revoked; the new token tells, and is not replaced again."""
    bao.write_role(token_policies=["narrow"], token_no_default_policy=True)
    try:
        with resident(pair, reread=0.3) as sidecar:
            sidecar.wait("published")
            bao.done("PUT", narrow, {"policy": _opening("b")})
            sidecar.wait("trouble", reason="vault-refused")
            other_still_changes(sidecar, bao)
            assert len(sidecar.named("attested")) == 2
            assert [each["reason"] for each in sidecar.named("trouble")] == ["token-gone", "vault-refused"]
            assert sidecar.stop().code == 0
    finally:
        bao.write_role(token_no_default_policy=False)


def test_a_guest_refused_later_keeps_its_secrets_and_attests_again(
    pair: Pod, bao: OpenBao, verifier_process: Verifier
) -> None:
    before = alive(bao)
    with resident(pair, reread=0.3) as sidecar:
        sidecar.wait("published")
        (accessor,) = alive(bao) - before
        reloads = len(verifier_process.events("file_reloaded"))
        verifier_process.site.policy_path("payments").unlink()
        try:
            until(lambda: len(verifier_process.events("file_reloaded")) > reloads)
            bao.done("POST", "auth/token/revoke-accessor", {"accessor": accessor})
            refused = sidecar.wait("trouble", reason="verifier-refused")[0]
            assert len(refused["correlation_id"]) == 16
            assert shown(pair) == ("1", "1")
            assert sidecar.probe("/livez")[0] == 200
        finally:
            verifier_process.site.write_policy("payments", policy())
        sidecar.wait("recovered", subject="attestation")
        assert len(sidecar.named("trouble", reason="verifier-refused")) == 1
        ended = sidecar.stop()
    assert ended.code == 0
    assert alive(bao) - before == set()
