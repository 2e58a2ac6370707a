"""Guests' way to an OpenBao on the verifier's loopback: closed while it is sealed, then by the verifier's own TLS."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from joserfc.jwk import ECKey

from attestation.simulator.hierarchy import Hierarchy
from certs.pem import Pair
from tests.attestation.verifier.attesting import metrics
from tests.attestation.verifier.process import Verifier, verifier
from tests.attestation.verifier.provisioner import Provisioner
from tests.attestation.verifier.test_provisioning import (
    CA,
    ROLE_ID,
    SECRET_ID,
    SHARE,
    authority,
    sealed_site,
    text_of,
)
from tests.attestation.verifier.tokens import Issuer
from tests.support.ports import free_port
from tests.support.raft import RaftOpenBao, raft_openbao
from tests.support.until import until


@dataclass
class Kms:
    """A verifier and the OpenBao beside it, as in one guest; unsealed. `ca`: what was provisioned as the verifier's CA.

    `told_while_sealed`: what the relay answered before; empty where it closed the connection.
    """

    running: Verifier
    bao: RaftOpenBao
    port: int
    ca: Pair
    told_while_sealed: bytes

    def read(self, authority: str | None = None) -> int:
        """The status of a read through the relay; OSError or HTTPException where there is no way."""
        context = ssl.create_default_context(cadata=authority or self.ca.certificate_pem.decode())
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=300, context=context)
        with contextlib.closing(connection):
            connection.request("GET", "/v1/sys/health")
            answer = connection.getresponse()
            json.loads(answer.read())
            return answer.status


@pytest.fixture(scope="module")
def kms(tmp_path_factory: pytest.TempPathFactory, hierarchy: Hierarchy, issuer: Issuer) -> Iterator[Kms]:
    key = ECKey.generate_key("P-256")
    folder = tmp_path_factory.mktemp("relay")
    for name in ("bao", "site"):
        (folder / name).mkdir()
    with raft_openbao(folder / "bao") as bao:
        site = sealed_site(folder / "site", hierarchy, issuer, key, [ROLE_ID, SECRET_ID, SHARE, CA], bao.plain_url)
        site.settings["provisioning"]["vaultPort"] = port = free_port()
        bao.seal()
        with verifier(site) as running:
            until(lambda: bool(running.events("relays_vault")))
            told = _stranger(port)
            ca = authority()
            provisioner = Provisioner(running.port, key)
            secrets = {ROLE_ID: "canary-role-id", SECRET_ID: "canary-secret-id", SHARE: bao.shares[0], CA: text_of(ca)}
            assert not provisioner.provision(secrets).sealed
            kms = Kms(running, bao, port, ca, told)
            until(lambda: kms.read() == 200)
            yield kms


def _stranger(port: int) -> bytes:
    """What somebody who checks no certificate is told when they ask for the seal."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=300) as plain,
        context.wrap_socket(plain) as connection,
    ):
        connection.sendall(b"GET /v1/sys/seal-status HTTP/1.1\r\nHost: x\r\n\r\n")
        return connection.recv(4096)
    return b""


def test_a_sealed_openbao_is_reached_by_nobody(kms: Kms) -> None:
    """Not even to ask whether it is sealed: those who can ask could also unseal it, or initialise it as theirs."""
    assert kms.told_while_sealed == b""
    until(lambda: metrics(kms.running)['morphisms_relay_cut_total{reason="sealed"}'] == 1)


def test_once_unsealed_it_is_reached_by_the_verifiers_ca(kms: Kms) -> None:
    assert kms.read() == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        kms.read(authority().certificate_pem.decode())


def test_a_large_answer_comes_whole(kms: Kms) -> None:
    value = "x" * 300_000
    kms.bao.done("POST", "secret/data/large", {"data": {"value": value}})
    context = ssl.create_default_context(cadata=kms.ca.certificate_pem.decode())
    connection = http.client.HTTPSConnection("127.0.0.1", kms.port, timeout=300, context=context)
    with contextlib.closing(connection):
        for _ in range(3):  # on one connection, as clients keep it
            connection.request("GET", "/v1/secret/data/large", headers={"X-Vault-Token": kms.bao.root_token})
            assert json.loads(connection.getresponse().read())["data"]["data"]["value"] == value


def test_connections_beyond_the_bound_make_room_for_others(kms: Kms) -> None:
    """A peer opens connections without end and sends nothing: it loses its oldest, and the next one is served."""
    context = ssl.create_default_context(cadata=kms.ca.certificate_pem.decode())
    with contextlib.ExitStack() as stack:
        held = []
        for _ in range(530):
            plain = socket.create_connection(("127.0.0.1", kms.port), timeout=300)
            held.append(stack.enter_context(context.wrap_socket(plain, server_hostname="127.0.0.1")))
        assert kms.read() == 200
        assert [_is_closed(each) for each in (held[0], held[-1])] == [True, False]
    until(lambda: metrics(kms.running)['morphisms_relay_cut_total{reason="displaced"}'] >= 19)


def _is_closed(connection: ssl.SSLSocket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except ssl.SSLWantReadError:
        return False
    except OSError:
        return True


def test_a_dead_openbao_ends_the_connection_and_not_the_verifier(kms: Kms) -> None:
    kms.bao.kill()
    try:
        with pytest.raises((OSError, http.client.HTTPException)):
            kms.read()
        assert kms.running.process.poll() is None
        until(lambda: kms.running.events("vault_relay_failed"))
        until(lambda: metrics(kms.running).get('morphisms_relay_cut_total{reason="unreachable"}'))
    finally:
        kms.bao.start()
        kms.bao.unseal()
    until(lambda: kms.read() == 200)
