"""CustomResourceDefinitions, which the API server serves a moment after it has stored them."""

from __future__ import annotations

from tests.cluster.client import Client
from tests.cluster.conditions import holds
from tests.support.until import until

_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def wait_until_established(admin: Client) -> None:
    """Return when the API server serves every definition that it has.

    Not `kubectl wait`, which fails for a definition whose status has no conditions yet.
    """
    until(lambda: all(holds(definition, "Established") for definition in admin.items(_PATH)))
