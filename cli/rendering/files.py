"""The files that `morphisms render` reads beside the manifest: the cluster's capture, what is trusted, images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cli.knative.settings import Settings, SettingsError, read_settings
from measured.image import Image, ImageError, digest_of, read_image
from measured.measured_document import differing_fields
from server.files import UnusableInputError
from server.guest_values import MeasurementsByVcpus
from server.yaml.strict import ConfigurationError, parse
from webhook.configuration.container_template import ContainerTemplate

_IMAGE = r"^[^\s@]+@sha256:[0-9a-f]{64}$"
_WORKLOAD = r"^[a-z0-9-]{1,63}/(Pod|Deployment|StatefulSet)/[a-z0-9.-]{1,253}$"
_SERVICE = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=_Section)


class Knative(_Section):
    """The cluster's Knative Serving."""

    version: str = Field(description="such as v1.23.0")
    namespace: str = Field("knative-serving", description="of its controllers")
    configMaps: dict[str, dict[str, str]] = Field({}, description="data of its ConfigMaps, by name, without _example")


class ServiceAccount(_Section):
    """A service account that differs from Kubernetes' defaults."""

    automountServiceAccountToken: bool = Field(True, description="as on the account")


class Cluster(_Section):
    """`cluster.yaml`: what `morphisms capture` found. Nothing in it is trusted."""

    version: Literal[1] = 1
    knative: Knative
    template: ContainerTemplate = Field(description="the container template in force")
    serviceAccounts: dict[str, dict[str, ServiceAccount]] = Field(
        {}, description="by namespace and name; those not listed have the defaults"
    )

    def automounts_token(self, namespace: str, account: str) -> bool:
        """Whether pods of the account get its token unless they say otherwise."""
        return self.serviceAccounts.get(namespace, {}).get(account, ServiceAccount()).automountServiceAccountToken

    def settings(self) -> Settings:
        """Knative's settings. Raises SettingsError."""
        return read_settings(self.knative.version, self.knative.namespace, self.knative.configMaps)


class VaultLogin(_Section):
    """Where the workload logs in to Vault."""

    mount: str
    role: str
    namespace: str = ""


class TrustedGuest(_Section):
    """What a guest entry beside the verifier says of one guest, for the summary of a rendering."""

    measurements: MeasurementsByVcpus = Field({}, description="launch digests, one per number of vCPUs")
    baseVcpus: Annotated[int, Field(ge=0, le=256)] = Field(
        1, description="default_vcpus of the runtime's configuration, to which Kata adds a pod's CPU limits"
    )


def _guests(value: object) -> object:
    """Names alone are guests of which nothing is said."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return {name: {} for name in value}
    return value


class Trust(_Section):
    """`trust.yaml`: what people vouch for. A capture that differs is refused."""

    version: Literal[1] = 1
    template: ContainerTemplate = Field(description="sidecar image, verifier, Vault and the rest of the template")
    queueProxy: Annotated[str, Field(pattern=_IMAGE)] = Field(description="Knative's image, by digest")
    guests: Annotated[dict[str, TrustedGuest], BeforeValidator(_guests)] = Field(
        min_length=1, max_length=16, description="guest reference values: their names, or their measurements by name"
    )
    vault: VaultLogin = Field(description="mount and role of the workloads' logins")
    workloads: dict[Annotated[str, Field(pattern=_WORKLOAD)], Annotated[str, Field(pattern=_SERVICE)]] = Field(
        {}, description="NAMESPACE/KIND/NAME of another kind than Service → the service that it is; default its name"
    )


@dataclass(frozen=True, slots=True)
class Inputs:
    """The files as they are used, and the SHA-256 (hex) of each one's bytes.

    `evidence`: a source in place of the template's own; empty for those.
    """

    cluster: Cluster
    settings: Settings
    trust: Trust | None
    digests: Mapping[str, str]
    evidence: str = ""


def read_inputs(cluster_path: str, cluster: bytes, trust_path: str | None, trust: bytes | None) -> Inputs:
    """Read both files and compare them. Raises UnusableInputError."""
    captured = _read(cluster_path, cluster, Cluster)
    trusted = None if trust is None or trust_path is None else _read(trust_path, trust, Trust)
    try:
        settings = captured.settings()
    except SettingsError as error:
        raise UnusableInputError(f"{cluster_path}: {error}") from None
    if trusted is not None:
        _compare(captured, settings, trusted)
    digests = {"cluster.yaml": hashlib.sha256(cluster).hexdigest()}
    if trust is not None:
        digests["trust.yaml"] = hashlib.sha256(trust).hexdigest()
    return Inputs(captured, settings, trusted, digests)


def read_images(path: str, content: bytes) -> dict[str, Image]:
    """`--images`: `{REFERENCE@sha256:…: CONFIG}` → configurations by digest. Raises UnusableInputError."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise UnusableInputError(f"{path}: is not JSON") from None
    if not isinstance(document, dict):
        raise UnusableInputError(f"{path}: is not an object of image references")
    images: dict[str, Image] = {}
    for number, (reference, config) in enumerate(document.items(), 1):
        digest = digest_of(reference)
        if digest is None:
            raise UnusableInputError(f"{path}: entry {number}: the reference has no digest, such as app@sha256:…")
        try:
            image = read_image(config)
        except ImageError as error:
            raise UnusableInputError(f"{path}: entry {number}: {error}") from None
        if images.setdefault(digest, image) != image:
            raise UnusableInputError(f"{path}: entry {number}: another entry gives the same digest another content")
    return images


def _compare(cluster: Cluster, settings: Settings, trust: Trust) -> None:
    differing = []
    if digest_of(settings.deployment.queue_image) != digest_of(trust.queueProxy):
        differing.append("knative.configMaps.config-deployment.queue-sidecar-image")
    own, trusted = (each.model_dump(mode="json") for each in (cluster.template, trust.template))
    differing += [f"template.{field}" for field in differing_fields("", own, trusted)]
    if differing:
        raise UnusableInputError(
            f"the capture differs from what is trusted in {', '.join(differing)}; find out why, then change trust.yaml"
            " or capture the cluster again"
        )


def _read(path: str, content: bytes, kind: type[S]) -> S:
    try:
        return parse(content, kind, name=path).value
    except ConfigurationError as error:
        raise UnusableInputError("; ".join(error.problems)) from None
