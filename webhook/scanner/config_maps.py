"""Secrets in ConfigMaps that workloads take variables from. Pure; keeps no value.

A variable of this kind holds no value itself, so the rules on a pod cannot see that it is a password.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from server.kubernetes.untyped import mapping, text
from webhook.configuration.model import Configuration
from webhook.errors import MalformedError
from webhook.pod.container import containers_of, display_name
from webhook.pod.schema import validate_pod_shape
from webhook.pod.workloads import knative_kind, knative_template, template_at, template_path
from webhook.rules.rule import Severity
from webhook.rules.secrets.plaintext_env import detector_of
from webhook.scanner.finding import Finding, FindingClass, ObjectId

CONFIG_MAP: Final = "scan/config-map"


class Reference(NamedTuple):
    """A ConfigMap that a workload takes variables from: one key as a variable, or every key (both empty)."""

    config_map: str
    key: str = ""
    variable: str = ""


def references_of(item: dict[str, Any]) -> frozenset[Reference]:
    """The ConfigMaps by which the pods of a workload get variables; none of an object that cannot be read."""
    knative = knative_kind(item) is not None
    template = knative_template(item) if knative else template_at(item, template_path(item))
    try:
        validate_pod_shape(template)
    except (MalformedError, RecursionError):
        return frozenset()
    spec = (template or {}).get("spec") or {}
    return frozenset(each for container in containers_of(spec) for each in _of_container(container.object))


def config_map_findings(
    workload: ObjectId, name: str, data: Any, references: Iterable[Reference], configuration: Configuration
) -> Iterator[Finding]:
    """One finding for each key that looks like a secret and becomes a variable of the workload."""
    detector = detector_of(configuration.plaintext)
    values = (
        {str(key): value for key, value in data.items() if isinstance(value, str)} if isinstance(data, Mapping) else {}
    )
    variables = {
        (key, reference.variable or key)
        for reference in references
        for key in (values if not reference.key else [reference.key])
    }
    for key, variable in sorted(variables):
        found = detector.find(variable, values[key]) if values.get(key) else None
        if found is not None:
            message = (
                f"ConfigMap {display_name(name)} holds under {display_name(key)}, which becomes env"
                f" {display_name(variable)}, what looks like a secret in plain text ({found.detector}); store it in"
                " Vault and use a reference (vault:PATH#KEY), rotate it, then remove the key from the ConfigMap"
            )
            yield Finding(CONFIG_MAP, Severity.HIGH, FindingClass.YOURS_TO_CHANGE, workload, "", message)


def _of_container(container: Mapping[str, Any]) -> Iterator[Reference]:
    for source in container.get("envFrom") or ():
        if name := text(mapping(mapping(source).get("configMapRef")).get("name")):
            yield Reference(name)
    for variable in container.get("env") or ():
        reference = mapping(mapping(variable.get("valueFrom")).get("configMapKeyRef"))
        name, key = text(reference.get("name")), text(reference.get("key"))
        if name and key:
            yield Reference(name, key, variable["name"])
