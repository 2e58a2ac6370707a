"""A password in a ConfigMap is found where a workload takes it as a variable, and its value is not repeated."""

from __future__ import annotations

from typing import Any

import pytest

from webhook.configuration.model import Configuration
from webhook.scanner.config_maps import Reference, config_map_findings, references_of
from webhook.scanner.finding import ObjectId

_PASSWORD = "hunter2-Tr0ub4dor-correct"
_WEB = ObjectId("apps/v1", "Deployment", "shop", "web")
_SPEC: dict[str, Any] = {
    "initContainers": [
        {"name": "migrate", "image": "x", "envFrom": [{"configMapRef": {"name": "all"}}, {"secretRef": {}}]}
    ],
    "containers": [
        {
            "name": "app",
            "image": "x",
            "env": [
                {"name": "PLAIN", "value": "x"},
                {"name": "DB_PASSWORD", "valueFrom": {"configMapKeyRef": {"name": "one", "key": "db"}}},
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            ],
        }
    ],
}
_TEMPLATE = {"template": {"spec": _SPEC}}


@pytest.mark.parametrize(
    "item",
    [
        {"apiVersion": "apps/v1", "kind": "Deployment", "spec": _TEMPLATE},
        {"apiVersion": "batch/v1", "kind": "CronJob", "spec": {"jobTemplate": {"spec": _TEMPLATE}}},
        {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "spec": _TEMPLATE},
        {"apiVersion": "serving.knative.dev/v1", "kind": "Revision", "spec": _SPEC},
        {"apiVersion": "v1", "kind": "Pod", "spec": _SPEC},
    ],
    ids=lambda item: item["kind"],
)
def test_what_a_workload_takes_variables_from_is_known(item: dict[str, Any]) -> None:
    assert references_of(item) == {Reference("all"), Reference("one", "db", "DB_PASSWORD")}
    assert references_of({**item, "spec": {"template": 5, "containers": "x"}}) == frozenset()


@pytest.mark.parametrize(
    ("reference", "data", "found"),
    [
        pytest.param(Reference("m", "db", "DB_PASSWORD"), {"db": _PASSWORD}, 1, id="by-the-variables-name"),
        pytest.param(Reference("m"), {"DB_PASSWORD": _PASSWORD, "LOG_LEVEL": "debug"}, 1, id="every-key"),
        pytest.param(Reference("m", "db", "DB_PASSWORD"), {"OTHER_PASSWORD": _PASSWORD}, 0, id="another-key"),
        pytest.param(Reference("m", "db", "DB_PASSWORD"), {"db": ""}, 0, id="empty"),
        pytest.param(Reference("m", "db", "DB_HOST"), {"db": "db.example"}, 0, id="ordinary"),
        pytest.param(Reference("m"), None, 0, id="absent"),
        pytest.param(Reference("m"), {"DB_PASSWORD": 5}, 0, id="nonsense"),
    ],
)
def test_a_secret_is_found_where_it_becomes_a_variable(reference: Reference, data: Any, found: int) -> None:
    findings = list(config_map_findings(_WEB, "m", data, [reference], Configuration()))
    assert len(findings) == found
    assert _PASSWORD not in repr(findings)
    assert all("rotate it" in each.message and each.rule == "scan/config-map" for each in findings)
    assert not any(each.denies for each in findings)
