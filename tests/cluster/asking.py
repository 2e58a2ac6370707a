"""Pods that opt in in every way that there is, and pods that only look like it."""

from __future__ import annotations

from tests.cluster.client import Object


def make_pod(
    annotations: dict[str, str] | None = None,
    *,
    env: list[Object] | None = None,
    command: list[str] | None = None,
    args: list[str] | None = None,
    init: list[Object] | None = None,
    more: Object | None = None,
) -> Object:
    """One that a controller would make."""
    container = {"name": "app", "image": "registry.example/app", "env": env, "command": command, "args": args}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "test-", "annotations": annotations or {}},
        "spec": {
            "initContainers": init or [],
            "containers": [{key: value for key, value in container.items() if value is not None}],
            **(more or {}),
        },
    }


INJECTED: Object = {"name": "morphisms-init", "image": "registry.example/morphisms"}
STATUS = {"morphisms.dev/status": "{}"}
PODS: dict[str, Object] = {
    "plain": make_pod(),
    "plain with variables": make_pod(
        env=[{"name": "A", "value": "b"}, {"name": "EMPTY"}], command=["a"], args=["vault"]
    ),
    "many variables": make_pod(env=[{"name": f"V{number}", "value": "x" * 50} for number in range(900)]),
    "told to": make_pod({"morphisms.dev/inject": "true"}),
    "told to, mistyped": make_pod({"morphisms.dev/inject": "yes"}),
    "opted out": make_pod({"morphisms.dev/inject": "false"}),
    "opted out and names a secret": make_pod({"morphisms.dev/inject": "false", "morphisms.dev/secret-db": "~/db"}),
    "names a file": make_pod({"morphisms.dev/secret-db": "secret/shop/db"}),
    "names whole secrets": make_pod({"morphisms.dev/env-from": "secret/shop/db"}),
    "profile alone": make_pod({"morphisms.dev/profile": "kata-snp"}),
    "told to, with nothing": make_pod({"morphisms.dev/inject": ""}),
    "our own spelling": make_pod(env=[{"name": "P", "value": "vault:~/db#password"}]),
    "our own spelling inline": make_pod(env=[{"name": "P", "value": "a:${vault:~/db#password}@db"}]),
    "our own spelling in an init container": make_pod(
        init=[{"name": "first", "image": "i", "env": [{"name": "P", "value": "vault:~/db#password"}]}]
    ),
    "our own spelling as text": make_pod(
        {"morphisms.dev/literal-env": "A, P"}, env=[{"name": "P", "value": "vault:~/db#password"}]
    ),
    "our own spelling, and another variable as text": make_pod(
        {"morphisms.dev/literal-env": "A"}, env=[{"name": "P", "value": "vault:~/db#password"}]
    ),
    "our own spelling, opted out": make_pod(
        {"morphisms.dev/inject": "false"}, env=[{"name": "P", "value": "vault:~/db#password"}]
    ),
    "reference beside an annotation": make_pod(
        {"morphisms.dev/agent": "sidecar"}, env=[{"name": "P", "value": "vault:secret/shop/db#password"}]
    ),
    "inline reference beside a mistyped annotation": make_pod(
        {"morphisms.dev/injct": "true"}, env=[{"name": "P", "value": "a:${vault:secret/shop/db#password}@db"}]
    ),
    "reference beside annotations that do not count": make_pod(
        {"morphisms.dev/template": "x", "morphisms.dev/literal-env": "A"},
        env=[{"name": "P", "value": "vault:secret/shop/db#password"}],
    ),
    "text that starts with vault": make_pod(
        {"morphisms.dev/agent": "init"},
        env=[
            {"name": "I", "value": "vault:1.15"},
            {"name": "A", "value": "vault:8200"},
            {"name": "R", "value": "vault:5000/image"},
            {"name": "D", "value": "${vault:-none} see http://docs/#vault"},
        ],
    ),
    "Bank-Vaults'": make_pod(
        {"vault.security.banzaicloud.io/vault-addr": "https://vault:8200"},
        env=[
            {"name": "P", "value": "vault:secret/data/shop/db#password"},
            {"name": "W", "value": ">>vault:secret/data/shop/made#password#{}"},
        ],
    ),
    "the Vault Agent's": make_pod({"vault.hashicorp.com/agent-inject": "true"}),
    "bare reference": make_pod(
        env=[{"name": "A", "value": "x"}, {"name": "P", "value": "vault:secret/shop/db#password"}]
    ),
    "bare inline reference": make_pod(env=[{"name": "P", "value": "a:${vault:secret/shop/db#password}@db"}]),
    "reference in an init container": make_pod(
        init=[{"name": "first", "image": "i", "env": [{"name": "P", "value": "vault:secret/shop/db#password"}]}]
    ),
    "reference in args": make_pod(args=["--password=vault:secret/shop/db#password"]),
    "an address called vault": make_pod(
        args=["--address=vault:8200"], env=[{"name": "V", "value": "http://vault:8200"}]
    ),
    "reference by field only": make_pod(
        env=[{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name", "apiVersion": "v1"}}}]
    ),
}
LOOK_LIKE_OPTING_IN = frozenset(("our own spelling as text", "text that starts with vault"))
