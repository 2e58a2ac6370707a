"""Names that Morphisms, Kubernetes, Knative and Kata give to annotations, labels and containers."""

from __future__ import annotations

from typing import Final

PREFIX: Final = "morphisms.dev/"
MODE_LABEL: Final = "morphisms.dev/mode"
STATUS: Final = "morphisms.dev/status"
# Before a digest (hex), in annotations.
DIGEST_PREFIX: Final = "sha256:"
# What the webhook puts into a pod, which the sidecar's image has to understand: 2 has `expand` in the plan and may have
# `verifier.attest`; 3 may start the application by a hook, `exec --install`. Measured pods and container templates of
# former versions stay valid for two releases.
INJECTOR_VERSION: Final = 3
ATTEST_INJECTOR_VERSION: Final = 2
# Of a release that knew no container templates.
FORMER_INJECTOR_VERSION: Final = 1
SUPPORTED_INJECTOR_VERSIONS: Final = frozenset(range(FORMER_INJECTOR_VERSION, INJECTOR_VERSION + 1))

# The key server's: the verifier and its OpenBao in one guest. manifests/overlays/kms-in-guests has the same names.
KMS_NAMESPACE: Final = "morphisms-kms"
SYSTEM_NAMESPACE: Final = "morphisms-system"
# manifests/base/webhook: the registration calls the webhook for none of them.
UNREVIEWED_NAMESPACES: Final = frozenset({SYSTEM_NAMESPACE, "kube-system", "kube-node-lease"})
KMS_STATEFUL_SET: Final = "morphisms-verifier"
KMS_PROFILE: Final = "kms"

# Set by the Deployment controller on a ReplicaSet and its pods; the end of the ReplicaSet's name.
POD_TEMPLATE_HASH: Final = "pod-template-hash"
# Creates the pods of all workloads where the controllers have no service accounts of their own.
KUBE_CONTROLLER_MANAGER: Final = "system:kube-controller-manager"
# Where the replicas share the container templates, in their own namespace.
TEMPLATES_CONFIG_MAP: Final = "morphisms-webhook-templates"
# Where the scanner publishes what it reached, in the same namespace.
PROBES_CONFIG_MAP: Final = "morphisms-probes"

DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"
LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
MIRROR: Final = "kubernetes.io/config.mirror"
SERVICE_ACCOUNT_MOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"

KNATIVE_GROUP: Final = "serving.knative.dev"
KNATIVE_PREFIX: Final = "serving.knative.dev/"
KNATIVE_SERVICE: Final = "serving.knative.dev/service"
KNATIVE_CONFIGURATION: Final = "serving.knative.dev/configuration"
KNATIVE_REVISION: Final = "serving.knative.dev/revision"
QUEUE_PROXY: Final = "queue-proxy"
# Knative's name for the serving container's port, in the pods that it makes.
USER_PORT: Final = "user-port"
# Knative's names for a container and an init container that have none (config-defaults, container-name-template).
USER_CONTAINER: Final = "user-container"
INIT_CONTAINER: Final = "init-container"

# Kata reads these from the pod; the annotation with the initdata document is measured into HOST_DATA.
KATA_PREFIX: Final = "io.katacontainers."
INITDATA: Final = "io.katacontainers.config.hypervisor.cc_init_data"

# Annotations that hand a pod devices, mounts, hooks or another runtime. Containerd, CRI-O, crun, runc, podman and their
# plugins read them. https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md
# https://github.com/cri-o/cri-o/blob/main/docs/annotations.md https://github.com/containerd/nri
RUNTIME_PREFIXES: Final = (
    KATA_PREFIX,
    "cdi.k8s.io/",
    "io.kubernetes.cri.",
    "io.kubernetes.cri-o.",
    "io.containerd.",
    "io.containers.",
    "io.podman.",
    "run.oci.",
    "org.systemd.property.",
    "module.wasm.image/",
    "io.github.containers/",
    "org.criu.",
)
# The same, of tools that put their own name before the domain: devices.nri.io/…, cpu-quota.crio.io.
RUNTIME_DOMAINS: Final = ("nri.io", "nri.containerd.io", "crio.io", "cri-o.io")

MESH_PROXIES: Final = frozenset(
    {"istio-proxy", "linkerd-proxy", "kuma-sidecar", "consul-dataplane", "consul-connect-envoy-sidecar"}
)
# The meshes' init containers: they redirect the pod's traffic, or check that a CNI plugin has done so.
MESH_INIT_CONTAINERS: Final = frozenset(
    {
        "istio-init",
        "istio-validation",
        "linkerd-init",
        "linkerd-network-validator",
        "kuma-init",
        "kuma-validation",
        "consul-connect-inject-init",
    }
)

# Containers that other platforms' webhooks add: Dapr, Vault Agent, Azure Workload Identity, Cloud Storage FUSE,
# OpenTelemetry, Jaeger. Like a mesh's proxy they are not the author's, and never get secrets.
INJECTED_SIDECARS: Final = frozenset(
    {
        "daprd",
        "vault-agent",
        "vault-agent-init",
        "azwi-proxy",
        "azwi-proxy-init",
        "gke-gcsfuse-sidecar",
        "otc-container",
        "jaeger-agent",
    }
)
# Helpers that authors write beside an application. By default they are never meant; an annotation or a reference of
# their own can name them.
WRITTEN_SIDECARS: Final = frozenset({"cloud-sql-proxy", "cloudsql-proxy", "cloud-sql-auth-proxy", "alloydb-auth-proxy"})
