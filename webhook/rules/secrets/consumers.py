"""It is known which containers get secrets, and each of them is set up to get them."""

from __future__ import annotations

from collections.abc import Iterator

from plan.layout import RUN_PATH, RUN_VOLUME, SECRETS_PATH, SECRETS_VOLUME
from webhook.pod.consumers import candidates
from webhook.pod.container import Container, display_name
from webhook.pod.env_references import missing_command
from webhook.pod.pod import Pod
from webhook.rewrite.wrap import own_mount
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject

_FIELD = "metadata.annotations[morphisms.dev/containers]"
_SECRETS, _RUN = own_mount(SECRETS_VOLUME, SECRETS_PATH), own_mount(RUN_VOLUME, RUN_PATH)
_GROUP_READS = 0o040
_MOST_NAMES = 8


def check(subject: Subject) -> Iterator[FieldMessage]:
    pod = subject.pod
    options = pod.options
    if options.names_secrets and pod.profile is not None and not pod.profile.injects:
        yield (
            _FIELD,
            f"profile {pod.profile.name} does not inject, so the secrets named in the annotations will not be"
            " available; use another profile",
        )
        return
    if options.containers is not None:
        names = {container.name for container in pod.application if container.group != "ephemeralContainers"}
        for name in options.containers:
            if name not in names:
                yield (
                    _FIELD,
                    f"names container {display_name(name)}, which does not exist or cannot get secrets; name one of the"
                    " application's containers",
                )
    elif options.for_all_consumers and pod.default_consumer is None:
        yield _FIELD, _ambiguous(pod)
    if pod.file_owner is None and pod.consumers:
        for secret in options.secrets:
            if secret.mode is not None and not int(secret.mode, 8) & _GROUP_READS:
                yield (
                    f"metadata.annotations[morphisms.dev/mode-{secret.name}]",
                    "the mode gives the group no access, so the containers that get secrets have to share one"
                    " runAsUser; set it or use a mode such as 0440",
                )
    with_problems = {references.container.field for references in pod.references if references.problems}
    for consumer in pod.consumers:
        # A reference that could not be moved is reported where it is, not as a fault of its container too.
        if consumer.field not in with_problems:
            yield from _check_consumer(pod, consumer)


def _ambiguous(pod: Pod) -> str:
    names = ",".join(container.label for container in candidates(pod.application)[:_MOST_NAMES])
    if not names:
        return "the pod has no container that can get secrets; name one in morphisms.dev/containers"
    return (
        "the pod has several containers, and none is known to be the one that needs secrets (a port does not say so);"
        f" annotate morphisms.dev/containers: {names} and leave out those that need none"
    )


def _check_consumer(pod: Pod, consumer: Container) -> Iterator[FieldMessage]:
    wraps = pod.receives_env(consumer)
    if wraps and not consumer.object.get("command"):
        yield f"{consumer.field}.command", missing_command(consumer.label)
    elif pod.injected is not None:
        mounts = consumer.object.get("volumeMounts") or ()
        if wraps and not consumer.is_wrapped:
            yield (
                f"{consumer.field}.command",
                f"container {consumer.label} gets secrets as env, but its command bypasses the exec helper;"
                " leave the command to injection",
            )
        if _SECRETS not in mounts or (wraps and _RUN not in mounts):
            yield (
                f"{consumer.field}.volumeMounts",
                f"container {consumer.label} does not mount the secrets; leave the mount to injection",
            )


RULE = Rule(
    id="secrets/consumers",
    severity=Severity.HIGH,
    summary="the containers that get secrets are known and set up for it",
    check=check,
    needed_for_injection=True,
)
