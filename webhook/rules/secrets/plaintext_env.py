"""No variable holds what looks like a secret: its value lies in etcd six times over, and in audit logs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from webhook.configuration import Plaintext
from webhook.consumers import is_wrapped, shown
from webhook.detection import Allow, Detector
from webhook.rules.rule import Finding, Rule, Severity, Subject


@lru_cache(maxsize=4)
def detector_of(settings: Plaintext) -> Detector:
    """The detector for a configuration's allow-lists."""
    return Detector(Allow(names=settings.names, values_sha256=settings.valuesSha256, detectors=settings.detectors))


def check(subject: Subject) -> Iterator[Finding]:
    detector = detector_of(subject.pod.configuration.plaintext)
    for container in subject.pod.judged:
        for index, variable in enumerate(container.object.get("env") or ()):
            value = variable.get("value")
            found = detector.find(variable["name"], value) if value else None
            if found is not None:
                name = shown(variable["name"])
                how = "" if is_wrapped(container.object, container.name) else " and a command"
                yield (
                    f"{container.field}.env[{index}]",
                    f"env {name} of container {container.label} looks like a secret in plain text ({found.detector});"
                    f" store it in Vault and use a reference (vault:PATH#KEY{how}) or a file (secret-NAME)",
                )


RULE = Rule(
    id="secrets/plaintext-env",
    severity=Severity.HIGH,
    summary="no variable holds a secret in plain text",
    check=check,
)
