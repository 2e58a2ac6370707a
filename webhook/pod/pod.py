"""A pod as the decisions read it: its wishes, its workload, its profile, its containers, what was injected already."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from plan import layout
from plan.document import Plan, Workload
from webhook.cached_attribute import lazy
from webhook.configuration.model import Configuration
from webhook.configuration.profiles import Profile
from webhook.pod.annotations import Wishes, own_annotations, read_wishes
from webhook.pod.consumers import MovedReferences, choose_consumers, read_references, shown
from webhook.pod.plan_cache import plan_of
from webhook.pod.references import SCHEME, Home, is_meant_in, mentions
from webhook.wellknown import (
    INITDATA,
    KNATIVE_CONFIGURATION,
    KNATIVE_REVISION,
    KNATIVE_SERVICE,
    MESH_PROXIES,
    QUEUE_PROXY,
    USER_CONTAINER,
)


class Container(NamedTuple):
    """One container and where it stands: `group` is containers, initContainers or ephemeralContainers."""

    group: str
    position: int
    name: str
    object: dict[str, Any]

    @property
    def label(self) -> str:
        """The name, fit for a message."""
        return shown(self.name)

    @property
    def field(self) -> str:
        """As Kubernetes' own messages write it."""
        return f"spec.{self.group}[{self.position}]"


class Pod:
    """A view of one pod object of checked shape; the object is never changed.

    Built from a Service's template too, where `service` is the Service's name.
    """

    def __init__(self, pod: dict[str, Any], namespace: str, configuration: Configuration, service: str = "") -> None:
        self.object = pod
        self.namespace = namespace
        self.configuration = configuration
        self.metadata: dict[str, Any] = pod.get("metadata") or {}
        self.annotations: dict[str, str] = self.metadata.get("annotations") or {}
        self.labels: dict[str, str] = self.metadata.get("labels") or {}
        self.spec: dict[str, Any] = pod["spec"]
        self._service = service
        # All of them are wanted of every pod, so they are sorted at once.
        self.containers: tuple[Container, ...] = tuple(_containers(self.spec))
        """Every container: init containers first, then the others, ephemeral ones last."""
        self.injected: Container | None = _injected(self.containers)
        """`morphisms-init`, ours or somebody's who took its name; rules tell which."""
        knative = self.is_knative
        self.judged: tuple[Container, ...] = tuple(
            [each for each in self.containers if each is not self.injected and not (knative and _is_queue_proxy(each))]
        )
        """The containers that the policy judges: all but ours and Knative's queue-proxy, which nobody here wrote."""
        self.application: tuple[Container, ...] = tuple([each for each in self.judged if each.name not in MESH_PROXIES])
        """The containers that may get secrets: the judged ones but for a mesh's."""

    def rewritten(self, pod: dict[str, Any]) -> Pod:
        """The view of this pod after the rewrite, which changes nothing of who it is and what it asks for."""
        after = Pod(pod, self.namespace, self.configuration, self._service)
        after.__dict__.update({name: getattr(self, name) for name in _KEPT_BY_THE_REWRITE})
        return after

    @property
    def is_knative(self) -> bool:
        """Whether it carries Knative's labels, or is a Service's template. Only admission knows whether rightly so."""
        return bool(self._service) or KNATIVE_REVISION in self.labels

    @lazy
    def workload(self) -> Workload:
        """Who the pod says it is."""
        service = self._service or self.labels.get(KNATIVE_SERVICE) or self.labels.get(KNATIVE_CONFIGURATION) or ""
        account = self.spec.get("serviceAccountName") or "default"
        return Workload(self.configuration.cluster, self.namespace, service, account)

    @lazy
    def home(self) -> Home:
        """What `~/` means in this pod."""
        workload = self.workload
        if not workload.service:
            return Home(None, "the pod belongs to no Knative Service; write the whole path")
        prefix = self.configuration.vault.prefix
        return Home(f"{prefix}/{workload.cluster}/{workload.namespace}/{workload.service}/")

    @lazy
    def own_annotations(self) -> dict[str, str]:
        """Ours, without their prefix."""
        return own_annotations(self.annotations)

    @lazy
    def wishes(self) -> Wishes:
        """What the annotations ask for."""
        return read_wishes(self.own_annotations, self.home)

    @lazy
    def profile(self) -> Profile | None:
        """The isolation profile; None when the pod names one that does not exist or is not allowed here."""
        name = self.wishes.profile
        if name is not None and name not in self.configuration.profiles_allowed_in(self.namespace):
            return None
        return self.configuration.profile_by_name.get(name or self.configuration.default_profile_of(self.namespace))

    @property
    def profile_name(self) -> str:
        """The profile's name, empty where there is none."""
        return "" if self.profile is None else self.profile.name

    @lazy
    def plan_text(self) -> str | None:
        """The plan in the injected container's environment, unread."""
        for variable in (self.injected.object.get("env") or ()) if self.injected else ():
            if variable.get("name") == layout.PLAN_VARIABLE:
                value: str | None = variable.get("value")
                return value
        return None

    @lazy
    def plan(self) -> Plan | None:
        """The plan that the injected container carries; None where there is none that can be read."""
        return None if self.plan_text is None else plan_of(self.plan_text)

    @property
    def plan_takers(self) -> set[str]:
        """Names of the containers that the carried plan gives variables to."""
        if self.plan is None:
            return set()
        return {each.container for each in self.plan.env} | {each.container for each in self.plan.env_from}

    @lazy
    def consumers(self) -> tuple[Container, ...]:
        """The containers that get secrets."""
        return choose_consumers(self)

    @lazy
    def file_owner(self) -> int | None:
        """The one user that all consumers run as, who then owns the files; None where they differ or are root."""
        whole = (self.spec.get("securityContext") or {}).get("runAsUser")
        users = {(each.object.get("securityContext") or {}).get("runAsUser", whole) for each in self.consumers}
        if len(users) != 1:
            return None
        user = users.pop()
        return user if type(user) is int and user > 0 else None

    @lazy
    def references(self) -> tuple[MovedReferences, ...]:
        """The env references of the application's containers, read; only containers that hold any."""
        return tuple(
            read_references(container, self.home)
            for container in self.application
            if container.group != "ephemeralContainers" and _mentions_reference(container.object)
        )

    @property
    def names_secrets(self) -> bool:
        """Whether annotations or environment name a secret."""
        return self.wishes.names_secrets or bool(self.references)

    @property
    def is_measured(self) -> bool:
        """Whether it was rendered at author time: its initdata names what may run, so nothing may be added."""
        return INITDATA in self.annotations


def _name_by_knative(index: int, count: int) -> str:
    """What Knative calls a container that its author left without a name."""
    return USER_CONTAINER if count == 1 else f"{USER_CONTAINER}-{index}"


_KEPT_BY_THE_REWRITE = ("workload", "home", "wishes", "profile")


def _containers(spec: dict[str, Any]) -> Iterator[Container]:
    for group in ("initContainers", "containers", "ephemeralContainers"):
        containers = spec.get(group) or ()
        for index, container in enumerate(containers):
            yield Container(group, index, container.get("name") or _name_by_knative(index, len(containers)), container)


def _injected(containers: tuple[Container, ...]) -> Container | None:
    found = [each for each in containers if each.name == layout.CONTAINER and each.group == "initContainers"]
    return found[0] if len(found) == 1 else None


def _is_queue_proxy(container: Container) -> bool:
    return container.name == QUEUE_PROXY and container.group == "containers"


def _mentions_reference(container: dict[str, Any]) -> bool:
    for variable in container.get("env") or ():
        value = variable.get("value")
        if value and SCHEME in value and mentions(value):
            return True
    for member in ("command", "args"):
        for word in container.get(member) or ():
            if SCHEME in word and is_meant_in(word):
                return True
    return False
