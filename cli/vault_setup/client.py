"""Vault's API for `vault setup`: reads the current state, writes changes, and says in one line why one failed.

The operator's token goes to the configured address alone: no redirect is followed, and neither proxies nor CAs are
taken from the environment.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from hvac.adapters import RawAdapter
from requests.adapters import HTTPAdapter

from attestation.verifier.configuration import VaultServer
from cli.vault_setup.own_access import HeldAccess, OwnAccess
from cli.vault_setup.plan import Capability, Change, Current, Desired, Mount, SetupError
from kbs.trust import trusting

_FORBIDDEN, _MISSING = 403, 404
_READ = frozenset({Capability.READ})


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
class _Answer:
    status: int
    body: dict[str, Any] = field(repr=False)

    @property
    def data(self) -> dict[str, Any]:
        data = self.body.get("data")
        return data if isinstance(data, dict) else {}

    @property
    def error(self) -> str:
        errors = self.body.get("errors")
        return " ".join(" ".join(map(str, errors)).split()) if isinstance(errors, list) else ""


class Operator:
    """Vault, seen with an operator's token. Each method raises SetupError with a line for people."""

    def __init__(self, server: VaultServer, token: str) -> None:
        self._url = server.url.rstrip("/")
        self._timeout = server.timeoutSeconds
        self._token = token
        self._session = open_session(server)

    def check(self) -> None:
        """Check that the server is Vault or OpenBao, initialised and unsealed."""
        answer = self._ask("GET", "sys/seal-status", "", token="")
        if answer.status != 200 or not isinstance(answer.body.get("sealed"), bool):
            raise SetupError(f"{self._url} answers, but not as Vault or OpenBao does; look at vault.url")
        if not answer.body.get("initialized", True):
            raise SetupError(f"{self._url} is not initialised: `vault operator init`")
        if answer.body["sealed"]:
            raise SetupError(f"{self._url} is sealed: `vault operator unseal`")

    def read(self, desired: Desired) -> Current:
        """The current state of one mount."""
        namespace, mount = desired.namespace, desired.mount
        answer = self._ask("GET", "sys/auth", namespace)
        if answer.status == _MISSING:
            raise SetupError(f"namespace {namespace} does not exist")
        entry = self._good(answer, "sys/auth", namespace, {Capability.READ}).data.get(f"{mount}/")
        found = Mount(str(entry.get("type")), str(entry.get("accessor"))) if isinstance(entry, dict) else None
        policy = self._object(f"sys/policies/acl/{desired.policy}", namespace)
        if found is None or found.type != "jwt":
            return Current(mount=found, policy=None if policy is None else str(policy.get("policy")))
        return Current(
            mount=found,
            config=self._object(f"auth/{mount}/config", namespace),
            policy=None if policy is None else str(policy.get("policy")),
            roles={role: self._object(f"auth/{mount}/role/{role}", namespace) for role in desired.roles},
        )

    def read_access(self, access: OwnAccess) -> HeldAccess:
        """The current state of what the verifier itself needs."""
        namespace = access.namespace
        engines = auths = {}
        if access.transit is not None:
            engines = self._good(self._ask("GET", "sys/mounts", namespace), "sys/mounts", namespace, _READ).data
        if access.app_role is not None:
            auths = self._good(self._ask("GET", "sys/auth", namespace), "sys/auth", namespace, _READ).data
        transit_type = _type(engines, access.transit)
        approle_type = _type(auths, access.app_role)
        policy = self._object(f"sys/policies/acl/{access.policy}", namespace)
        key = role = None
        if access.transit is not None and transit_type == "transit":
            key = self._object("{}/keys/{}".format(*access.transit), namespace)
        if access.app_role is not None and approle_type == "approle":
            role = self._object("auth/{}/role/{}".format(*access.app_role), namespace)
        text = None if policy is None else str(policy.get("policy"))
        return HeldAccess(transit_type, key, text, approle_type, role)

    def check_capabilities(self, changes: Sequence[Change], namespace: str) -> None:
        """Check before the first write, so that a token with half of the capabilities changes nothing."""
        missing = self._missing({change.path: change.needs for change in changes}, namespace)
        if missing:
            raise SetupError(f"permission denied, nothing was changed: the token lacks {'; '.join(missing)}")

    def write(self, change: Change, namespace: str) -> None:
        """Make one change."""
        self._good(self._ask("POST", change.path, namespace, change.body), change.path, namespace, change.needs)

    def advice(self, all_desired: Iterable[Desired]) -> list[str]:
        """Advice on parts that this command does not change: audit devices and the KV engine."""
        lines = [self._audit()]
        kv = dict.fromkeys((desired.namespace, desired.kv_mount) for desired in all_desired)
        return [line for line in (*lines, *(self._kv(*each) for each in kv)) if line]

    def _audit(self) -> str:
        # Audit devices are the root namespace's in every edition.
        answer = self._ask("GET", "sys/audit", "")
        if answer.status == _FORBIDDEN:
            return (
                "audit: the token may not look (it needs read and sudo on sys/audit), "
                "so whether logins are recorded is not known"
            )
        self._good(answer, "sys/audit", "", {Capability.READ, Capability.SUDO})
        if answer.data:
            return ""
        return (
            "audit: no audit device is on, so no login and no read is recorded. Vault: `vault audit enable file "
            "file_path=/var/log/vault/audit.log`. OpenBao: in the server's configuration, then SIGHUP: "
            'audit "file" "to-file" { options { file_path = "/var/log/openbao/audit.log" } }'
        )

    def _kv(self, namespace: str, mount: str) -> str:
        answer = self._ask("GET", "sys/mounts", namespace)
        if answer.status == _FORBIDDEN:
            return f"{mount}/: the token may not look (it needs read on sys/mounts): it has to be KV version 2"
        entry = self._good(answer, "sys/mounts", namespace, {Capability.READ}).data.get(f"{mount}/")
        if not isinstance(entry, dict):
            return (
                f"{mount}/: this secrets engine does not exist yet: `vault secrets enable -path={mount} -version=2 kv`"
            )
        if entry.get("type") != "kv" or (entry.get("options") or {}).get("version") != "2":
            return f"{mount}/: is not KV version 2, and the policy's paths are made for that (--kv-mount)"
        return ""

    def _object(self, path: str, namespace: str) -> dict[str, Any] | None:
        answer = self._ask("GET", path, namespace)
        return None if answer.status == _MISSING else self._good(answer, path, namespace, {Capability.READ}).data

    def _good(self, answer: _Answer, path: str, namespace: str, needs: Iterable[Capability]) -> _Answer:
        if answer.status in (200, 204):
            return answer
        if answer.status == _FORBIDDEN:
            missing = self._missing({path: frozenset(needs)}, namespace) or [_lack(path, needs)]
            raise SetupError(f"permission denied: the token lacks {'; '.join(missing)}")
        if answer.status == 503 and "sealed" in answer.error.lower():
            raise SetupError(f"{self._url} is sealed: `vault operator unseal`")
        if "jwks" in answer.error.lower():
            raise SetupError("Vault cannot fetch the JWKS: is the verifier up, and does --jwks-ca hold its CA?")
        raise SetupError(f"Vault answered {answer.status} on {path}" + (f": {answer.error}" if answer.error else ""))

    def _missing(self, needs: dict[str, frozenset[Capability]], namespace: str) -> list[str]:
        """The capabilities that the token lacks; empty also where Vault does not report them. Raises SetupError."""
        answer = self._ask("POST", "sys/capabilities-self", namespace, {"paths": list(needs)})
        if answer.status == _FORBIDDEN and self._ask("GET", "auth/token/lookup-self", namespace).status == _FORBIDDEN:
            raise SetupError("permission denied: the operator's token has expired, was revoked, or is not this Vault's")
        if answer.status != 200:
            return []
        has = {path: set(answer.data.get(path) or ()) for path in needs}
        return [
            _lack(path, wanted - has[path])
            for path, wanted in needs.items()
            if "root" not in has[path] and wanted - has[path]
        ]

    def _ask(self, method: str, path: str, namespace: str, body: Any = None, token: str | None = None) -> _Answer:
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
            raise SetupError(f"{self._url}: its certificate is not one that vault.ca vouches for") from None
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
        return _Answer(response.status_code, content if isinstance(content, dict) else {})


def _type(mounts: dict[str, Any], place: tuple[str, str] | None) -> str | None:
    entry = None if place is None else mounts.get(f"{place[0]}/")
    return str(entry.get("type")) if isinstance(entry, dict) else None


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
