"""Which containers of a pod get secrets: its consumers."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from webhook.pod.annotations import InjectionOptions
from webhook.pod.container import Container


def choose_consumers(
    application: Sequence[Container],
    options: InjectionOptions,
    with_references: Collection[str],
    serving: Container | None,
) -> tuple[Container, ...]:
    """The containers among `application` that get secrets; none where no secret is named.

    If the `containers` annotation is set, it decides. Otherwise: every container whose own environment holds a
    reference (`with_references`, by name) and, when files or whole secrets are requested, the `serving` container.
    """
    if not with_references and not options.for_all_consumers:
        return ()
    chosen = set(with_references)
    if options.containers is not None:
        chosen = set(options.containers) if options.for_all_consumers else chosen.intersection(options.containers)
    elif options.for_all_consumers and serving is not None:
        chosen.add(serving.name)
    return tuple(each for each in application if each.name in chosen and each.group != "ephemeralContainers")


def serving_container(application: Sequence[Container], default_container: str | None) -> Container | None:
    """The container that serves requests: the annotated one, else the one with a port, else the only one.

    `default_container` is the value of `kubectl.kubernetes.io/default-container`. None: no container can be determined.
    """
    regular = [each for each in application if each.group == "containers"]
    for each in regular:
        if each.name == default_container:
            return each
    for each in regular:
        if each.object.get("ports"):
            return each
    return regular[0] if len(regular) == 1 else None
