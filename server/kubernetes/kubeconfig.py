"""A person's kubeconfig, read by kubernetes-asyncio: client certificates, tokens, OIDC and exec plugins.

Only its public names are used, and it is imported here alone and late: it takes some 35 MB, and images leave it out.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from server.kubernetes.credentials import Access, tls_context
from server.kubernetes.errors import CredentialsError

if TYPE_CHECKING:
    from kubernetes_asyncio.client import Configuration

# A server that refuses everybody must not make us run an exec plugin for each request.
_RENEW_SECONDS: Final = 10.0


MISSING_PACKAGE: Final = (
    "a kubeconfig is given (--kubeconfig or KUBECONFIG), and kubernetes-asyncio, which reads it, is not installed: "
    "in a pod give none, elsewhere install Morphisms with the extra `cli`, as `make setup` does"
)


def missing_package() -> str | None:
    """Why a kubeconfig cannot be used in this installation; None when it can."""
    return None if find_spec("kubernetes_asyncio") is not None else MISSING_PACKAGE


class Kubeconfig:
    """A context of a kubeconfig, the current one without a name.

    `path` is as KUBECONFIG has it: one file, or several with `:` between.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic, context: str | None = None) -> None:
        self._path = path
        self._context = context
        self._clock = clock
        self._access: Access | None = None
        self._loaded_at = 0.0

    async def access(self) -> Access:
        """As `Credentials.access`; the file is read and a plugin run the first time."""
        if self._access is None:
            self._access = await self._load()
        return self._access

    async def renew(self, refused: Access) -> bool:
        """Read the file and run its plugin again, unless that was done a moment ago."""
        if self._access is not None and self._access is not refused:
            return True
        if self._clock() - self._loaded_at < _RENEW_SECONDS:
            return False
        self._access = await self._load()
        return self._access.authorization != refused.authorization or self._access.tls is not refused.tls

    async def _load(self) -> Access:
        if problem := missing_package():
            raise CredentialsError(problem)
        from kubernetes_asyncio.client import Configuration
        from kubernetes_asyncio.config import load_kube_config

        self._loaded_at = self._clock()
        configuration = Configuration()
        try:
            await load_kube_config(
                config_file=self._path,
                context=self._context,
                client_configuration=configuration,
                persist_config=False,
            )
            return await _access(configuration)
        except CredentialsError:
            raise
        except Exception as error:  # of many kinds, and their texts may quote tokens
            raise CredentialsError(
                f"{self._path}: cannot be used as a kubeconfig ({type(error).__name__}); "
                f"to find out more: kubectl --kubeconfig {self._path} get --raw /version"
            ) from None


async def _access(configuration: Configuration) -> Access:
    server = configuration.host or ""
    return Access(
        server,
        await configuration.get_api_key_with_prefix("BearerToken"),
        _tls(configuration) if server.startswith("https:") else True,
        configuration.tls_server_name,
        configuration.proxy,
    )


def _tls(configuration: Configuration) -> ssl.SSLContext:
    context = tls_context(Path(configuration.ssl_ca_cert) if configuration.ssl_ca_cert else None)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    if not configuration.verify_ssl:  # the kubeconfig says insecure-skip-tls-verify
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
