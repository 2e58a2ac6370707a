"""No variable comes from a Kubernetes Secret: etcd stores those."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.pod.container import display_name
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[FieldMessage]:
    for container in subject.pod.checked:
        for index, variable in enumerate(container.object.get("env") or ()):
            if (variable.get("valueFrom") or {}).get("secretKeyRef") is not None:
                name = display_name(variable["name"])
                yield (
                    f"{container.field}.env[{index}]",
                    f"env {name} of container {container.label} comes from a Kubernetes Secret;"
                    " move it to Vault and set value: vault:PATH#KEY",
                )
        for index, source in enumerate(container.object.get("envFrom") or ()):
            if source.get("secretRef") is not None:
                yield (
                    f"{container.field}.envFrom[{index}]",
                    f"container {container.label} takes its env from a Kubernetes Secret;"
                    " move it to Vault and set annotation morphisms.dev/env-from: PATH",
                )


RULE = Rule(
    id="secrets/kubernetes-secret-env",
    severity=Severity.HIGH,
    summary="no variable comes from a Kubernetes Secret",
    check=check,
)
