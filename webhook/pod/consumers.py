"""Which containers of a pod get secrets: its consumers."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from webhook.pod.annotations import InjectionOptions
from webhook.pod.container import Container
from webhook.wellknown import USER_PORT, WRITTEN_SIDECARS


def choose_consumers(
    application: Sequence[Container],
    options: InjectionOptions,
    with_references: Collection[str],
    by_default: Container | None,
) -> tuple[Container, ...]:
    """The containers among `application` that get secrets; none where no secret is named.

    If the `containers` annotation is set, it decides. Otherwise: every container whose own environment holds a
    reference (`with_references`, by name) and, when files or whole secrets are requested, the one `by_default`.
    """
    if not with_references and not options.for_all_consumers:
        return ()
    chosen = set(with_references)
    if options.containers is not None:
        chosen = set(options.containers) if options.for_all_consumers else chosen.intersection(options.containers)
    elif options.for_all_consumers and by_default is not None:
        chosen.add(by_default.name)
    return tuple(each for each in application if each.name in chosen and each.group != "ephemeralContainers")


def candidates(application: Sequence[Container]) -> list[Container]:
    """The containers that the author may mean: the regular ones, without the platform sidecars that authors write."""
    return [each for each in application if each.group == "containers" and each.name not in WRITTEN_SIDECARS]


def default_consumer(
    application: Sequence[Container], default_container: str | None, *, knative: bool
) -> Container | None:
    """The container that gets files and whole secrets where no annotation names one; None where it is not known.

    Of a Knative Service the serving one: Knative makes its port unique. Elsewhere a port says nothing, because an
    exporter has one too. Then the one in `kubectl.kubernetes.io/default-container` (an init container as well), then
    the only one that the author wrote.
    """
    possible = candidates(application)
    if knative:
        ports = [(each, port) for each in possible for port in each.object.get("ports") or ()]
        serving = {each.name: each for each, port in ports if port.get("name") == USER_PORT} or {
            each.name: each for each, _ in ports
        }
        if len(serving) == 1:
            return next(iter(serving.values()))
    if default_container is not None:
        for each in application:
            named = each.name == default_container and each.group != "ephemeralContainers"
            if named and each.name not in WRITTEN_SIDECARS:
                return each
    return possible[0] if len(possible) == 1 else None
