"""Which cluster this process talks to, and as whom."""

from __future__ import annotations

import os
from collections.abc import Mapping

from server import logs
from server.kubernetes.client import Client
from server.kubernetes.credentials import HOST_VARIABLE, Credentials, in_cluster
from server.kubernetes.errors import CredentialsError
from server.kubernetes.kubeconfig import Kubeconfig, missing_package


async def connect(kubeconfig: str | None = None) -> Client:
    """A client by this kubeconfig, without one by the pod's service account.

    Raises CredentialsError.
    """
    try:
        credentials: Credentials = Kubeconfig(kubeconfig) if kubeconfig else in_cluster()
        await credentials.access()  # a process with unusable credentials reports them when it starts
    except CredentialsError as error:
        logs.error("credentials_unusable", problem=str(error))
        raise
    return Client(credentials, proxies=True)


def unusable(kubeconfig: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """Why `connect` would fail, known before anything is started; None where it may succeed."""
    if kubeconfig:
        return missing_package()
    if not environment.get(HOST_VARIABLE):
        return (
            "not inside a cluster: give --kubeconfig FILE or set KUBECONFIG, or give --snapshot FILE to try things out"
        )
    return None
