"""What an account may do by its roles, and what it did by the API server's audit log."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from tests.cluster.audit import Event
from tests.cluster.client import Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.installation import SYSTEM

_RBAC = "/apis/rbac.authorization.k8s.io/v1"


class Use(NamedTuple):
    """One thing that may be done; `namespace` is empty for a cluster's role, `name` where any name will do.

    A URL that names no resource stands in place of the resource.
    """

    namespace: str
    group: str
    resource: str
    verb: str
    name: str


def granted_to(cluster: ControlPlane, account: str) -> Iterator[Use]:
    """All that is bound to this account of our namespace, each verb and name by itself."""
    for kind in ("clusterrolebindings", "rolebindings"):
        for binding in cluster.admin.items(f"{_RBAC}/{kind}"):
            subjects = [(s["kind"], s.get("namespace"), s["name"]) for s in binding.get("subjects", ())]
            if ("ServiceAccount", SYSTEM, account) not in subjects:
                continue
            namespace = binding["metadata"].get("namespace", "")
            role = binding["roleRef"]
            path = "clusterroles" if role["kind"] == "ClusterRole" else f"namespaces/{namespace}/roles"
            for rule in cluster.admin.get(f"{_RBAC}/{path}/{role['name']}")["rules"]:
                yield from _of_rule(rule, namespace)


def _of_rule(rule: Object, namespace: str) -> Iterator[Use]:
    for url, verb in product(rule.get("nonResourceURLs", ()), rule["verbs"]):
        yield Use("", "", url, verb, "")
    names = rule.get("resourceNames", [""])
    for group, resource, verb, name in product(
        rule.get("apiGroups", ()), rule.get("resources", ()), rule["verbs"], names
    ):
        yield Use(namespace, group, resource, verb, name)


def uses(event: Event) -> Iterator[Use]:
    """What a request took. Who applies or replaces what is not there needs `create` too."""
    target = event.get("objectRef")
    if target is None:
        yield Use("", "", urlsplit(event["requestURI"]).path, event["verb"], "")
        return
    resource = "/".join(filter(None, (target["resource"], target.get("subresource"))))
    selected = parse_qs(urlsplit(event["requestURI"]).query).get("fieldSelector", [""])[0]
    name = target.get("name") or selected.removeprefix("metadata.name=")
    use = Use(target.get("namespace", ""), target.get("apiGroup", ""), resource, event["verb"], name)
    yield use
    if event["responseStatus"]["code"] == 201 and event["verb"] in ("patch", "update"):
        yield use._replace(verb="create")


def covering(use: Use, granted: set[Use]) -> Use:
    """The narrowest permission that allows it."""
    for namespace in (use.namespace, ""):
        for name in (use.name, ""):
            found = use._replace(namespace=namespace, name=name)
            if found in granted:
                return found
    return use
