"""An imitation of a CoCo guest's own agents, written from their sources: the REST server, data hub, attestation agent.

confidential-containers/guest-components 8246e5e: `api-server-rest/src/router.rs`, and below `kbs_protocol/src/client`
`token_client.rs` (the data hub) and `rcar_client.rs` (the attestation agent), with kbs-types 0.18 for the messages. It
takes nothing from our own half of the messages but the key pair. What it does as they do:

- `additional_evidence` is the empty text, and `init-data` is the guest's whole document;
- the agent keeps cookies, the data hub does not, and each has connections of its own;
- a bearer has to have the form of a JWT whose claims can be read;
- the data hub tries three times, on 401 alone; the agent five times, whatever was answered;
- an answer's header is authenticated as kbs-types writes it again: alg, enc, then the other members sorted.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import ssl
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

from attestation.simulator.device import Device
from kbs.ephemeral_key import EphemeralKey
from tests.attestation.verifier.guest import document as evidence_document

ATTEMPTS, HANDSHAKES = 3, 5
_TOKEN: Final = "/kbs/v0/resource"


class AgentError(Exception):
    """What the data hub answers as 500."""


@dataclass
class Guest:
    """One guest with its document, on this machine."""

    device: Device
    initdata: str
    calls: list[tuple[str, int]] = field(default_factory=list)
    """Path and status of each call to the verifier."""
    sizes: list[int] = field(default_factory=list)
    """Of the bodies of the second call."""
    _bearer: str = ""
    _key: EphemeralKey = field(default_factory=EphemeralKey)

    def resource(self, path: str) -> bytes:
        """`confidential-data-hub`: the resource, decrypted. Raises AgentError."""
        for _ in range(ATTEMPTS):
            if not self._bearer:
                self._bearer, self._key = self._token()
            connection = self._connect("cdh.toml", "kbc", "kbs_cert")
            status, body, _ = self._call(
                connection, "GET", f"{_TOKEN}{path}", None, {"Authorization": f"Bearer {self._bearer}"}
            )
            connection.close()
            if status == 200:
                return self._opened(json.loads(body))
            json.loads(body)["type"]
            if status != 401:
                raise AgentError(f"KBS Server Internal Failed: {status}")
            self._bearer, self._key = self._token()
        raise AgentError("unauthorized")

    def _token(self) -> tuple[str, EphemeralKey]:
        for attempt in range(HANDSHAKES):
            try:
                return self._handshake()
            except AgentError:
                if attempt == HANDSHAKES - 1:
                    raise
        raise AssertionError

    def _handshake(self) -> tuple[str, EphemeralKey]:
        key = EphemeralKey()
        connection = self._connect("aa.toml", "token_configs.kbs", "cert")
        hashes = {"supported-hash-algorithms": ["sha256", "sha384", "sha512"]}
        request = {"version": "0.4.0", "tee": "snp", "extra-params": hashes}
        status, body, cookie = self._call(connection, "POST", "/kbs/v0/auth", request)
        if status != 200:
            raise AgentError(f"auth: {status}")
        challenge = json.loads(body)
        assert challenge["extra-params"]["selected-hash-algorithm"].lower() == "sha384"
        bound = {"tee-pubkey": key.public, "nonce": challenge["nonce"], "additional-evidence": ""}
        digest = hashlib.sha384(json.dumps(bound, sort_keys=True, separators=(",", ":")).encode()).digest()
        attestation = {
            "init-data": {"format": "toml", "body": self.initdata},
            "runtime-data": {"nonce": challenge["nonce"], "tee-pubkey": key.public},
            "tee-evidence": {"primary_evidence": evidence_document(self.device, digest), "additional_evidence": ""},
        }
        headers = {"Cookie": cookie} if cookie else {}
        status, body, _ = self._call(connection, "POST", "/kbs/v0/attest", attestation, headers)
        connection.close()
        if status != 200:
            raise AgentError(f"attest: {status}")
        bearer = str(json.loads(body)["token"])
        claims = json.loads(_decoded(bearer.split(".")[1]))
        assert {type(claims[name]) for name in ("iat", "exp")} == {int}
        return bearer, key

    def _opened(self, answer: dict[str, str]) -> bytes:
        header = json.loads(_decoded(answer["protected"]))
        alg, enc = header.pop("alg"), header.pop("enc")
        again = {"alg": alg, "enc": enc, **_sorted(header)}
        protected = _encoded(json.dumps(again, separators=(",", ":")).encode())
        parts = (answer[name] for name in ("encrypted_key", "iv", "ciphertext", "tag"))
        return self._key.decrypt(protected, *parts)[1]

    def _connect(self, file: str, table: str, certificate: str) -> http.client.HTTPSConnection:
        settings: Any = tomllib.loads(tomllib.loads(self.initdata)["data"][file])
        for name in table.split("."):
            settings = settings[name]
        url = urlsplit(settings["url"])
        context = ssl.create_default_context(cadata=settings[certificate])
        return http.client.HTTPSConnection(url.hostname or "", url.port, timeout=120, context=context)

    def _call(
        self,
        connection: http.client.HTTPSConnection,
        method: str,
        path: str,
        document: object,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, bytes, str]:
        body = None if document is None else json.dumps(document).encode()
        if path.endswith("/attest"):
            self.sizes.append(len(body or b""))
        sent = {"User-Agent": "attestation-agent-kbs-client/0.1.0", **(headers or {})}
        connection.request(method, path, body, sent | ({"Content-Type": "application/json"} if body else {}))
        answer = connection.getresponse()
        content = answer.read()
        self.calls.append((path, answer.status))
        cookie = answer.getheader("Set-Cookie", "").partition(";")[0]
        return answer.status, content, cookie


@contextlib.contextmanager
def api_server(guest: Guest) -> Iterator[str]:
    """`api-server-rest` with its default feature, `resource`; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/info":
                self._answer(200, b'{"version":"0.1.0","feature":"resource"}')
            elif self.path.startswith("/cdh/resource/"):
                try:
                    self._answer(200, guest.resource(self.path.removeprefix("/cdh/resource")))
                except (AgentError, OSError) as error:
                    self._answer(500, str(error).encode())
            else:
                self._answer(404, b"Attestation Feature Not Enabled")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def _sorted(value: Any) -> Any:
    return {name: _sorted(value[name]) for name in sorted(value)} if isinstance(value, dict) else value


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
