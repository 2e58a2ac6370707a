"""Which cluster the live one talks to, and as whom."""

from __future__ import annotations

import ipaddress
import json
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kubernetes_asyncio.config import ConfigException, incluster_config

from tests.webhook.cluster.apiserver import NAMESPACES, ApiServer
from webhook.cluster.live import connect
from webhook.cluster.lookups import get


def _certificate(folder: Path) -> Path:
    """A self-signed certificate of 127.0.0.1 with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "apiserver")])
    now = datetime.now(UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "apiserver.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


@pytest.fixture
async def secure(tmp_path: Path) -> AsyncIterator[tuple[ApiServer, Path]]:
    """A server over TLS, and the CA file that trusts it."""
    certificate = _certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    server = ApiServer()
    await server.start(context)
    yield server, certificate
    await server.stop()


def _kubeconfig(folder: Path, server: str, ca: Path) -> Path:
    path = folder / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": str(ca)}}],
                "users": [{"name": "u", "user": {"token": "t0ken"}}],
            }
        )
    )
    return path


async def _bearer(server: ApiServer) -> str:
    async with await connect() as api:
        assert json.loads(await get(api, NAMESPACES, (), seconds=5, max_bytes=1 << 20))["items"] == []
    return server.requests[-1][2]["Authorization"]


async def test_by_kubeconfig(secure: tuple[ApiServer, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, ca = secure
    monkeypatch.setenv("KUBECONFIG", str(_kubeconfig(tmp_path, server.url, ca)))
    assert await _bearer(server) == "Bearer t0ken"


async def test_by_service_account(
    secure: tuple[ApiServer, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, ca = secure
    host, _, port = server.url.removeprefix("https://").partition(":")
    (tmp_path / "token").write_text("account")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(ca))
    assert await _bearer(server) == "Bearer account"


async def test_trusts_nobody_else(
    secure: tuple[ApiServer, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = secure
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("KUBECONFIG", str(_kubeconfig(tmp_path, server.url, _certificate(tmp_path / "other"))))
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await _bearer(server)
    assert not server.requests


async def test_says_when_there_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigException):
        await connect()
