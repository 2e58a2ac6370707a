"""A replica keeps serving what clients trust, and takes what they trust more."""

from __future__ import annotations

import asyncio
import base64
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client import CollectorRegistry

from certs.authority import issue_leaf, make_authority
from certs.chain import vouches
from certs.metrics import CertificateMetrics
from certs.pem import MAX_BYTES, MAX_CERTIFICATES, Pair, read_certificates, read_pair
from certs.serving import Serving
from certs.state import LEAF_SECRET
from server.tls import HeldCertificate, ServingCertificateError
from tests.certs.cluster import NAMES, PERIODS, START, Cluster


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster(replicas=1)
    cluster.settle()
    return cluster


def put(cluster: Cluster, leaf: Pair) -> None:
    cluster.secrets[LEAF_SECRET] = {"tls.crt": leaf.certificate_pem, "tls.key": leaf.key_pem}
    cluster.look()


def test_a_leaf_is_not_served_before_every_configuration_trusts_it(cluster: Cluster) -> None:
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


def test_an_expired_leaf_gives_way_to_any_that_is_valid(cluster: Cluster) -> None:
    (replica,) = cluster.replicas
    cluster.pass_time(PERIODS.leaf * 2)
    leaf = issue_leaf(make_authority(cluster.now, PERIODS, NAMES), NAMES, cluster.now, PERIODS)
    put(cluster, leaf)
    assert replica.leaf == leaf


def test_a_leaf_that_is_not_valid_yet_is_served_with_a_warning(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    (replica,) = cluster.replicas
    later = cluster.now + timedelta(days=1)
    leaf = issue_leaf(cluster.state().authority, NAMES, later, PERIODS)
    put(cluster, leaf)
    assert replica.leaf == leaf
    assert "certificate_not_valid_yet" in [record.msg for record in caplog.records]


def test_a_fault_of_the_secret_is_logged_once(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    for data in ({}, {}, {"tls.crt": b"x", "tls.key": b"y"}):
        cluster.secrets[LEAF_SECRET] = dict(data)
        cluster.look()
    reasons = [record.fields["reason"] for record in caplog.records if record.msg == "certificate_not_usable"]  # type: ignore[attr-defined]
    assert reasons == ["the Secret has no tls.crt and no tls.key", "certificate and key are not a pair"]


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


_FIRST, _SECOND, _ALTERNATIVES = "1.2.3.4.1", "1.2.3.4.2", "2.5.29.17"


@pytest.mark.parametrize(
    ("extensions", "old", "new"),
    [
        pytest.param([_FIRST, _SECOND], b"\x2a\x03\x04\x02", b"\x2a\x03\x04\x01", id="an extension twice"),
        pytest.param([_ALTERNATIVES], b"", b"", id="a name of a kind that nobody reads"),
        pytest.param([_FIRST], b"20500101", b"00000101", id="a time before all calendars"),
    ],
)
def test_a_certificate_that_is_strange_inside_is_nothing(extensions: list[str], old: bytes, new: bytes) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(x509.Name([]), x509.Name([]), key.public_key(), 5)
    builder = builder.not_valid_before(START).not_valid_after(datetime(2050, 1, 1, tzinfo=UTC))
    for name in extensions:
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(name), b"\x30\x02\xa5\x00")
        builder = builder.add_extension(extension, critical=False)
    der = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    assert old in der
    assert read_certificates(ssl.DER_cert_to_PEM_cert(der.replace(old, new) if old else der).encode()) is None


@pytest.mark.parametrize("curve", [ec.SECP192R1(), ec.SECP224R1(), ec.SECP256K1()], ids=lambda curve: curve.name)
def test_a_key_that_no_server_may_use_makes_no_pair(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    builder = x509.CertificateBuilder(x509.Name([]), x509.Name([]), key.public_key(), 5)
    certificate = builder.not_valid_before(START).not_valid_after(START + PERIODS.leaf).sign(key, hashes.SHA256())
    pair = Pair(certificate, key)
    assert read_pair(pair.certificate_pem, pair.key_pem) is None


def test_a_certificate_that_tls_refuses_is_reported_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Signed with SHA-1, a certificate reads well, and OpenSSL takes it for no server."""
    authority = make_authority(START, PERIODS)
    for name, content in (("ca.crt", authority.certificate_pem), ("ca.key", authority.key_pem)):
        (tmp_path / name).write_bytes(content)
    names = ",".join(f"DNS:{name}" for name in NAMES)
    for command in (
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout tls.key -subj /CN=x -out tls.csr"
        f" -addext subjectAltName={names} -addext extendedKeyUsage=serverAuth",
        "x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -sha1 -days 3650 -copy_extensions copyall -out tls.crt",
    ):
        subprocess.run(["openssl", *command.split()], cwd=tmp_path, check=True, capture_output=True)
    serving = Serving(NAMES, HeldCertificate().replace, CertificateMetrics(CollectorRegistry(), bool, float))
    data = {key: base64.b64encode((tmp_path / key).read_bytes()).decode() for key in ("tls.crt", "tls.key")}
    serving.reconcile({"data": data}, [], START)
    assert serving.problem() == "no certificate yet: it cannot be served: ServingCertificateError"
    assert [record.msg for record in caplog.records] == ["certificate_not_usable"]


def test_only_an_authority_vouches() -> None:
    authority = make_authority(START, PERIODS)
    leaf = issue_leaf(authority, NAMES, START, PERIODS)
    below = issue_leaf(leaf, NAMES, START, PERIODS)
    assert vouches(authority.certificate, leaf.certificate)
    assert not vouches(leaf.certificate, below.certificate)
    assert not vouches(make_authority(START, PERIODS).certificate, leaf.certificate)


@pytest.mark.parametrize(
    ("name", "believed"),
    [
        (NAMES[0], True),
        (f"x.{NAMES[0]}", True),
        ("other.system.svc", False),
        ("10.0.0.1", False),
        ("2001:db8::1", False),
    ],
)
def test_an_authority_of_names_is_believed_for_these_alone(name: str, believed: bool, tmp_path: Path) -> None:
    authority = make_authority(START, PERIODS, NAMES)
    (tmp_path / "ca.crt").write_bytes(authority.certificate_pem)
    (tmp_path / "tls.crt").write_bytes(issue_leaf(authority, [name], START, PERIODS).certificate_pem)
    command = ["openssl", "verify", "-attime", str(int(START.timestamp())), "-CAfile", "ca.crt", "tls.crt"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is believed, done.stderr
    assert believed or "subtree violation" in done.stderr


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
        with pytest.raises(ServingCertificateError):
            held.replace(first.certificate_pem, second.key_pem)
        assert ssl.DER_cert_to_PEM_cert(await served()).encode().split() == second.certificate_pem.split()
