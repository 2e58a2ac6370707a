"""The Kubernetes client, without the 700 classes of its models: half of a replica's memory would be theirs.

Everything here asks by path and reads raw JSON. `kubernetes_asyncio` imports its models and an API class for each group
from its package's `__init__`, so that package is made here without running it, and the modules that matter are
imported into it. Its public names stay where its documentation has them; what is missing fails by name.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType

_HOLLOW = ("kubernetes_asyncio", "kubernetes_asyncio.client", "kubernetes_asyncio.client.models")


def _hollow() -> None:
    """Packages whose submodules can be imported, and whose own code does not run."""
    if _HOLLOW[0] in sys.modules:  # somebody else has paid for all of it already
        return
    spec = find_spec(_HOLLOW[0])
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"No module named {_HOLLOW[0]!r}", name=_HOLLOW[0])
    for name in _HOLLOW:
        module = ModuleType(name)
        parents = name.split(".")[1:]
        module.__path__ = ["/".join((folder, *parents)) for folder in spec.submodule_search_locations]
        sys.modules[name] = module
        if parents:
            setattr(sys.modules[name.rpartition(".")[0]], parents[-1], module)
    client = sys.modules[_HOLLOW[1]]
    from kubernetes_asyncio.client.configuration import Configuration

    client.Configuration = Configuration  # type: ignore[attr-defined]
    from kubernetes_asyncio.client.api_client import ApiClient

    client.ApiClient = ApiClient  # type: ignore[attr-defined]


_hollow()

from kubernetes_asyncio.client import ApiClient, Configuration  # noqa: E402  # after the line that makes it small
from kubernetes_asyncio.config import load_incluster_config, load_kube_config  # noqa: E402

__all__ = ["ApiClient", "Configuration", "load_incluster_config", "load_kube_config"]
