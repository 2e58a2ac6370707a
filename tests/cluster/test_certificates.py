"""The webhook's own CA on a real API server: installed, renewed, replaced, damaged, and led by one after another."""

from __future__ import annotations

import contextlib
import glob
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from certs.chain import vouches
from certs.pem import Pair, read_certificates, read_pair
from tests.cluster.caught_up import wait_for_roles
from tests.cluster.client import JSON_PATCH, Object
from tests.cluster.controlplane import ControlPlane, control_plane
from tests.cluster.nodes import KATA, RUNTIME_CLASSES
from tests.cluster.own_ca import KINDS, REGISTRATIONS, SECRETS, OwnCa, Replica, load
from tests.support import packages
from tests.support.until import until

AUTHORITY, LEAF = SECRETS
# An API server that gets no turn for three seconds may learn so late of a bundle, and a leader of what it has to renew.
SLOW = {"leafSeconds": 3600, "authoritySeconds": 36000, "settleSeconds": 4}
_FAKETIME = [*glob.glob("/usr/lib/*/faketime/libfaketime.so.1"), *glob.glob("/usr/lib64/faketime/libfaketime.so.1")]
FAST = {"leafSeconds": 30, "authoritySeconds": 3600, "settleSeconds": 4}


@pytest.fixture(scope="module")
def bare(_programs: None) -> Iterator[ControlPlane]:
    """A control plane without an installation: the webhook configurations' names are ours alone."""
    with control_plane("certificates") as cluster:
        cluster.admin.create(RUNTIME_CLASSES, KATA)
        yield cluster


@pytest.fixture
def install(bare: ControlPlane) -> Iterator[Callable[..., OwnCa]]:
    """`install(periods, replicas=2)`: a webhook whose replicas are ready, its configurations registered."""
    with _installing(bare) as make:
        yield make


@contextlib.contextmanager
def _installing(bare: ControlPlane) -> Iterator[Callable[..., OwnCa]]:
    made: list[OwnCa] = []

    def make(periods: dict[str, int], replicas: int = 2, **options: Any) -> OwnCa:
        hook = OwnCa(bare, periods, **options)
        made.append(hook)
        hook.register()
        for number in range(replicas):
            hook.start(f"replica-{number}", wait=False)
        for replica in hook.replicas:
            replica.process.wait_until_ready()
        return hook

    try:
        yield make
    finally:
        for hook in made:
            hook.close()


@pytest.fixture
def workloads(bare: ControlPlane) -> Iterator[Callable[[OwnCa], str]]:
    """`workloads(hook)`: a namespace whose pods go to that webhook, once the API server knows it."""
    with _making_namespaces(bare) as make:
        yield make


@contextlib.contextmanager
def _making_namespaces(bare: ControlPlane) -> Iterator[Callable[[OwnCa], str]]:
    made: list[str] = []

    def make(hook: OwnCa) -> str:
        name = f"test-{uuid.uuid4().hex[:8]}"
        made.append(name)
        labels = {"hook": hook.namespace, "morphisms.dev/mode": "inject"}
        metadata = {"name": name, "labels": labels}
        bare.admin.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        bare.admin.until(f"/api/v1/namespaces/{name}/serviceaccounts", bool)
        until(lambda: all(replica.ready() for replica in hook.replicas))
        until(lambda: _admitted(hook, name))
        return name

    try:
        yield make
    finally:
        for name in made:
            bare.admin.request("DELETE", f"/api/v1/namespaces/{name}")


def _admitted(hook: OwnCa, namespace: str) -> bool:
    with load(hook, namespace, clients=1) as tried:
        until(lambda: tried.asked >= 5)
    return not tried.failures


def _serials(hook: OwnCa) -> set[int]:
    return {replica.certificate().serial_number for replica in hook.replicas}


def _without_bundles(registration: Object) -> Object:
    kept = {**registration, "metadata": {key: registration["metadata"][key] for key in ("name", "annotations", "uid")}}
    kept["webhooks"] = [
        {**webhook, "clientConfig": {key: value for key, value in webhook["clientConfig"].items() if key != "caBundle"}}
        for webhook in registration["webhooks"]
    ]
    return kept


def test_a_first_install_with_empty_secrets_is_trusted_and_changes_bundles_only(
    bare: ControlPlane, install: Callable[..., OwnCa], workloads: Callable[[OwnCa], str]
) -> None:
    mark = bare.audit.mark()
    hook = install(SLOW)
    assert len(_serials(hook)) == 1
    (bundle,) = set(hook.bundles())
    (authority,) = bundle
    assert vouches(authority, hook.replicas[0].certificate())
    workloads(hook)
    print(f"\nresident: {', '.join(f'{replica.process.resident_mib():.0f} MiB' for replica in hook.replicas)}")
    assert [replica.metric("morphisms_certificate_leader") for replica in hook.replicas].count(1.0) == 1
    for replica in hook.replicas:
        ends = authority.not_valid_after_utc.timestamp()
        until(partial(_has_metrics, replica, {"morphisms_certificate_authority_not_after_seconds": ends, **_TRUSTED}))
        skew = replica.metric("morphisms_clock_skew_seconds")
        assert skew is not None
        assert abs(skew) < 60
    for kind in KINDS:
        registration = hook.registration(kind)
        assert registration["metadata"]["annotations"] == {"note": "stays"}
        until(partial(_patches, bare, hook, kind, mark))
        (event,) = _patches(bare, hook, kind, mark)
        before = {operation["op"] for operation in event["requestObject"]}
        assert before == {"test", "add"}
        added = [operation["path"] for operation in event["requestObject"] if operation["op"] == "add"]
        assert added == [f"/webhooks/{i}/clientConfig/caBundle" for i in range(len(registration["webhooks"]))]


_TRUSTED = {f'morphisms_certificate_trusted{{configuration="{kind}"}}': 1.0 for kind in KINDS}


def _has_metrics(replica: Replica, expected: dict[str, float]) -> bool:
    return {name: replica.metric(name) for name in expected} == expected


def _patches(bare: ControlPlane, hook: OwnCa, kind: str, mark: int) -> list[dict[str, Any]]:
    """The account's writes of a configuration since `mark`, which are in the log a moment after they took effect."""
    bare.audit.until_now(bare.admin)
    return [
        event
        for event in bare.audit.events(mark)
        if event["user"]["username"].startswith(f"system:serviceaccount:{hook.namespace}:")
        and event["objectRef"].get("resource") == kind
        and event["verb"] not in ("list", "watch")
    ]


def test_secrets_that_are_not_there_are_made_by_name_alone(install: Callable[..., OwnCa]) -> None:
    hook = install(SLOW, replicas=1, secrets=False)
    assert set(hook.secret(AUTHORITY)) == {"ca.crt", "ca.key"}
    assert set(hook.secret(LEAF)) == {"tls.crt", "tls.key", "ca.crt"}
    other = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "other"}}
    path = f"/api/v1/namespaces/{hook.namespace}/secrets"
    assert hook.account.request("POST", path, other).status == 403
    apply = {"content_type": "application/apply-patch+yaml", "query": {"fieldManager": "x"}}
    assert hook.account.request("PATCH", f"{path}/other", other, **apply).status == 403
    assert hook.account.request("GET", path).status == 403
    assert hook.account.request("GET", f"{path}/{AUTHORITY}").status == 403
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "other"}}
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{hook.namespace}/leases"
    assert hook.account.request("PUT", f"{leases}/other", lease).status == 403


@pytest.fixture(scope="class")
def damaged(bare: ControlPlane) -> Iterator[OwnCa]:
    with _installing(bare) as make:
        yield make(SLOW)


@pytest.fixture(scope="class")
def its_workloads(bare: ControlPlane, damaged: OwnCa) -> Iterator[str]:
    with _making_namespaces(bare) as make:
        yield make(damaged)


class TestDamage:
    """One installation, damaged in one way after the other: each finds the replicas that repaired the one before."""

    @pytest.mark.parametrize(
        "damage",
        [
            "ca deleted",
            "tls deleted",
            "both deleted",
            "ca garbage",
            "tls garbage",
            "ca half",
            "tls half",
            "ca of another",
            "tls weak",
        ],
    )
    def test_it_is_repaired_and_fails_no_admission(self, damaged: OwnCa, its_workloads: str, damage: str) -> None:
        hook = damaged
        before = _certificates(hook)
        with load(hook, its_workloads) as pods:
            _hurt(hook, damage)
            until(lambda: _whole(hook) and _certificates(hook) != before)
            until(lambda: len(_serials(hook)) == 1 and _served_is(hook))
            asked = pods.asked
            until(lambda: pods.asked > asked + 50)
        assert pods.failures == []


def _certificates(hook: OwnCa) -> tuple[bytes | None, bytes | None]:
    return hook.secret(AUTHORITY).get("ca.crt"), hook.secret(LEAF).get("tls.crt")


def _hurt(hook: OwnCa, damage: str) -> None:
    what, _, how = damage.partition(" ")
    if how == "deleted":
        for name in {"ca": [AUTHORITY], "tls": [LEAF], "both": [AUTHORITY, LEAF]}[what]:
            hook.admin.delete(hook.secret_path(name))
    elif how == "garbage":
        hook.write_secret(AUTHORITY if what == "ca" else LEAF, **{f"{what}_crt": b"\x00", f"{what}_key": b"none"})
    elif how == "half":
        hook.write_secret(AUTHORITY if what == "ca" else LEAF, **{f"{what}_key": None})
    elif how == "weak":
        weak = _weak(hook)
        hook.write_secret(LEAF, tls_crt=weak.certificate_pem, tls_key=weak.key_pem)
    else:
        hook.write_secret(AUTHORITY, ca_key=hook.secret(LEAF)["tls.key"])


def _weak(hook: OwnCa) -> Pair:
    """The certificate of our CA that is served, but for a key that OpenSSL takes for too short."""
    own = hook.secret(AUTHORITY)
    authority = read_pair(own["ca.crt"], own["ca.key"])
    (like,) = read_certificates(hook.secret(LEAF)["tls.crt"]) or ()
    assert authority is not None
    key = ec.generate_private_key(ec.SECP192R1())
    builder = x509.CertificateBuilder(like.issuer, like.subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(like.not_valid_before_utc).not_valid_after(like.not_valid_after_utc)
    for extension in like.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return Pair(builder.sign(authority.key, hashes.SHA256()), key)


def _whole(hook: OwnCa) -> bool:
    authority, leaf = hook.secret(AUTHORITY), hook.secret(LEAF)
    signing = read_pair(authority.get("ca.crt", b""), authority.get("ca.key", b""))
    serving = read_pair(leaf.get("tls.crt", b""), leaf.get("tls.key", b""))
    return signing is not None and serving is not None and vouches(signing.certificate, serving.certificate)


def _served_is(hook: OwnCa) -> bool:
    (expected, *_) = read_certificates(hook.secret(LEAF).get("tls.crt", b"")) or (None,)
    return all(replica.certificate() == expected for replica in hook.replicas)


def test_leaf_and_authority_are_replaced_under_load_without_a_failed_admission(
    install: Callable[..., OwnCa], workloads: Callable[[OwnCa], str]
) -> None:
    hook = install(FAST)
    namespace = workloads(hook)
    old = hook.bundles()[0][0]
    started = time.monotonic()
    with load(hook, namespace, clients=6) as pods:
        first = _serials(hook)
        until(lambda: not first & _serials(hook))
        hook.admin.patch(hook.secret_path(AUTHORITY), {"metadata": {"annotations": {"morphisms.dev/rotate": "now"}}})
        until(lambda: all(len(bundle) == 2 and old in bundle for bundle in hook.bundles()))
        until(lambda: not any(vouches(old, replica.certificate()) for replica in hook.replicas))
        assert all(old in bundle for bundle in hook.bundles())
        until(lambda: not any(old in bundle for bundle in hook.bundles()))
    print(f"\n{pods.asked} pods in {time.monotonic() - started:.0f} s over 2 CAs and the renewal of a certificate")
    assert pods.failures == []
    assert "former.crt" not in hook.secret(AUTHORITY)


def test_a_new_leaf_reaches_every_worker_of_a_replica_under_load_without_a_failed_admission(
    install: Callable[..., OwnCa], workloads: Callable[[OwnCa], str]
) -> None:
    hook = install(SLOW, replicas=0)
    replica = hook.start("replica-0", workers=2)
    namespace = workloads(hook)
    # It said which templates it accepts once both workers had them, and then one was marked.
    until(lambda: _is_said(hook.templates(), "replica-0"))
    with load(hook, namespace, clients=4) as pods:
        before = replica.certificate()
        hook.admin.delete(hook.secret_path(LEAF))  # and a new one is issued
        # So many connections at once that both workers have some.
        until(lambda: _serves_anew(hook, replica.certificates(16), before))
    assert pods.failures == []
    until(lambda: replica.metric("morphisms_workers") == 2)


def _is_said(templates: dict[str, str], replica: str) -> bool:
    """Whether the template that new pods get is one that the replica has said it accepts."""
    return "current" in templates and templates["current"][:16] in templates.get(f"known.{replica}", "")


def _serves_anew(hook: OwnCa, shown: list[x509.Certificate], before: x509.Certificate) -> bool:
    (newest, *_) = read_certificates(hook.secret(LEAF).get("tls.crt", b"")) or (before,)
    return newest != before and set(shown) == {newest}


def test_a_killed_leader_is_followed_by_another(
    install: Callable[..., OwnCa], workloads: Callable[[OwnCa], str]
) -> None:
    hook = install(SLOW)
    workloads(hook)
    first = _leading(hook)
    first.process.kill()
    killed = time.monotonic()
    until(lambda: hook.leader() not in (None, first))
    second = _leading(hook)
    took = time.monotonic() - killed
    print(f"\nanother leads {took:.1f} s after a kill")
    assert second is not first
    serial = second.certificate().serial_number
    hook.admin.delete(hook.secret_path(LEAF))  # which only a leader makes again
    until(lambda: second.certificate().serial_number != serial)
    assert hook.lease()["spec"]["leaseTransitions"] == 2


def test_a_leader_that_is_stopped_hands_over_at_once(install: Callable[..., OwnCa]) -> None:
    hook = install(SLOW)
    first = _leading(hook)
    first.process.stop()
    stopped = time.monotonic()
    assert hook.lease()["spec"].get("holderIdentity") != first.name, "it gave the Lease up before it ended"
    until(lambda: hook.leader() not in (None, first))
    print(f"\nanother leads {time.monotonic() - stopped:.1f} s after a stop")


def test_a_hanging_leader_stops_leading_before_another_begins(install: Callable[..., OwnCa]) -> None:
    hook = install(SLOW)
    first = _leading(hook)
    first.process.signal(signal.SIGSTOP)
    until(lambda: hook.leader() not in (None, first))
    first.process.signal(signal.SIGCONT)
    until(lambda: first.metric("morphisms_certificate_leader") == 0)
    assert hook.leader() is not first


def _leading(hook: OwnCa) -> Replica:
    until(lambda: any(_leads(replica) for replica in hook.replicas))
    return next(replica for replica in hook.replicas if _leads(replica))


def _leads(replica: Replica) -> bool:
    return replica.process.running and replica.metric("morphisms_certificate_leader") == 1


def test_a_bundle_that_somebody_changed_is_set_again_alone_and_keeps_replicas_ready(
    bare: ControlPlane, install: Callable[..., OwnCa]
) -> None:
    hook = install(SLOW)
    right = hook.bundles()
    before = _without_bundles(hook.registration(KINDS[0]))
    mark = bare.audit.mark()
    change = [{"op": "remove", "path": "/webhooks/1/clientConfig/caBundle"}]
    bare.admin.patch(f"{REGISTRATIONS}/{KINDS[0]}/morphisms", change, JSON_PATCH)
    until(lambda: hook.bundles() == right)
    assert _without_bundles(hook.registration(KINDS[0])) == before
    until(lambda: all(replica.ready() for replica in hook.replicas))
    until(lambda: _patches(bare, hook, KINDS[0], mark))
    (event,) = _patches(bare, hook, KINDS[0], mark)
    assert [operation["path"] for operation in event["requestObject"]] == [
        "/metadata/resourceVersion",
        "/webhooks/1/name",
        "/webhooks/1/clientConfig/caBundle",
    ]
    assert _patches(bare, hook, KINDS[1], mark) == []


def test_a_configuration_that_comes_later_is_patched_and_none_is_made(bare: ControlPlane) -> None:
    hook = OwnCa(bare, SLOW)
    try:
        replica = hook.start("replica-0")
        assert bare.admin.request("GET", f"{REGISTRATIONS}/{KINDS[0]}/morphisms").status == 404
        hook.register()
        until(lambda: all(vouches(bundle[0], replica.certificate()) for bundle in hook.bundles() if bundle))
        until(lambda: all(hook.bundles()))
    finally:
        hook.close()


def test_a_replica_that_nobody_trusts_yet_is_not_ready_and_says_why(bare: ControlPlane) -> None:
    hook = OwnCa(bare, SLOW)
    try:
        hook.register()
        role = f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{hook.namespace}"
        rules = bare.admin.get(role)["rules"]
        bare.admin.patch(role, {"rules": [{**rules[0], "verbs": ["list", "watch"]}, *rules[1:]]})
        wait_for_roles(bare.admin)
        replica = hook.start("replica-0", wait=False)
        until(lambda: "does not trust the certificate yet" in replica.probe()[1])
        assert replica.probe()[0] == 503
        # The probe may see the reason before the refused write has come back.
        failed = ("certificate_step_failed", 403)
        until(lambda: failed in [(event["event"], event.get("status")) for event in replica.events()])
        bare.admin.patch(role, {"rules": rules})
        replica.process.wait_until_ready()
    finally:
        hook.close()


def test_a_follower_waits_for_a_certificate_with_a_clear_line(bare: ControlPlane) -> None:
    hook = OwnCa(bare, SLOW)
    try:
        role = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{hook.namespace}/roles/{hook.namespace}"
        rules = bare.admin.get(role)["rules"]
        bare.admin.patch(role, {"rules": rules[:1]})  # nobody can lead
        wait_for_roles(bare.admin)
        replica = hook.start("replica-0", wait=False)
        until(lambda: "no certificate yet: the Secret has no tls.crt and no tls.key" in replica.probe()[1])
        until(lambda: [event for event in replica.events() if event["event"] == "certificate_not_usable"])
        (line,) = [event for event in replica.events() if event["event"] == "certificate_not_usable"]
        assert line["doing"] == "waiting for one"
        bare.admin.patch(role, {"rules": rules})
        replica.process.wait_until_ready()
    finally:
        hook.close()


@pytest.mark.parametrize("skew", ["+5h", "-50m"])
@pytest.mark.skipif(not _FAKETIME, reason=packages.without("libfaketime"))
def test_a_leader_with_a_wrong_clock_makes_certificates_that_are_valid(
    bare: ControlPlane, workloads: Callable[[OwnCa], str], skew: str
) -> None:
    hook = OwnCa(bare, SLOW)
    try:
        hook.register()
        # Preloaded, and not by the program faketime, which would leave its child behind when it is killed.
        clock = {"LD_PRELOAD": _FAKETIME[0], "FAKETIME": skew, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        replica = hook.start("replica-0", environment=clock)
        namespace = workloads(hook)
        assert abs(replica.metric("morphisms_clock_skew_seconds") or 0) > 2900
        serial = replica.certificate().serial_number
        with load(hook, namespace, clients=2) as pods:
            hook.admin.delete(hook.secret_path(LEAF))
            until(lambda: replica.certificate().serial_number != serial)
        assert pods.failures == []
    finally:
        hook.close()


def test_keys_are_in_no_log(bare: ControlPlane, install: Callable[..., OwnCa]) -> None:
    hook = install(SLOW)
    secrets = [hook.secret(AUTHORITY)["ca.key"], hook.secret(LEAF)["tls.key"]]
    lines = [line for key in secrets for line in key.decode().splitlines()[1:-1]]
    texts = [replica.process.log.read_text() for replica in hook.replicas] + [bare.audit.path.read_text()]
    assert not any(line in text for line in lines for text in texts)
