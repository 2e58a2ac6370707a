"""Only pods whose agent renews leases get credentials with a lease."""

from __future__ import annotations

from collections.abc import Iterator

from plan.document import EnvVariable
from webhook.pod.pod import Pod
from webhook.pod.references import inline_paths
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject

_FIELD = "metadata.annotations[morphisms.dev/agent]"


def check(subject: Subject) -> Iterator[FieldMessage]:
    pod = subject.pod
    if pod.options.agent == "sidecar":
        return
    paths = dict.fromkeys(_paths(pod))
    if not paths:
        return
    mounts = tuple(f"{mount}/" for mount in pod.template.vault.mounts)
    for path in paths:
        if not path.startswith(mounts):
            yield (
                _FIELD,
                f"path {path} is outside the KV mounts (vault.mounts), so its credentials have a"
                " lease that agent: init cannot renew; set agent: sidecar, or have the operator add the mount",
            )


def _paths(pod: Pod) -> Iterator[str]:
    for secret in pod.options.secrets:
        yield secret.path
    for source in pod.options.env_from:
        yield source.path
    if pod.injected is None:
        for moved in pod.references:
            for variable in moved.variables:
                yield from _paths_of_variable(variable)
    elif pod.plan is not None:
        for variable in pod.plan.env:
            yield from _paths_of_variable(variable)


def _paths_of_variable(variable: EnvVariable) -> list[str]:
    if variable.value is not None:
        return inline_paths(variable.value)
    return [] if variable.path is None else [variable.path]


RULE = Rule(
    id="secrets/leased",
    severity=Severity.MEDIUM,
    summary="the agent renews credentials that have a lease",
    check=check,
    needed_for_injection=True,
)
