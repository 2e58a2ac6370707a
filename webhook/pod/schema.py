"""Validates that an untrusted object has the shape of its kind, as far as decisions read it.

The API server sends well-formed objects; another client may send anything. The shape is validated once, before the
rules run, so that they can be written for real pods. Only the members named here are read; null counts as absent.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from webhook.errors import MalformedError

Object = dict[str, Any]
Texts = dict[str, str]


class _Shape(msgspec.Struct, gc=False, rename="camel"):
    """Members keep Kubernetes' names, in camel case on the wire."""


class Metadata(_Shape):
    """ObjectMeta."""

    name: str | None = None
    namespace: str | None = None
    generate_name: str | None = None
    labels: Texts | None = None
    annotations: Texts | None = None
    owner_references: list[Object] | None = None


class _Owned(_Shape):
    metadata: Metadata | None = None


class _Variable(_Shape):
    name: str
    value: str | None = None
    value_from: Object | None = None


class _Mount(_Shape):
    name: str | None = None
    mount_path: str | None = None
    sub_path_expr: str | None = None


class _Command(_Shape):
    command: list[str] | None = None


class _Probe(_Shape):
    exec: _Command | None = None


class _Resources(_Shape):
    limits: Object | None = None
    requests: Object | None = None


class _Capabilities(_Shape):
    add: list[str] | None = None


class _Profile(_Shape):
    type: str | None = None


class _SELinux(_Shape):
    user: str | None = None
    role: str | None = None
    type: str | None = None


class _Windows(_Shape):
    host_process: bool | None = None


class _Sysctl(_Shape):
    name: str | None = None


class _SecurityContext(_Shape):
    """Of a container or of a pod, as far as either is read."""

    privileged: bool | None = None
    capabilities: _Capabilities | None = None
    proc_mount: str | None = None
    seccomp_profile: _Profile | None = None
    app_armor_profile: _Profile | None = None
    se_linux_options: _SELinux | None = None
    windows_options: _Windows | None = None
    sysctls: list[_Sysctl] | None = None
    run_as_user: int | None = None
    fs_group: int | None = None


class _Named(_Shape):
    name: str | None = None


class _Container(_Shape):
    # A Service's only container may have no name: Knative gives it one.
    name: str | None = None
    image: str | None = None
    restart_policy: str | None = None
    command: list[str] | None = None
    args: list[str] | None = None
    env: list[_Variable] | None = None
    env_from: list[Object] | None = None
    volume_mounts: list[_Mount] | None = None
    startup_probe: _Probe | None = None
    liveness_probe: _Probe | None = None
    readiness_probe: _Probe | None = None
    ports: list[Object] | None = None
    security_context: _SecurityContext | None = None
    resources: _Resources | None = None


class _Source(_Shape):
    service_account_token: Object | None = None
    secret: Object | None = None
    pod_certificate: Object | None = None


class _Projected(_Shape):
    sources: list[_Source] | None = None


class _Image(_Shape):
    reference: str | None = None


class _Driver(_Shape):
    driver: str | None = None


class _Volume(_Shape):
    name: str | None = None
    image: _Image | None = None
    empty_dir: Object | None = None
    persistent_volume_claim: Object | None = None
    ephemeral: Object | None = None
    host_path: Object | None = None
    projected: _Projected | None = None
    secret: Object | None = None
    csi: _Driver | None = None
    flex_volume: _Driver | None = None


class _Term(_Shape):
    match_expressions: list[Object] | None = None
    match_fields: list[Object] | None = None


class _NodeSelector(_Shape):
    node_selector_terms: list[_Term] | None = None


class _NodeAffinity(_Shape):
    required_during_scheduling_ignored_during_execution: _NodeSelector | None = None


class _Affinity(_Shape):
    node_affinity: _NodeAffinity | None = None


class PodSpec(_Shape):
    """PodSpec."""

    containers: list[_Container]
    init_containers: list[_Container] | None = None
    ephemeral_containers: list[_Container] | None = None
    volumes: list[_Volume] | None = None
    node_selector: Texts | None = None
    tolerations: list[Object] | None = None
    image_pull_secrets: list[_Named] | None = None
    node_name: str | None = None
    runtime_class_name: str | None = None
    scheduler_name: str | None = None
    service_account_name: str | None = None
    security_context: _SecurityContext | None = None
    resources: _Resources | None = None
    os: Object | None = None
    affinity: _Affinity | None = None


class Pod(_Owned, kw_only=True):
    """Pod; a Revision has the same shape."""

    spec: PodSpec


class _TemplateSpec(_Shape):
    template: Pod


class TemplateOwner(_Owned, kw_only=True):
    """Knative's Service and Configuration."""

    spec: _TemplateSpec


T = TypeVar("T", bound=_Shape)
# Places where unquoted YAML easily becomes a boolean or a number instead of text.
_IN_TEXTS = re.compile(r"\.(annotations|labels)\[")


def validate_shape(item: Any, shape: type[T], where: str = "object") -> None:
    """Raise MalformedError unless the object has the shape."""
    try:
        msgspec.convert(item, shape)
    except (msgspec.ValidationError, RecursionError) as error:
        # msgspec's message has the place and the expected and actual types, no content.
        hint = '; quote the value, such as "true"' if _IN_TEXTS.search(str(error)) else ""
        raise MalformedError(f"{where}: {error}{hint}") from None


def validate_pod_shape(item: Any, where: str = "object") -> None:
    """Raise MalformedError unless the object can be read as a Pod that has a container."""
    validate_shape(item, Pod, where)
    if not item["spec"]["containers"]:
        raise MalformedError(f"{where}: spec.containers is empty")


def validate_metadata_shape(item: Any, where: str = "object") -> None:
    """Raise MalformedError unless the object's metadata can be read."""
    validate_shape(item, _Owned, where)
