"""A replica keeps what is believed, and takes what is better."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta

import pytest

from certs.authority import issue_leaf, make_authority
from certs.clock import Clock
from certs.pem import MAX_BYTES, MAX_CERTIFICATES, Pair, read_certificates, read_pair
from certs.state import LEAF_SECRET
from certs.trust import vouches
from server.tls import CertificateError, HeldCertificate
from tests.certs.cluster import NAMES, PERIODS, START, Cluster


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster(replicas=1)
    cluster.settle()
    return cluster


def put(cluster: Cluster, leaf: Pair) -> None:
    cluster.secrets[LEAF_SECRET] = {"tls.crt": leaf.certificate_pem, "tls.key": leaf.key_pem}
    cluster.look()


def test_a_leaf_that_nobody_would_believe_is_not_taken_until_somebody_does(cluster: Cluster) -> None:
    (replica,) = cluster.replicas
    before = replica.leaf
    other = make_authority(cluster.now, PERIODS, NAMES)
    leaf = issue_leaf(other, NAMES, cluster.now, PERIODS)
    put(cluster, leaf)
    assert replica.leaf == before
    both = other.certificate_pem + cluster.state().authority.certificate_pem
    cluster.set_bundles({"mutating": [both, both]})
    cluster.look()
    assert replica.leaf == before
    cluster.set_bundles({"validating": [both, both]})
    cluster.look()
    assert replica.leaf == leaf


def test_a_leaf_that_has_ended_gives_way_to_any_that_has_not(cluster: Cluster) -> None:
    (replica,) = cluster.replicas
    cluster.pass_time(PERIODS.leaf * 2)
    leaf = issue_leaf(make_authority(cluster.now, PERIODS, NAMES), NAMES, cluster.now, PERIODS)
    put(cluster, leaf)
    assert replica.leaf == leaf


def test_a_leaf_that_is_not_valid_yet_is_served_with_a_warning(cluster: Cluster) -> None:
    (replica,) = cluster.replicas
    later = cluster.now + timedelta(days=1)
    leaf = issue_leaf(cluster.state().authority, NAMES, later, PERIODS)
    put(cluster, leaf)
    assert replica.leaf == leaf
    assert "certificate_not_valid_yet" in [event for event, _ in replica.log.events]


def test_what_is_wrong_with_a_secret_is_told_once(cluster: Cluster) -> None:
    (replica,) = cluster.replicas
    replica.log.events.clear()
    for data in ({}, {}, {"tls.crt": b"x", "tls.key": b"y"}):
        cluster.secrets[LEAF_SECRET] = dict(data)
        cluster.look()
    told = [fields["reason"] for event, fields in replica.log.events if event == "certificate_not_usable"]
    assert told == ["the Secret has no tls.crt and no tls.key", "certificate and key are not a pair"]


def test_ready_once_is_ready_for_good(cluster: Cluster) -> None:
    (replica,) = cluster.replicas
    assert replica.serving.problem() is None
    cluster.set_bundles({"mutating": [b"", b""]})
    cluster.look()
    assert replica.serving.problem() is None


def test_hostile_pem_is_nothing() -> None:
    pair = make_authority(START, PERIODS)
    assert read_certificates(b"") == ()
    assert read_certificates(b"\xff\xfe") is None
    assert read_certificates(pair.certificate_pem * (MAX_CERTIFICATES + 1)) is None
    assert read_certificates(pair.certificate_pem + b" " * MAX_BYTES) is None
    assert read_certificates(pair.certificate_pem * 2) == (pair.certificate,)
    assert read_pair(pair.certificate_pem, make_authority(START, PERIODS).key_pem) is None
    assert read_pair(pair.certificate_pem, pair.key_pem + b" " * MAX_BYTES) is None
    assert "PRIVATE" not in repr(pair)


def test_only_an_authority_vouches() -> None:
    authority = make_authority(START, PERIODS)
    leaf = issue_leaf(authority, NAMES, START, PERIODS)
    below = issue_leaf(leaf, NAMES, START, PERIODS)
    assert vouches(authority.certificate, leaf.certificate)
    assert not vouches(leaf.certificate, below.certificate)
    assert not vouches(make_authority(START, PERIODS).certificate, leaf.certificate)


def test_the_clock_is_the_api_servers() -> None:
    seconds = 100.0
    clock = Clock(monotonic=lambda: seconds, wall=lambda: 4e9)
    assert clock.now() == datetime.fromtimestamp(4e9, UTC)
    clock.heard("Tue, 15 Nov 1994 08:12:31 GMT")
    seconds += 60
    assert clock.now() == datetime(1994, 11, 15, 8, 13, 31, tzinfo=UTC)
    for nonsense in (None, "", "yesterday", "Tue, 99 Nov 1994 08:12:31 GMT"):
        clock.heard(nonsense)
    assert clock.now() == datetime(1994, 11, 15, 8, 13, 31, tzinfo=UTC)
    assert clock.skew_seconds == pytest.approx(4e9 - clock.now().timestamp())


async def test_a_pair_handed_over_is_served_from_the_next_handshake_on() -> None:
    now = datetime.now(UTC)
    authority = make_authority(now, PERIODS)
    first, second = (issue_leaf(authority, ["localhost"], now, PERIODS) for _ in range(2))
    held = HeldCertificate()
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=held.front)
    port = server.sockets[0].getsockname()[1]
    context = ssl.create_default_context(cadata=authority.certificate_pem.decode())

    async def served() -> bytes:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
        der = writer.get_extra_info("ssl_object").getpeercert(True)
        writer.close()
        return bytes(der)

    async with server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await served()
        for pair in (first, second):
            held.replace(pair.certificate_pem, pair.key_pem)
            assert ssl.DER_cert_to_PEM_cert(await served()).encode().split() == pair.certificate_pem.split()
        with pytest.raises(CertificateError):
            held.replace(first.certificate_pem, second.key_pem)
        assert ssl.DER_cert_to_PEM_cert(await served()).encode().split() == second.certificate_pem.split()
