"""The token server of a registry: grants what is asked to who proves to be somebody, and reading `public/` to all."""

from __future__ import annotations

import base64
import json
import secrets
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc import jwt
from joserfc.jwk import ECKey

from tests.cli.registry.web import Asked, Says

ISSUER: Final = "the test's token server"
SERVICE: Final = "the test's registry"
BASIC: Final = "Basic " + base64.b64encode(b"reader:s3cret pass").decode()
REFRESH_TOKEN: Final = "an-identity-token-of-reader"


class TokenServer:
    """`answer` is what the HTTP server asks. Its tokens are signed by the pair in the folder."""

    def __init__(self, pair: Path) -> None:
        certificate = x509.load_pem_x509_certificate((pair / "tls.crt").read_bytes())
        self._x5c = [base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()]
        self._key = ECKey.import_key((pair / "tls.key").read_bytes())

    def answer(self, asked: Asked) -> Says:
        form = parse_qs(asked.body.decode()) if asked.method == "POST" else parse_qs(urlsplit(asked.path).query)
        if asked.method == "POST":
            known = form.get("refresh_token") == [REFRESH_TOKEN] and form.get("grant_type") == ["refresh_token"]
        else:
            known = asked.headers.get("Authorization") == BASIC
            if "Authorization" in asked.headers and not known:
                return Says(401)
        if form.get("service") != [SERVICE]:
            return Says(400)
        [scope] = form["scope"]
        _, name, actions = scope.split(":")
        granted = actions.split(",") if known or name.startswith("public/") else []
        return Says(200, json.dumps({"token": self.token(name, granted)}).encode())

    def token(self, repository: str, actions: list[str]) -> str:
        """A token for these actions. The registry's clock is this machine's."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "sub": "reader",
            "aud": SERVICE,
            "iat": now,
            "nbf": now - 600,
            "exp": now + 3600,
            "jti": secrets.token_hex(8),
            "access": [{"type": "repository", "name": repository, "actions": actions}],
        }
        return jwt.encode({"alg": "ES256", "typ": "JWT", "x5c": self._x5c}, claims, self._key)
