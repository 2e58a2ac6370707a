"""Nodes with a single purpose, such as the key server's, stay reserved: no other pod tolerates their taint."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import FieldMessage, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[FieldMessage]:
    pod = subject.pod
    reserved = pod.configuration.reserved
    if pod.namespace in reserved.namespaces:
        return
    for index, toleration in enumerate(pod.spec.get("tolerations") or ()):
        key = toleration.get("key")
        # Without a key, Exists tolerates every taint. Values and effects are not compared: those of a taint may change.
        if key in reserved.keys or (not key and toleration.get("operator") == "Exists"):
            yield (
                f"spec.tolerations[{index}]",
                "remove this toleration: it tolerates the taint of nodes that are reserved for a single purpose",
            )


RULE = Rule(
    id="placement/reserved-nodes",
    severity=Severity.HIGH,
    summary="the pod does not tolerate the taints of single-purpose nodes",
    check=check,
)
