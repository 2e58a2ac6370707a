"""What `morphisms capture` reads from a cluster: named objects, by get and list alone, and no Secret."""

from __future__ import annotations

from typing import Any, Final

from cli.knative.settings import CONFIG_MAPS
from measured.refusal import member, objects
from server.files import UnusableInputError
from server.kubernetes.client import Client
from server.kubernetes.errors import StatusError
from webhook.configuration.templates_map import read_map
from webhook.wellknown import SYSTEM_NAMESPACE
from webhook.wellknown import TEMPLATES_CONFIG_MAP as TEMPLATES

_PAGE: Final = 500
_VERSION_LABEL: Final = "app.kubernetes.io/version"


async def capture(client: Client, knative: str, version: str | None) -> dict[str, Any]:
    """The document of `cluster.yaml`. `version`: Knative's, where its Deployment carries no label.

    Raises UnusableInputError where the cluster lacks something, and the client's errors.
    """
    return {
        "version": 1,
        "knative": {
            "version": version or await _knative_version(client, knative),
            "namespace": knative,
            "configMaps": await _config_maps(client, knative),
        },
        "template": await _template(client),
        "serviceAccounts": await _service_accounts(client),
    }


async def _knative_version(client: Client, namespace: str) -> str:
    controller = await client.find(f"/apis/apps/v1/namespaces/{namespace}/deployments/controller")
    label = member(member(controller or {}, "metadata"), "labels").get(_VERSION_LABEL)
    if not isinstance(label, str):
        raise UnusableInputError(
            f"Deployment {namespace}/controller does not say Knative's version; give it with --knative-version"
        )
    return label if label.startswith("v") else f"v{label}"


async def _config_maps(client: Client, namespace: str) -> dict[str, dict[str, str]]:
    found = {}
    for name in CONFIG_MAPS:
        config_map = await client.find(f"/api/v1/namespaces/{namespace}/configmaps/{name}")
        data = member(config_map or {}, "data")
        found[name] = {key: str(value) for key, value in sorted(data.items()) if not key.startswith("_")}
    return found


async def _template(client: Client) -> dict[str, Any]:
    config_map = await client.find(f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/configmaps/{TEMPLATES}")
    templates = read_map(member(config_map or {}, "data")).templates
    current = None if templates.current is None else templates.by_digest.get(templates.current)
    if current is None:
        raise UnusableInputError(
            f"ConfigMap {SYSTEM_NAMESPACE}/{TEMPLATES} marks no container template as current; is the webhook running"
            " there?"
        )
    return current.model_dump(mode="json", exclude_none=True)


async def _service_accounts(client: Client) -> dict[str, dict[str, Any]]:
    """Those that mount no token, by namespace and name."""
    found: dict[str, dict[str, Any]] = {}
    following = ""
    while True:
        query = [("limit", str(_PAGE)), *([("continue", following)] if following else [])]
        page = await client.get("/api/v1/serviceaccounts", query)
        for account in objects(page.get("items")):
            if account.get("automountServiceAccountToken") is False:
                metadata = member(account, "metadata")
                entry = {"automountServiceAccountToken": False}
                found.setdefault(str(metadata["namespace"]), {})[str(metadata["name"])] = entry
        following = str(member(page, "metadata").get("continue") or "")
        if not following:
            return {namespace: dict(sorted(accounts.items())) for namespace, accounts in sorted(found.items())}


def explain(error: StatusError) -> str:
    """A refusal of the API server, with what the command needs."""
    return (
        f"the API server refused ({error.status}); capture reads Deployments and ConfigMaps of Knative's namespace, one"
        f" ConfigMap of {SYSTEM_NAMESPACE}, and lists ServiceAccounts: see docs/workload-identity.md for the role"
    )
