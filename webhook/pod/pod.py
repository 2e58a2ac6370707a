"""A pod as the decisions read it: options, workload, profile, containers, and what was injected already."""

from __future__ import annotations

from typing import Any

from measured.measured_document import MeasuredDocument, document_of_annotation
from plan import layout
from plan.document import Plan, Workload
from webhook.cached_attribute import cached_attribute
from webhook.configuration.container_template import ContainerTemplate
from webhook.configuration.model import Configuration
from webhook.configuration.profiles import Profile
from webhook.pod.annotations import NO_OPTIONS, InjectionOptions, own_annotations, parse_annotations
from webhook.pod.consumers import choose_consumers, default_consumer
from webhook.pod.container import Container, containers_of
from webhook.pod.env_references import (
    EnvReferences,
    Spelling,
    holds_reference,
    mentions_reference,
    names_scheme,
    read_env_references,
)
from webhook.pod.plan_cache import plan_of
from webhook.pod.references import SecretPrefix
from webhook.wellknown import (
    DEFAULT_CONTAINER,
    DIGEST_PREFIX,
    INITDATA,
    INJECTED_SIDECARS,
    KNATIVE_CONFIGURATION,
    KNATIVE_REVISION,
    KNATIVE_SERVICE,
    MESH_PROXIES,
    QUEUE_PROXY,
)


class Pod:
    """A view of one pod object of checked shape; the object is never changed.

    Built from a Service's template too, where `service` is the Service's name. Without a container template, the
    configuration's own. `claims`: the service that a pod of another kind will claim, before its document says so.
    """

    def __init__(
        self,
        pod: dict[str, Any],
        namespace: str,
        configuration: Configuration,
        service: str = "",
        template: ContainerTemplate | None = None,
        claims: str = "",
    ) -> None:
        self.object = pod
        self.namespace = namespace
        self.configuration = configuration
        self.template: ContainerTemplate = template or configuration.container_template
        """What the pod is injected with, or was."""
        self.template_is_usable = True
        """False when the template was withdrawn and there is no other: then nothing can be injected."""
        self.metadata: dict[str, Any] = pod.get("metadata") or {}
        self.annotations: dict[str, str] = self.metadata.get("annotations") or {}
        self.labels: dict[str, str] = self.metadata.get("labels") or {}
        self.spec: dict[str, Any] = pod["spec"]
        self._service = service
        self._claims = claims
        # Every decision reads all of these, so they are computed at once.
        self.containers: tuple[Container, ...] = containers_of(self.spec)
        """Every container: init containers first, then the others, ephemeral ones last."""
        self.injected: Container | None = _injected(self.containers)
        """`morphisms-init`, ours or one whose author took the name; rules tell them apart."""
        knative = self.is_knative
        platform = QUEUE_PROXY if knative else None
        self.checked: tuple[Container, ...] = tuple(
            [
                each
                for each in self.containers
                if each is not self.injected and not (each.name == platform and each.group == "containers")
            ]
        )
        """The containers that the rules check: all but ours and Knative's queue-proxy."""
        self.application: tuple[Container, ...] = tuple(
            [each for each in self.checked if each.name not in _NOT_THE_AUTHORS]
        )
        """The containers that may get secrets: the checked ones without those that other webhooks add."""

    def rewritten(self, pod: dict[str, Any]) -> Pod:
        """The view of this pod after the rewrite, which changes neither its identity nor its options."""
        after = Pod(pod, self.namespace, self.configuration, self._service, self.template, self._claims)
        after.template_is_usable = self.template_is_usable
        after.__dict__.update({name: getattr(self, name) for name in _KEPT_BY_THE_REWRITE})
        if not self.with_scheme and not self.consumers:  # then the rewrite touches no container of the author's
            after.__dict__["with_scheme"] = ()
        return after

    @property
    def is_knative(self) -> bool:
        """Whether it carries Knative's labels, or is a Service's template. A rule checks who set the labels."""
        return bool(self._service) or KNATIVE_REVISION in self.labels

    @cached_attribute
    def workload(self) -> Workload:
        """Who the pod claims to be. Outside Knative its initdata document says so, which HOST_DATA is the digest of."""
        service = self._service or self.labels.get(KNATIVE_SERVICE) or self.labels.get(KNATIVE_CONFIGURATION)
        service = service or self._claims or self._measured_service
        account = self.spec.get("serviceAccountName") or "default"
        return Workload(self.template.cluster, self.namespace, service, account)

    @property
    def _measured_service(self) -> str:
        workload = None if self.measured is None else self.measured.data.get("workload")
        service = workload.get("service") if isinstance(workload, dict) else None
        return service if isinstance(service, str) else ""

    @cached_attribute
    def secret_prefix(self) -> SecretPrefix:
        """The prefix that `~/` stands for in this pod."""
        workload = self.workload
        if not workload.service:
            reason = "the pod does not belong to a Knative Service; write the whole path"
            return SecretPrefix(None, reason, self.template.vault.kv2_mounts)
        prefix = f"{self.template.vault.prefix}/{workload.cluster}/{workload.namespace}/{workload.service}/"
        return SecretPrefix(prefix, kv2_mounts=self.template.vault.kv2_mounts)

    @cached_attribute
    def own_annotations(self) -> dict[str, str]:
        """The `morphisms.dev/` annotations, keys without the prefix."""
        return own_annotations(self.annotations)

    @cached_attribute
    def options(self) -> InjectionOptions:
        """What the annotations request."""
        own = self.own_annotations
        return parse_annotations(own, self.secret_prefix) if own else NO_OPTIONS

    @cached_attribute
    def profile(self) -> Profile | None:
        """The isolation profile; None when the pod names one that does not exist or is not allowed here."""
        name = self.options.profile
        if name is not None and name not in self.configuration.profiles_allowed_in(self.namespace):
            return None
        return self.configuration.profile_by_name.get(name or self.configuration.default_profile_of(self.namespace))

    @property
    def profile_name(self) -> str:
        """The profile's name, empty where there is none."""
        return "" if self.profile is None else self.profile.name

    @cached_attribute
    def plan_text(self) -> str | None:
        """The plan in the injected container's environment, unread."""
        for variable in (self.injected.object.get("env") or ()) if self.injected else ():
            if variable.get("name") == layout.PLAN_VARIABLE:
                value: str | None = variable.get("value")
                return value
        return None

    @cached_attribute
    def plan(self) -> Plan | None:
        """The plan that the injected container carries; None where it has none, or one that cannot be read."""
        return None if self.plan_text is None else plan_of(self.plan_text)

    @property
    def containers_in_plan(self) -> set[str]:
        """Names of the containers that get variables by the plan that the pod carries."""
        if self.plan is None:
            return set()
        return {each.container for each in self.plan.env} | {each.container for each in self.plan.env_from}

    @cached_attribute
    def consumers(self) -> tuple[Container, ...]:
        """The containers that get secrets."""
        if not self.options.for_all_consumers and not self._containers_with_references:
            return ()
        return choose_consumers(self.application, self.options, self._containers_with_references, self.default_consumer)

    @property
    def default_consumer(self) -> Container | None:
        """The container that gets secrets where no annotation names one; None where it is not known."""
        return default_consumer(self.application, self.annotations.get(DEFAULT_CONTAINER), knative=self.is_knative)

    @property
    def _containers_with_references(self) -> set[str]:
        """Names of the containers whose environment holds a reference, or did before it moved into the plan."""
        if self.injected is not None:
            return self.containers_in_plan
        return {each.container.name for each in self.references}

    def receives_env(self, consumer: Container) -> bool:
        """Whether a consumer gets variables, and so has its command wrapped."""
        if self.options.env_from:
            return True
        if self.injected is not None:
            return consumer.name in self.containers_in_plan
        return any(each.container is consumer for each in self.references)

    @cached_attribute
    def file_owner(self) -> int | None:
        """The user that all consumers run as, which then owns the files; None where they differ or run as root."""
        whole = (self.spec.get("securityContext") or {}).get("runAsUser")
        users = {(each.object.get("securityContext") or {}).get("runAsUser", whole) for each in self.consumers}
        if len(users) != 1:
            return None
        user = users.pop()
        return user if type(user) is int and user > 0 else None

    @cached_attribute
    def references(self) -> tuple[EnvReferences, ...]:
        """The references of each application container that holds any."""
        if not self.with_scheme:
            return ()
        spelling = Spelling(self.secret_prefix, self.options.literal_env, self.opts_in)
        return tuple(
            read_env_references(container, spelling)
            for container in self._with_env
            if mentions_reference(container.object, spelling)
        )

    @cached_attribute
    def with_scheme(self) -> tuple[Container, ...]:
        """The application containers in whose environment or command `vault:` stands at all: mostly none."""
        return tuple([each for each in self.application if names_scheme(each.object)])

    @property
    def _with_env(self) -> list[Container]:
        """Those of them whose environment is the author's to write."""
        return [each for each in self.with_scheme if each.group != "ephemeralContainers"]

    @property
    def names_secrets(self) -> bool:
        """Whether annotations or environment name a secret."""
        return self.options.names_secrets or bool(self.references)

    @cached_attribute
    def opts_in(self) -> bool:
        """Whether annotations or references opt in, whatever the mode and `inject: "false"` say.

        A reference of any path is Bank-Vaults' syntax too. It opts in only in our own spelling, or beside an annotation
        of ours. In an injected pod the references are in the plan.
        """
        options = self.options
        if options.inject is True or options.inject_is_unusable or options.names_secrets:
            return True
        any_path = options.for_references
        if any_path and self.plan is not None and self.plan.env:
            return True
        return any(holds_reference(each.object, options.literal_env, own=not any_path) for each in self._with_env)

    @cached_attribute
    def measured(self) -> MeasuredDocument | None:
        """What the pod's initdata document measured; None without one, or with one of another policy than ours."""
        return document_of_annotation(self.annotations.get(INITDATA))

    @property
    def named_template(self) -> str | None:
        """The digest (hex) of the container template that the pod was measured with."""
        named = "" if self.measured is None else str(self.measured.data.get("template", ""))
        # The annotation alone chooses nothing: every author can write it.
        if not named or self.own_annotations.get("template") != named:
            return None
        return named.removeprefix(DIGEST_PREFIX)


_NOT_THE_AUTHORS = MESH_PROXIES | INJECTED_SIDECARS | {QUEUE_PROXY}
_KEPT_BY_THE_REWRITE = ("workload", "options", "profile", "opts_in")


def _injected(containers: tuple[Container, ...]) -> Container | None:
    found = [each for each in containers if each.name == layout.CONTAINER and each.group == "initContainers"]
    return found[0] if len(found) == 1 else None
