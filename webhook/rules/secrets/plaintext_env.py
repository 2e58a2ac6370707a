"""No variable holds what looks like a secret: etcd would store the value six times, and audit logs too."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from webhook.configuration.sections import Plaintext
from webhook.detection import Allow, Detector, without_scheme
from webhook.pod.container import display_name
from webhook.pod.references import literal_parts
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject


@lru_cache(maxsize=4)
def detector_of(settings: Plaintext) -> Detector:
    """The detector for a configuration's allow-lists."""
    return Detector(Allow(names=settings.names, values_sha256=settings.valuesSha256, detectors=settings.detectors))


def check(subject: Subject) -> Iterator[FieldMessage]:
    detector = detector_of(subject.pod.configuration.plaintext)
    # The text around inline references is in the plan now, which etcd stores like the rest of the pod.
    for variable in subject.pod.plan.env if subject.pod.plan else ():
        if variable.value is not None and detector.find(variable.name, literal_parts(variable.value)) is not None:
            yield (
                "spec.initContainers",
                f"env {display_name(variable.name)} of container {variable.container} holds, beside a Vault reference,"
                " what looks like a secret in plain text; store it in Vault too",
            )
    for secret in subject.pod.options.secrets:
        if secret.template is not None and detector.find(secret.name, secret.template) is not None:
            yield (
                f"metadata.annotations[morphisms.dev/template-{secret.name}]",
                f"template-{secret.name} holds what looks like a secret in plain text; store it in Vault too",
            )
    # Its author says that such a variable is text, so it is searched as text.
    literal = subject.pod.options.literal_env
    for container in subject.pod.checked:
        for index, variable in enumerate(container.object.get("env") or ()):
            value = variable.get("value") or ""
            if variable["name"] in literal:
                value = without_scheme(value)
            found = detector.find(variable["name"], value) if value else None
            if found is not None:
                name = display_name(variable["name"])
                command_hint = "" if container.is_wrapped else " and a command"
                yield (
                    f"{container.field}.env[{index}]",
                    f"env {name} of container {container.label} looks like a secret in plain text ({found.detector});"
                    f" store it in Vault and use a reference (vault:PATH#KEY{command_hint}) or a file (secret-NAME)",
                )


RULE = Rule(
    id="secrets/plaintext-env",
    severity=Severity.HIGH,
    summary="no variable holds a secret in plain text",
    check=check,
)
