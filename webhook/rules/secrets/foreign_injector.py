"""No other secret injector changes the same pod: each of the two would do half of the work."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.pod.container import display_name
from webhook.pod.other_injectors import BANK_VAULTS, claimed_by, has_worked_on
from webhook.pod.references import writes_secret
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[FieldMessage]:
    pod = subject.pod
    claims = set()
    for injector in claimed_by(pod.annotations):
        claims.add(injector)
        yield (
            "metadata.annotations",
            f"the annotations opt in to {injector} too; translate them: morphisms convert -f FILE",
        )
    for injector in has_worked_on(pod.spec):
        if injector not in claims:
            yield "spec.initContainers", f"{injector} has changed the pod; exempt the pod from it"
    for container in pod.with_scheme:
        for index, variable in enumerate(container.object.get("env") or ()):
            value = variable.get("value")
            if value and writes_secret(value) and variable["name"] not in pod.options.literal_env:
                yield (
                    f"{container.field}.env[{index}]",
                    f"env {display_name(variable['name'])} holds >>vault:, which {BANK_VAULTS} resolves and Morphisms"
                    " does not; store the secret in Vault by other means and write vault:PATH#KEY",
                )


RULE = Rule(
    id="secrets/foreign-injector",
    severity=Severity.HIGH,
    summary="no other secret injector changes the pod",
    check=check,
    needed_for_injection=True,
)
