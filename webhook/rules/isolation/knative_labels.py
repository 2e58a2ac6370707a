"""Only Knative's and the built-in controllers' identities make pods that carry Knative's labels."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.names import KNATIVE_PREFIX
from webhook.rules.rule import Finding, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[Finding]:
    if subject.user is None or subject.old is not None or subject.source is not None:
        return
    identities = subject.pod.configuration.identities
    if subject.user.name in identities.podControllers or subject.user.name in identities.knative:
        return
    if any(key.startswith(KNATIVE_PREFIX) for key in subject.pod.labels):
        yield "metadata.labels", "remove the serving.knative.dev labels; only Knative makes pods of a Service"


RULE = Rule(
    id="isolation/knative-labels",
    severity=Severity.HIGH,
    summary="only Knative makes pods that say they belong to a Service",
    check=check,
)
