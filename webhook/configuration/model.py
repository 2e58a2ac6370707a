"""The webhook's configuration: one typed YAML file. Unknown keys are refused; defaults suffice for trying it out."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from functools import cached_property
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from certs.periods import MAX_LEAF, Periods
from webhook.configuration.container_template import Injection
from webhook.configuration.profiles import PRESETS, Profile
from webhook.modes import Action, Mode
from webhook.pod.quantity import amount_of

_VERSION = "0.1.0"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _quantity(text: str) -> str:
    amount = amount_of(text)
    if amount is None or amount <= 0:
        raise PydanticCustomError("quantity", "not a Kubernetes quantity above zero, such as 500m or 64Mi")
    return text


Quantity = Annotated[str, AfterValidator(_quantity)]


class Resources(_Section):
    """Compute resources of `morphisms-init`, as Kubernetes quantities.

    Small, because an init container's requests count for the whole pod; both limits are set, because a namespace's
    ResourceQuota may ask for them; memory leaves room for the secrets, tmpfs pages being charged to their writer.
    """

    requests: dict[str, Quantity] = Field(
        {"cpu": "10m", "memory": "64Mi"}, description="small: an init container's requests count for the whole pod"
    )
    limits: dict[str, Quantity] = Field(
        {"cpu": "500m", "memory": "128Mi"}, description="the memory holds the secrets too, which lie on tmpfs"
    )


class Sidecar(_Section):
    """The injected container."""

    image: str = Field(
        f"morphisms/sidecar:{_VERSION}", description="pin it by digest: Knative resolves no image of ours"
    )
    imagePullPolicy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="as Kubernetes takes it"
    )
    imagePullSecrets: tuple[str, ...] = Field((), description="added to the pod; they must exist in its namespace")
    resources: Resources = Field(Resources(), description="both requests and limits: a ResourceQuota may ask for them")
    deadlineSeconds: int = Field(
        60, ge=5, le=500, description="for attestation and all secrets; far below Knative's progress deadline of 600 s"
    )
    runAsUser: int = Field(
        65532, ge=1, description="its user, unless the containers with secrets of mode 0400 share one: then that"
    )
    fsGroup: int = Field(65532, ge=1, description="set where the pod has none, so that its containers read the files")
    secretsSizeLimit: Quantity = Field("16Mi", description="of the volume with the secrets' files, in memory")
    runSizeLimit: Quantity = Field("4Mi", description="of the volume with the exec helper and variables, in memory")


class Verifier(_Section):
    """The attestation verifier that pods are sent to. No annotation can name another."""

    url: str = Field("https://morphisms-verifier.morphisms-kms.svc", description="as pods reach it")
    ca: str = Field("", description="PEM; empty for the sidecar image's own trust store")
    audience: str = Field(
        "morphisms-verifier", description="of the pod's token; the verifier's `audiences` and the guards name it too"
    )
    role: str = Field("default", description="asked for where no vault-role annotation is")


class Vault(_Section):
    """Vault or OpenBao. No annotation can name another."""

    url: str = Field("https://vault.vault.svc:8200", description="as pods reach it")
    ca: str = Field("", description="PEM; empty for the sidecar image's own trust store")
    namespace: str = Field("", description="asked for where no vault-namespace annotation is; empty for the root's")
    mounts: dict[str, Annotated[int, Field(ge=1, le=2)]] = Field(
        {"secret": 2}, description="KV mounts and their version; any other path is credentials with a lease"
    )
    prefix: str = Field("secret/knative", description="~/ stands for PREFIX/CLUSTER/NAMESPACE/SERVICE/")


class NamespaceProfiles(_Section):
    """Which profiles a namespace may use."""

    profile: str = Field(description="for pods that name none")
    profiles: tuple[str, ...] = Field((), description="that pods may name besides; empty for that one alone")


class Plaintext(_Section):
    """What the detection of plaintext secrets shall leave alone."""

    names: tuple[str, ...] = Field((), description="variable names, as case-insensitive globs")
    valuesSha256: tuple[str, ...] = Field((), description="SHA-256 of allowed values, in hex")
    detectors: tuple[str, ...] = Field((), description="detectors to switch off, by id")


class Identities(_Section):
    """Who is believed to be whom, by the user name that the API server authenticated."""

    knative: tuple[str, ...] = Field(
        ("system:serviceaccount:knative-serving:controller",),
        description="writes Configurations and Revisions, and dry-runs pods",
    )
    podControllers: tuple[str, ...] = Field(
        (
            "system:serviceaccount:kube-system:replicaset-controller",
            "system:kube-controller-manager",
        ),
        description="make pods of Knative's Deployments",
    )


class Reserved(_Section):
    """Nodes with a single purpose: no pod from elsewhere may tolerate their taint or be bound to them."""

    keys: tuple[str, ...] = Field(
        ("node-role.kubernetes.io/control-plane", "morphisms.node-restriction.kubernetes.io/kms"),
        description="taint or label keys of such nodes",
    )
    namespaces: tuple[str, ...] = Field(
        ("kube-system", "morphisms-system", "morphisms-kms"), description="whose pods may be on such nodes"
    )


class Certificates(_Section):
    """Periods of the webhook's own CA; without meaning where its certificate comes from files."""

    leafSeconds: int = Field(
        7 * 86400, ge=10, le=int(MAX_LEAF.total_seconds()), description="a serving certificate; renewed at two thirds"
    )
    authoritySeconds: int = Field(
        3650 * 86400, ge=40, le=36500 * 86400, description="the CA; at least four times leafSeconds"
    )
    settleSeconds: int = Field(
        60, ge=1, le=3600, description="how long a new CA is published before a certificate of it is served"
    )

    @model_validator(mode="after")
    def _leaves_are_short(self) -> Certificates:
        if self.authoritySeconds < 4 * self.leafSeconds:
            raise PydanticCustomError("authority_short", "authoritySeconds is below four times leafSeconds")
        return self

    @property
    def periods(self) -> Periods:
        """The same, as spans of time."""
        seconds = (self.leafSeconds, self.authoritySeconds, self.settleSeconds)
        return Periods(*(timedelta(seconds=each) for each in seconds))


class RuleActions(_Section):
    """What a rule's violation does in each mode; left out: deny in enforce, record elsewhere."""

    absent: Action | None = Field(None, description="in namespaces without a mode")
    audit: Action | None = Field(None, description="in mode audit")
    inject: Action | None = Field(None, description="in mode inject")
    enforce: Action | None = Field(None, description="in mode enforce")

    def of(self, mode: Mode) -> Action | None:
        """The configured action, None for the default."""
        action: Action | None = getattr(self, mode.value)
        return action


class Configuration(_Section):
    """The whole file."""

    version: Literal[1] = Field(1, description="of this file's format")
    cluster: str = Field(
        "cluster",
        pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$",
        description="its name, as the verifier and its policies say it, and part of ~/",
    )
    profiles: tuple[Profile, ...] = Field(
        (), description="added to the presets; one of the same name replaces a preset"
    )
    defaultProfile: str = Field("kata-snp", description="for pods that name none")
    namespaces: dict[str, NamespaceProfiles] = Field(
        {}, description="by name; others may use the default and each attesting profile with a VM for a pod"
    )
    runtimeClassConflict: Literal["refuse", "replace"] = Field(
        "refuse", description="when a pod names a RuntimeClass that its profile does not allow"
    )
    sidecar: Sidecar = Field(Sidecar(), description="the container that is injected")
    verifier: Verifier = Field(Verifier(), description="where pods prove themselves")
    vault: Vault = Field(Vault(), description="where secrets are")
    rules: dict[str, RuleActions] = Field({}, description="by rule id; docs/rules.md lists them")
    plaintext: Plaintext = Field(Plaintext(), description="exceptions from secrets/plaintext-env")
    platformImages: tuple[str, ...] = Field(
        (), description="globs of images that the platform injects by tag, such as a mesh's; images/digest passes them"
    )
    schedulers: tuple[str, ...] = Field(("default-scheduler",), description="that pods may name")
    hypervisorAnnotations: tuple[str, ...] = Field(
        (), description="io.katacontainers.config.* annotations that pods may carry, besides the measured initdata"
    )
    execGroups: tuple[str, ...] = Field((), description="groups that may exec, attach and port-forward in enforce mode")
    identities: Identities = Field(Identities(), description="Knative's and Kubernetes' controllers")
    reserved: Reserved = Field(Reserved(), description="nodes with a single purpose")
    certificates: Certificates = Field(Certificates(), description="periods, with --own-ca")
    snapshotMaxAgeSeconds: int = Field(
        300, ge=120, description="an older view of the cluster fails closed in enforce; a quiet watch may be 90 s old"
    )

    @model_validator(mode="after")
    def _names_are_known(self) -> Configuration:
        known = self.profile_by_name
        named = {self.defaultProfile}
        for entry in self.namespaces.values():
            named.update((entry.profile, *entry.profiles))
        if unknown := sorted(named - known.keys()):
            raise PydanticCustomError(
                "unknown_profile", f"unknown profile {', '.join(unknown)}; known are {', '.join(sorted(known))}"
            )
        return self

    @cached_property
    def profile_by_name(self) -> dict[str, Profile]:
        """Presets and configured profiles; the latter win."""
        return {profile.name: profile for profile in (*PRESETS, *self.profiles)}

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the effective configuration, defaults included."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @cached_property
    def injection(self) -> Injection:
        """What injection adds under this configuration."""
        return Injection(self)

    @cached_property
    def node_label_keys(self) -> frozenset[str]:
        """The node labels that any decision looks at."""
        keys = {need.key for profile in self.profile_by_name.values() for need in profile.requirements}
        return frozenset(keys | set(self.reserved.keys))

    def default_profile_of(self, namespace: str) -> str:
        """The profile of a pod that names none."""
        entry = self.namespaces.get(namespace)
        return self.defaultProfile if entry is None else entry.profile

    def profiles_allowed_in(self, namespace: str) -> frozenset[str]:
        """Names of the profiles that pods of the namespace may use.

        Where the operator says nothing: the default, and the others that isolate a pod in a VM of its own and attest it
        on real hardware. Any other would let an annotation loosen the namespace's policy.
        """
        entry = self.namespaces.get(namespace)
        if entry is not None:
            return frozenset((entry.profile, *entry.profiles))
        return self._attesting_profiles

    @cached_property
    def _attesting_profiles(self) -> frozenset[str]:
        attesting = {name for name, profile in self.profile_by_name.items() if profile.isolates_by_itself}
        return frozenset(attesting | {self.defaultProfile})
