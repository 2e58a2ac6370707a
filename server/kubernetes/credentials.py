"""As whom, and with whom, a client talks: the interface, and the one that a pod's service account fills."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from server.files import UnusableInputError, read_bounded
from server.kubernetes.errors import CredentialsError

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet puts a pod's token, CA and namespace."""

HOST_VARIABLE: Final = "KUBERNETES_SERVICE_HOST"
PORT_VARIABLE: Final = "KUBERNETES_SERVICE_PORT"

_MAX_TOKEN_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Access:
    """What one request needs.

    `server` is a base URL. `authorization` is the header's value; None where a client certificate or nothing takes its
    place. `tls` is for https. `server_name` replaces the host's name in the check of the server's certificate.
    """

    server: str
    authorization: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | bool = True
    server_name: str | None = None
    proxy: str | None = field(default=None, repr=False)  # its URL may hold a password


class Credentials(Protocol):
    """Where a client gets its `Access` from."""

    async def access(self) -> Access:
        """What the next request needs. Raises CredentialsError."""

    async def renew(self, refused: Access) -> bool:
        """Get newer credentials than `refused`, which the server answered with 401; False when there are none."""


class ServiceAccount:
    """An API server at `server`, `ca` (PEM file; None: the system's store), and a file with a bearer token.

    The token is read for each request, because the kubelet replaces it. Raises CredentialsError for an unusable CA.
    """

    def __init__(self, server: str, ca: Path | None = None, token: Path | None = None) -> None:
        self._server = server.rstrip("/")
        self._token = token
        self._tls = tls_context(ca) if server.startswith("https:") else True

    async def access(self) -> Access:
        """As `Credentials.access`."""
        token = None if self._token is None else f"Bearer {_read_token(self._token)}"
        return Access(self._server, token, self._tls)

    async def renew(self, refused: Access) -> bool:
        """Nothing to do: the file was read just now."""
        return False


def in_cluster(environment: Mapping[str, str] = os.environ, folder: Path | None = None) -> ServiceAccount:
    """The credentials of the pod that this process runs in.

    Raises CredentialsError where there are none.
    """
    folder = SERVICE_ACCOUNT if folder is None else folder
    host, port = environment.get(HOST_VARIABLE, ""), environment.get(PORT_VARIABLE, "")
    if not host or not port.isdecimal():
        raise CredentialsError(f"{HOST_VARIABLE} and {PORT_VARIABLE} are not set: this process runs in no cluster")
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    token = folder / "token"
    _read_token(token)  # so that a pod without one says so when it starts
    return ServiceAccount(server, folder / "ca.crt", token)


def tls_context(ca: Path | None) -> ssl.SSLContext:
    """TLS that trusts the certificates in `ca` alone, the system's store for None. Raises CredentialsError."""
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ValueError):
        raise CredentialsError(f"{ca}: not a readable PEM file with CA certificates") from None
    # The same on every Python: an intermediate CA alone is an anchor too, and extensions are not checked strictly.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _read_token(path: Path) -> str:
    try:
        token = read_bounded(path, _MAX_TOKEN_BYTES).decode("ascii").strip()
    except UnusableInputError as error:
        raise CredentialsError(str(error)) from None
    except UnicodeDecodeError:
        raise CredentialsError(f"{path}: not a token: it holds more than ASCII") from None
    if not token.isprintable() or not token:
        raise CredentialsError(f"{path}: not a token: empty or of several lines")
    return token
