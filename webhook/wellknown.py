"""Names that Morphisms, Kubernetes, Knative and Kata give to annotations, labels and containers."""

from __future__ import annotations

from typing import Final

PREFIX: Final = "morphisms.dev/"
MODE_LABEL: Final = "morphisms.dev/mode"
STATUS: Final = "morphisms.dev/status"
INJECTOR_VERSION: Final = 1
# A rendered or measured pod stays valid for two releases.
SUPPORTED_INJECTOR_VERSIONS: Final = frozenset({1})

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
# Knative's name for a container that has none (config-defaults, container-name-template).
USER_CONTAINER: Final = "user-container"

# Kata reads these from the pod; the annotation with the initdata document is measured into HOST_DATA.
KATA_PREFIX: Final = "io.katacontainers."
INITDATA: Final = "io.katacontainers.config.hypervisor.cc_init_data"

MESH_PROXIES: Final = frozenset({"istio-proxy", "linkerd-proxy"})
# Classic Istio: the first redirects the pod's traffic before its proxy runs, the second checks that CNI has done so.
ISTIO_INIT: Final = "istio-init"
ISTIO_VALIDATION: Final = "istio-validation"
ISTIO_EXCLUDED_PORTS: Final = "traffic.sidecar.istio.io/excludeOutboundPorts"
