"""The sections of the webhook's configuration file; `webhook.configuration.model` puts them together."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from certs.periods import MAX_LEAF, Periods
from plan.layout import VERSION
from server.verifier_attest import AttestEntry
from server.yaml.fields import CertificatesText, HttpsUrl
from webhook.configuration.section import Section
from webhook.modes import Action, Mode
from webhook.quantity import amount_of
from webhook.wellknown import ATTEST_INJECTOR_VERSION


def _quantity(text: str) -> str:
    amount = amount_of(text)
    if amount is None or amount <= 0:
        raise PydanticCustomError("quantity", "not a Kubernetes quantity above zero, such as 500m or 64Mi")
    return text


Quantity = Annotated[str, AfterValidator(_quantity)]


class Resources(Section):
    """Compute resources of `morphisms-init`, as Kubernetes quantities.

    Small, because an init container's requests count for the whole pod; both limits are set, because a namespace's
    ResourceQuota may require them; memory leaves room for the secrets, because tmpfs pages are charged to their writer.
    """

    requests: dict[str, Quantity] = Field(
        {"cpu": "10m", "memory": "64Mi"}, description="small: an init container's requests count for the whole pod"
    )
    limits: dict[str, Quantity] = Field(
        {"cpu": "500m", "memory": "128Mi"}, description="the memory holds the secrets too, which lie on tmpfs"
    )

    @model_validator(mode="after")
    def _requests_fit(self) -> Resources:
        for name, request in self.requests.items():
            requested, limit = amount_of(request), amount_of(self.limits.get(name))
            if requested is not None and limit is not None and requested > limit:
                raise PydanticCustomError("request_above_limit", f"requests.{name} is above limits.{name}")
        return self


class Sidecar(Section):
    """The injected container."""

    image: str = Field(f"morphisms/sidecar:{VERSION}", description="pin it by digest: Knative does not resolve its tag")
    injector: Literal[1, 2, 3] | None = Field(
        None,
        description="version of what is injected that the image understands; left out: the newest, or the one in force"
        " while nothing else changes; verifier.attest needs 2, named where the image is not the default; the quicker"
        " start needs 3",
    )
    postStartExec: bool | None = Field(
        None,
        description="false: the guests' agent policy lets a kubelet run no command in them (ExecProcessRequest), as"
        " Kata's allow-all-except-exec-process.rego; then a startup probe delays every application. Left out: true",
    )
    imagePullPolicy: Literal["Always", "IfNotPresent", "Never"] = Field("IfNotPresent", description="as in Kubernetes")
    imagePullSecrets: tuple[str, ...] = Field((), description="added to the pod; they must exist in its namespace")
    resources: Resources = Field(Resources(), description="both requests and limits: a ResourceQuota may require them")
    deadlineSeconds: int = Field(
        60, ge=5, le=500, description="for attestation and all secrets; far below Knative's progress deadline of 600 s"
    )
    rereadSeconds: int | None = Field(
        None,
        ge=5,
        le=86400,
        description="after what time `agent: sidecar` reads a KV secret again, up to a tenth earlier; left out: 300, as"
        " Vault Agent does. Each pod reads each of its secrets so often",
    )
    runAsUser: int = Field(
        65532, ge=1, description="its user; where all containers with secrets share one user, that one instead"
    )
    fsGroup: int = Field(65532, ge=1, description="set where the pod has none, so that containers can read the files")
    secretsSizeLimit: Quantity = Field("16Mi", description="of the volume with the secrets' files, in memory")
    runSizeLimit: Quantity = Field("4Mi", description="of the volume with the exec helper and variables, in memory")

    @property
    def is_said_to_read_attest(self) -> bool:
        """Whether the image reads a plan with `verifier.attest`: this release's does, another's operator has to say it.

        A sidecar that does not read it refuses the whole plan, so no pod would start.
        """
        default = type(self).model_fields["image"].default
        return (self.injector or 0) >= ATTEST_INJECTOR_VERSION or (self.injector is None and self.image == default)


class Verifier(Section):
    """The attestation verifier that pods call. No annotation can name another."""

    url: HttpsUrl = Field("https://morphisms-verifier.morphisms-kms.svc", description="as pods reach it")
    ca: CertificatesText = Field("", description="PEM; empty for the sidecar image's own trust store")
    audience: str = Field(
        "morphisms-verifier", description="of the pod's token; the verifier's `audiences` and the guards name it too"
    )
    role: str = Field("default", description="requested where the pod has no vault-role annotation")
    attest: AttestEntry | None = Field(
        None,
        description="what the verifier has to prove to a pod before the pod sends anything about itself: {signer,"
        " minSerial}, or the values themselves; left out: nothing",
    )


class Vault(Section):
    """Vault or OpenBao. No annotation can name another."""

    url: HttpsUrl = Field("https://vault.vault.svc:8200", description="as pods reach it")
    ca: CertificatesText = Field("", description="PEM; empty for the sidecar image's own trust store")
    namespace: str = Field("", description="requested where the pod has no vault-namespace annotation; empty for root")
    mounts: dict[str, Annotated[int, Field(ge=1, le=2)]] = Field(
        {"secret": 2}, description="KV mounts and their version; any other path is credentials with a lease"
    )
    prefix: str = Field("secret/knative", description="~/ stands for PREFIX/CLUSTER/NAMESPACE/SERVICE/")

    @property
    def kv2_mounts(self) -> tuple[str, ...]:
        """The KV mounts of version 2."""
        return tuple(mount for mount, version in self.mounts.items() if version == 2)


class NamespaceProfiles(Section):
    """Which profiles a namespace may use."""

    profile: str | None = Field(None, description="for pods that name none; left out: defaultProfile")
    profiles: tuple[str, ...] = Field((), description="that pods may also name; empty: only that profile")


class Plaintext(Section):
    """Exceptions from the detection of plaintext secrets."""

    names: tuple[str, ...] = Field((), description="variable names, as case-insensitive globs")
    valuesSha256: tuple[str, ...] = Field((), description="SHA-256 of allowed values, in hex")
    detectors: tuple[str, ...] = Field((), description="detectors to switch off, by id")


class Identities(Section):
    """Controllers, by the user name that the API server authenticated."""

    knative: tuple[str, ...] = Field(
        ("system:serviceaccount:knative-serving:controller",),
        description="writes Configurations and Revisions, and dry-runs pods",
    )
    podControllers: tuple[str, ...] = Field(
        (
            "system:serviceaccount:kube-system:replicaset-controller",
            "system:kube-controller-manager",
        ),
        description="create the pods of Knative's Deployments",
    )
    statefulSetControllers: tuple[str, ...] = Field(
        (
            "system:serviceaccount:kube-system:statefulset-controller",
            "system:kube-controller-manager",
        ),
        description="create the key server's pod in morphisms-kms",
    )


class Reserved(Section):
    """Nodes with a single purpose: no pod from elsewhere may tolerate their taint or be bound to them."""

    keys: tuple[str, ...] = Field(
        ("node-role.kubernetes.io/control-plane", "morphisms.node-restriction.kubernetes.io/kms"),
        description="taint or label keys of such nodes",
    )
    namespaces: tuple[str, ...] = Field(
        ("kube-system", "morphisms-system", "morphisms-kms"),
        description="namespaces of pods that may run there",
    )


class Certificates(Section):
    """Periods of the webhook's own CA; unused where its certificate comes from files."""

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


class RuleActions(Section):
    """The action on a rule's violation in each mode; left out: deny in enforce, record elsewhere."""

    absent: Action | None = Field(None, description="in namespaces without a mode")
    audit: Action | None = Field(None, description="in mode audit")
    inject: Action | None = Field(None, description="in mode inject")
    enforce: Action | None = Field(None, description="in mode enforce")

    def of(self, mode: Mode) -> Action | None:
        """The configured action, None for the default."""
        action: Action | None = getattr(self, mode.value)
        return action
