"""What convert translates means the same when admission injects it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from cli.conversion.convert import convert
from cli.support.admission import Admission
from plan.codec import read_plan
from plan.layout import CONTAINER, PLAN_VARIABLE, SECRETS_PATH
from webhook.configuration.model import Configuration

IMAGE = f"r.example/a@sha256:{'b' * 64}"


def injected(pod: dict[str, Any]) -> dict[str, Any]:
    """The pod, converted and then admitted in a namespace of mode inject."""
    converted = convert(pod, Configuration())
    assert converted.complete, converted.messages
    admitted = Admission(Configuration()).pod(converted.object, "shop")
    assert (admitted.denial, admitted.changed) == (None, True)
    return admitted.object


def plan_of(pod: dict[str, Any]) -> Any:
    init = next(each for each in pod["spec"]["initContainers"] if each["name"] == CONTAINER)
    return read_plan(next(each["value"] for each in init["env"] if each["name"] == PLAN_VARIABLE))


def test_plain_variables_beside_an_inline_reference_are_expanded_as_kubernetes_does() -> None:
    pod = yaml.safe_load(f"""
apiVersion: v1
kind: Pod
metadata: {{name: dep, namespace: shop, annotations: {{vault.security.banzaicloud.io/vault-role: app}}}}
spec:
  containers:
    - name: app
      image: {IMAGE}
      command: ["/app"]
      env:
        - {{name: DB_HOST, value: db.shop.svc}}
        - {{name: DB_URL, value: 'postgres://app:${{vault:secret/data/db#password}}@$(DB_HOST)/$$(DB_HOST)'}}
""")
    (variable,) = plan_of(injected(pod)).env
    assert variable.value == "postgres://app:${vault:secret/db#password}@$(DB_HOST)/$$(DB_HOST)"
    assert variable.expand == ("DB_HOST",)


@pytest.mark.parametrize("named", [None, "app"])
def test_with_agent_init_first_the_init_containers_get_the_files_and_come_after_ours(named: str | None) -> None:
    annotations = {
        "agent-inject": "true",
        "agent-init-first": "true",
        "agent-pre-populate-only": "true",
        "agent-inject-secret-db": "secret/backend/db",
        **({} if named is None else {"agent-inject-containers": named}),
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "a",
            "annotations": {f"vault.hashicorp.com/{key}": value for key, value in annotations.items()},
        },
        "spec": {
            "initContainers": [{"name": "migrate", "image": IMAGE, "command": ["/m"]}],
            "containers": [{"name": "app", "image": IMAGE, "command": ["/a"], "ports": [{"containerPort": 8080}]}],
        },
    }
    spec = injected(pod)["spec"]
    assert [each["name"] for each in spec["initContainers"]] == [CONTAINER, "migrate"]
    for container in (spec["initContainers"][1], *spec["containers"]):
        assert SECRETS_PATH in {mount["mountPath"] for mount in container["volumeMounts"]}
