"""CustomResourceDefinitions, which the API server serves a moment after it has stored them."""

from __future__ import annotations

from tests.cluster.client import Client
from tests.support.until import until

_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def wait_until_established(admin: Client) -> None:
    """Return when the API server serves every definition that it has.

    Not `kubectl wait`, which fails for a definition whose status has no conditions yet.
    """
    until(lambda: all(_is_established(definition.get("status") or {}) for definition in admin.items(_PATH)))


def _is_established(status: dict[str, object]) -> bool:
    conditions = status.get("conditions")
    return isinstance(conditions, list) and any(
        (condition.get("type"), condition.get("status")) == ("Established", "True") for condition in conditions
    )
