"""The plan that a pod's wishes come to."""

from __future__ import annotations

from sidecar.plan import EnvFrom, EnvVariable, EvidenceSource, Plan, Vault, Verifier
from webhook.pod import Pod
from webhook.profiles import Profile


def make_plan(pod: Pod, profile: Profile) -> Plan:
    """The plan of a pod whose annotations have no problem.

    A pod that was rewritten before has its references in the plan that it carries, no longer in its environment.
    """
    configuration, wishes = pod.configuration, pod.wishes
    verifier, vault = configuration.verifier, configuration.vault
    owner = file_owner(pod)
    return Plan(
        workload=pod.workload,
        evidence=tuple(EvidenceSource(evidence.source, evidence.address) for evidence in profile.evidence),
        verifier=Verifier(verifier.url, verifier.ca, verifier.audience, wishes.vault_role or verifier.role),
        vault=Vault(vault.url, vault.ca, wishes.vault_namespace or vault.namespace, vault.mounts),
        secrets=wishes.secrets,
        env=_variables(pod),
        env_from=tuple(
            EnvFrom(consumer.name, reference.path, reference.version)
            for consumer in pod.consumers
            for reference in wishes.env_from
        ),
        agent=wishes.agent,
        on_change=wishes.on_change,
        deadline_seconds=configuration.sidecar.deadlineSeconds,
        file_mode="0440" if owner is None else "0400",
    )


def _variables(pod: Pod) -> tuple[EnvVariable, ...]:
    names = {container.name for container in pod.consumers}
    carried = tuple(variable for variable in (pod.plan.env if pod.plan else ()) if variable.container in names)
    moved = tuple(
        variable
        for references in pod.references
        if not references.problems and references.container.name in names
        for variable in references.variables
    )
    return carried + moved


def file_owner(pod: Pod) -> int | None:
    """The one user that all consumers run as, who then owns the files; None where they differ, are unknown or root."""
    whole = (pod.spec.get("securityContext") or {}).get("runAsUser")
    users = {(consumer.object.get("securityContext") or {}).get("runAsUser", whole) for consumer in pod.consumers}
    if len(users) != 1:
        return None
    user = users.pop()
    return user if type(user) is int and user > 0 else None
