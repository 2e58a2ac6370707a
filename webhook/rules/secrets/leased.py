"""Credentials with a lease go to somebody who stays to renew them."""

from __future__ import annotations

from collections.abc import Iterator

from plan.document import EnvVariable
from webhook.pod.pod import Pod
from webhook.pod.references import inline_paths
from webhook.rules.rule import Finding, Rule, Severity, Subject

_FIELD = "metadata.annotations[morphisms.dev/agent]"


def check(subject: Subject) -> Iterator[Finding]:
    pod = subject.pod
    if pod.wishes.agent == "sidecar":
        return
    mounts = tuple(f"{mount}/" for mount in pod.configuration.vault.mounts)
    for path in dict.fromkeys(_paths(pod)):
        if not path.startswith(mounts):
            yield (
                _FIELD,
                f"{path} is in no KV mount of the configuration (vault.mounts), so its credentials have a lease, which"
                " agent: init cannot renew; set agent: sidecar, or name the mount there",
            )


def _paths(pod: Pod) -> Iterator[str]:
    for secret in pod.wishes.secrets:
        yield secret.path
    for source in pod.wishes.env_from:
        yield source.path
    if pod.injected is None:
        for moved in pod.references:
            for variable in moved.variables:
                yield from _of(variable)
    elif pod.plan is not None:
        for variable in pod.plan.env:
            yield from _of(variable)


def _of(variable: EnvVariable) -> list[str]:
    if variable.value is not None:
        return inline_paths(variable.value)
    return [] if variable.path is None else [variable.path]


RULE = Rule(
    id="secrets/leased",
    severity=Severity.MEDIUM,
    summary="credentials with a lease have somebody who renews them",
    check=check,
    needed_for_injection=True,
)
