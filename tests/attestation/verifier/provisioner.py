"""A provisioner: one TLS connection to a verifier that may be sealed, and a key that its configuration may list."""

from __future__ import annotations

import hashlib
import http.client
import ssl
from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import ECKey

from kbs.provision import (
    PROVISION_PATH,
    ProvisionState,
    SecretName,
    read_provision_error,
    read_provision_state,
    write_provision,
)
from tests.attestation.verifier.guest import Answer


def jwk(key: ECKey) -> dict[str, str]:
    """The public half as a configuration lists it."""
    return {name: str(key.as_dict(private=False)[name]) for name in ("kty", "crv", "x", "y")}


class Provisioner:
    """`authority`: trust the certificates of this PEM alone; without it any, as one who attests the key does."""

    def __init__(self, port: int, key: ECKey, authority: str | None = None) -> None:
        self.key = key
        context = ssl.create_default_context(cadata=authority)
        if authority is None:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self._connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=300, context=context)
        self._connection.connect()
        shown = self._connection.sock.getpeercert(binary_form=True)
        self.certificate = x509.load_der_x509_certificate(shown)
        public = self.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.spki = hashlib.sha256(public).digest()

    @property
    def pem(self) -> bytes:
        """The certificate that the connection shows."""
        return self.certificate.public_bytes(Encoding.PEM)

    def call(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        self._connection.request(method, path, body, dict(headers or {}))
        answer = self._connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def state(self) -> ProvisionState:
        """What is missing, with a nonce."""
        answer = self.call("GET", PROVISION_PATH)
        assert answer.status == 200, answer
        return read_provision_state(answer.body)

    def text(self, secrets: Mapping[SecretName, str]) -> bytes:
        """The signed text for this connection."""
        return write_provision(self.key, self.spki, self.state().nonce, secrets)

    def send(self, body: bytes) -> Answer:
        return self.call("POST", PROVISION_PATH, body)

    def provision(self, secrets: Mapping[SecretName, str]) -> ProvisionState:
        """It must work."""
        answer = self.send(self.text(secrets))
        assert answer.status == 200, (answer, answer.body)
        return read_provision_state(answer.body)

    def refused(self, body: bytes) -> tuple[int, str]:
        """Status and problem of an answer that must not be a success."""
        answer = self.send(body)
        assert answer.status >= 400, answer
        assert b"canary" not in answer.body
        assert b"PRIVATE" not in answer.body
        return answer.status, read_provision_error(answer.body).problem

    def close(self) -> None:
        self._connection.close()


def provisioning(*keys: ECKey, needs: list[SecretName], **more: Any) -> dict[str, Any]:
    """The section of a configuration."""
    listed = [jwk(key) for key in keys]
    return {"provisioners": listed, "needs": [name.value for name in needs], "names": ["127.0.0.1"]} | more
