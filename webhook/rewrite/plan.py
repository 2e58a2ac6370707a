"""The plan of a pod: what its annotations and references request, with the configuration's endpoints."""

from __future__ import annotations

from measured.measured_plan import data_hub_of
from plan.document import EnvFrom, EnvVariable, Plan, PlanError
from webhook.configuration.profiles import Profile
from webhook.pod.pod import Pod
from webhook.wellknown import FORMER_INJECTOR_VERSION

# More would exceed the plan's 64 KiB; the bound is checked before they are built.
_MAX_ENV_FROM = 2048


def make_plan(pod: Pod, profile: Profile) -> Plan:
    """The plan of a pod whose annotations have no problem.

    A pod that was rewritten before has its references in the plan that it carries, no longer in its environment.
    Raises PlanError.
    """
    options = pod.options
    if len(pod.consumers) * len(options.env_from) > _MAX_ENV_FROM:
        raise PlanError(f"plan: env-from for all containers makes more than {_MAX_ENV_FROM} entries; name fewer")
    parts = pod.template.endpoints(profile)
    # Rendered for one pod, and measured with it: no configuration chooses this source.
    data_hub = data_hub_of(pod.measured)
    return Plan(
        workload=pod.workload,
        evidence=parts.evidence if data_hub is None else (data_hub,),
        verifier=parts.verifier._replace(role=options.vault_role) if options.vault_role else parts.verifier,
        vault=parts.vault._replace(namespace=options.vault_namespace) if options.vault_namespace else parts.vault,
        secrets=options.secrets,
        env=_variables(pod),
        env_from=_whole_secrets(pod) if options.env_from else (),
        agent=options.agent,
        on_change=options.on_change,
        deadline_seconds=pod.template.sidecar.deadlineSeconds,
        file_mode="0440" if pod.file_owner is None else "0400",
        reread_seconds=pod.template.sidecar.rereadSeconds,
    )


def _whole_secrets(pod: Pod) -> tuple[EnvFrom, ...]:
    return tuple(
        EnvFrom(consumer.name, reference.path, reference.version)
        for consumer in pod.consumers
        for reference in pod.options.env_from
    )


def _variables(pod: Pod) -> tuple[EnvVariable, ...]:
    if not pod.consumers:
        return ()
    names = {container.name for container in pod.consumers}
    # A sidecar of the former version takes `$(NAME)` beside an inline reference for text.
    expands = pod.template.injector > FORMER_INJECTOR_VERSION
    carried = tuple(variable for variable in (pod.plan.env if pod.plan else ()) if variable.container in names)
    moved = tuple(
        variable if expands else variable._replace(expand=())
        for references in pod.references
        if not references.problems and references.container.name in names
        for variable in references.variables
    )
    return carried + moved
