"""The container templates that every replica accepts, whichever of them injected a pod, and the one that is rendered.

Mutation and validation are two calls that may reach two replicas, and a new configuration arrives at each of them at
another moment. So what a pod may have been injected with outlives the configuration that it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from webhook.configuration.container_template import ContainerTemplate
from webhook.configuration.model import Configuration


@dataclass(frozen=True, slots=True)
class AcceptedTemplates:
    """By digest (hex). `current`: the one that new pods get; None while none is marked.

    `revoked`: digests of those that were withdrawn; `withdrawn` are the known ones of them.
    """

    by_digest: Mapping[str, ContainerTemplate] = field(default_factory=dict)
    current: str | None = None
    revoked: frozenset[str] = frozenset()
    withdrawn: tuple[ContainerTemplate, ...] = ()
    audiences: frozenset[str] = field(init=False)
    """The verifiers' audiences: only `morphisms-init` may hold a token for one of them."""

    def __post_init__(self) -> None:
        audiences = frozenset(template.verifier.audience for template in self.by_digest.values())
        object.__setattr__(self, "audiences", audiences)

    def rendered(self, configuration: Configuration) -> ContainerTemplate | None:
        """The template of new pods; None when the one that is meant was withdrawn.

        While none is marked, the configuration's own, by the former injector version: a replica of the release before,
        which knows no templates, injects and expects just that.
        """
        if self.current is not None:
            return self.by_digest.get(self.current)
        return None if self.is_revoked(configuration.former_container_template) else self._former(configuration)

    def accepted(self, configuration: Configuration) -> tuple[ContainerTemplate, ...]:
        """Every template that a pod may have been injected with, the rendered one first."""
        first = self.rendered(configuration)
        others = tuple(template for template in self.by_digest.values() if template is not first)
        return others if first is None else (first, *others)

    def wanted(self, configuration: Configuration) -> ContainerTemplate:
        """The template that this configuration asks to render, as far as possible one that is accepted already.

        A configuration that names no injector version stays with the one in force: a new webhook alone changes nothing
        that the sidecar's image, which the configuration names, has to understand.
        """
        newest = configuration.container_template
        known = self.accepted(configuration)
        if configuration.sidecar.injector is not None:
            return next((template for template in known if template == newest), newest)
        same = [template for template in known if template.is_same_but_for_injector(newest)]
        # The one in force, else what the release before understands, which a rollback may be on its way to.
        return min(same, key=lambda each: (each.digest != self.current, each.injector), default=newest)

    def is_revoked(self, template: ContainerTemplate) -> bool:
        """Whether the template was withdrawn, in this or another injector version."""
        return template.digest in self.revoked or any(map(template.is_same_but_for_injector, self.withdrawn))

    @property
    def why_unusable(self) -> str:
        """Why `rendered` has nothing, for the author of a pod."""
        if self is UNREAD:
            return "this replica of the webhook has not read the container templates yet; try again"
        return "the container template in force was revoked and there is no other; an operator has to configure one"

    def _former(self, configuration: Configuration) -> ContainerTemplate:
        former = configuration.former_container_template
        return self.by_digest.get(former.digest, former)


UNREAD: Final = AcceptedTemplates(current="")
"""Of a replica that has not read them yet: nothing is accepted, nothing rendered."""
