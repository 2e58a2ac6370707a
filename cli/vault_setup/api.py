"""Vault's API with an operator's token: one call, and why it failed in one line.

The token goes to the given address alone: no redirect is followed, and neither proxies nor CAs are taken from the
environment. A message never repeats what was sent.
"""

from __future__ import annotations

import argparse
import os
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from hvac.adapters import RawAdapter
from requests.adapters import HTTPAdapter

from attestation.verifier.configuration import VaultServer
from cli.vault_setup.plan import Capability, SetupError
from kbs.endpoint import http_parts
from kbs.trust import trusting

FORBIDDEN, MISSING = 403, 404


def vault_url(text: str) -> str:
    """The parser of an option that holds Vault's address."""
    try:
        http_parts(text)
    except ValueError:
        raise argparse.ArgumentTypeError("expected a URL, such as https://vault.example:8200") from None
    return text


def operator_token() -> str:
    """From VAULT_TOKEN, else ~/.vault-token, where `vault login` leaves it. Raises SetupError."""
    path = Path.home() / ".vault-token"
    try:
        token = os.environ.get("VAULT_TOKEN") or path.read_text("ascii")
    except (OSError, ValueError):
        raise SetupError("no operator's token: set VAULT_TOKEN, or log in with `vault login`") from None
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable():
        raise SetupError("the operator's token is not a Vault token: check VAULT_TOKEN, or log in with `vault login`")
    return token


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status, and the decoded body."""

    status: int
    body: dict[str, Any] = field(repr=False)

    @property
    def data(self) -> dict[str, Any]:
        """The body's `data`; empty where it has none."""
        data = self.body.get("data")
        return data if isinstance(data, dict) else {}

    @property
    def error(self) -> str:
        """What the server says about an error, as one line."""
        errors = self.body.get("errors")
        return " ".join(" ".join(map(str, errors)).split()) if isinstance(errors, list) else ""


class VaultApi:
    """Vault, seen with an operator's token. Each method raises SetupError with a line for people."""

    def __init__(self, server: VaultServer, token: str) -> None:
        self._url = server.url.rstrip("/")
        self._timeout = server.timeoutSeconds
        self._token = token
        self._session = open_session(server)

    def check(self) -> None:
        """Check that the server is Vault or OpenBao, initialised and unsealed."""
        answer = self.ask("GET", "sys/seal-status", "", token="")
        if answer.status != 200 or not isinstance(answer.body.get("sealed"), bool):
            raise SetupError(f"{self._url} answers, but not as Vault or OpenBao does; look at vault.url")
        if not answer.body.get("initialized", True):
            raise SetupError(f"{self._url} is not initialised: `vault operator init`")
        if answer.body["sealed"]:
            raise SetupError(f"{self._url} is sealed: `vault operator unseal`")

    def good(self, answer: Answer, path: str, namespace: str, needs: Iterable[Capability]) -> Answer:
        """The answer, where it is a success; `needs` is what the token must be allowed on the path."""
        if answer.status in (200, 204):
            return answer
        if answer.status == FORBIDDEN:
            missing = self.missing({path: frozenset(needs)}, namespace) or [_lack(path, needs)]
            raise SetupError(f"permission denied: the token lacks {'; '.join(missing)}")
        if answer.status == 503 and "sealed" in answer.error.lower():
            raise SetupError(f"{self._url} is sealed: `vault operator unseal`")
        if "jwks" in answer.error.lower():
            raise SetupError("Vault cannot fetch the JWKS: is the verifier up, and does --jwks-ca hold its CA?")
        raise SetupError(f"Vault answered {answer.status} on {path}" + (f": {answer.error}" if answer.error else ""))

    def missing(self, needs: dict[str, frozenset[Capability]], namespace: str) -> list[str]:
        """The capabilities that the token lacks; empty also where Vault does not report them. Raises SetupError."""
        answer = self.ask("POST", "sys/capabilities-self", namespace, {"paths": list(needs)})
        if answer.status == FORBIDDEN and self.ask("GET", "auth/token/lookup-self", namespace).status == FORBIDDEN:
            raise SetupError("permission denied: the operator's token has expired, was revoked, or is not this Vault's")
        if answer.status != 200:
            return []
        has = {path: set(answer.data.get(path) or ()) for path in needs}
        return [
            _lack(path, wanted - has[path])
            for path, wanted in needs.items()
            if "root" not in has[path] and wanted - has[path]
        ]

    def ask(self, method: str, path: str, namespace: str, body: Any = None, token: str | None = None) -> Answer:
        """One call, as the operator unless another token is given."""
        adapter = RawAdapter(
            base_uri=self._url,
            token=self._token if token is None else token,
            namespace=namespace or None,
            session=self._session,
            timeout=self._timeout,
            allow_redirects=False,
        )
        try:
            response = adapter.request(method, f"/v1/{path}", raise_exception=False, json=body)
        except requests.exceptions.SSLError:
            advice = "name the CA that signed it by --vault-ca FILE, or by vault.ca of the configuration"
            raise SetupError(f"{self._url}: its certificate is not trusted; {advice}") from None
        except requests.exceptions.Timeout:
            raise SetupError(f"{self._url} does not answer within {self._timeout:g} s") from None
        except (requests.exceptions.RequestException, OSError) as error:
            raise SetupError(f"{self._url} cannot be reached: {type(error).__name__}") from None
        if 300 <= response.status_code < 400:
            raise SetupError(f"{self._url} redirects; vault.url has to name the active node or its load balancer")
        try:
            content = response.json() if response.content else {}
        except ValueError:
            content = {}
        return Answer(response.status_code, content if isinstance(content, dict) else {})


def _lack(path: str, needs: Iterable[Capability]) -> str:
    return f"{' and '.join(sorted(needs))} on {path}"


class _Trusting(HTTPAdapter):
    """Connections by one TLS context. `requests` reads the CA file into it once more, which adds nothing."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options, ssl_context=self._context)


def open_session(server: VaultServer) -> requests.Session:
    """A session that trusts what the verifier trusts: the configured CA alone, else the system's store.

    Raises SetupError for a CA file that cannot be used.
    """
    session = requests.Session()
    session.trust_env = False
    if server.ca is None:
        paths = ssl.get_default_verify_paths()
        session.verify = paths.cafile or paths.capath or True
        return session
    try:
        context = trusting(server.ca.read_text("utf-8", errors="replace") or "an empty file")
    except (OSError, ValueError):
        raise SetupError(f"{server.ca}: not a readable PEM file with CA certificates") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    session.verify = str(server.ca)
    session.mount("https://", _Trusting(context))
    return session
