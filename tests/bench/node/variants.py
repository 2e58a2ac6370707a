"""What is compared: one Service as it is, with Morphisms in three ways, and with `bao agent` as an init container.

`bao agent` does what Vault Agent Injector's container does, written by hand: it logs in by Kubernetes authentication,
renders one secret and ends. The Injector's own admission webhook is not part of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.cluster.client import Object
from tests.node.images import Image
from tests.node.morphisms import KMS_NAMESPACE
from tests.node.services import RESTRICTED, digest, service
from tests.node.stack import Stack

PLAIN_NAMESPACE: Final = "bench-plain"
NAMESPACE: Final = "bench"
_FILE: Final = "/morphisms/secrets/db"
_AGENT_FILE: Final = "/rendered/db"
_AGENT_SECRET: Final = "secret/data/knative/cluster/bench-plain/agent/db"
_AGENT_ROLE: Final = "bench-agent"
_REVIEWER: Final = "bench-reviewer"
_SECRET: Final = {"morphisms.dev/secret-db": "~/db#password"}
_AGENT: Final = f"""\
exit_after_auth = true
vault {{
  address = "https://openbao.{KMS_NAMESPACE}.svc:8200"
  ca_cert = "/configuration/ca.crt"
}}
auto_auth {{
  method "kubernetes" {{
    mount_path = "auth/kubernetes"
    config = {{ role = "{_AGENT_ROLE}" }}
  }}
}}
template {{
  contents = "{{{{ with secret \\"{_AGENT_SECRET}\\" }}}}{{{{ .Data.data.password }}}}{{{{ end }}}}"
  destination = "{_AGENT_FILE}"
}}
"""


@dataclass(frozen=True)
class Variant:
    """One of them. `agent` is the container that gets the secret, and `lines` what its log says of its progress."""

    key: str
    title: str
    place: str
    annotations: Mapping[str, str]
    env: Mapping[str, str]
    agent: str | None = None
    lines: tuple[str, str, str] = ("", "", "")
    """Parts of its log's lines: it runs, it has proved itself, its secret is published."""
    command: tuple[str, ...] = ()

    @property
    def namespace(self) -> str:
        return self.place.partition("/")[0]

    @property
    def name(self) -> str:
        return self.place.partition("/")[2]


_OURS: Final = ('"event":"started"', '"event":"attested"', '"event":"published"')
_AGENTS: Final = ("==> OpenBao Agent started!", "authentication successful", "rendered")

PLAIN: Final = Variant("plain", "the Service as it is", f"{PLAIN_NAMESPACE}/plain", {}, {})
VARIANTS: Final = (
    PLAIN,
    Variant(
        "init",
        "Morphisms, agent init, a file",
        f"{NAMESPACE}/init",
        {**_SECRET, "morphisms.dev/agent": "init"},
        {"FILES": _FILE},
        "morphisms-init",
        _OURS,
    ),
    Variant(
        "sidecar",
        "Morphisms, agent sidecar, a file",
        f"{NAMESPACE}/sidecar",
        {**_SECRET, "morphisms.dev/agent": "sidecar"},
        {"FILES": _FILE},
        "morphisms-init",
        _OURS,
    ),
    Variant(
        "wrapped",
        "Morphisms, agent sidecar, a variable",
        f"{NAMESPACE}/wrapped",
        {"morphisms.dev/agent": "sidecar"},
        {"DB": "vault:~/db#password", "VARIABLES": "DB"},
        "morphisms-init",
        _OURS,
        ("/application",),
    ),
    Variant(
        "bao-agent",
        "bao agent by hand, a file",
        f"{PLAIN_NAMESPACE}/agent",
        {},
        {"FILES": _AGENT_FILE},
        "bao-agent",
        _AGENTS,
    ),
)


class Variants:
    """Those on one stack: `prepare` writes what they need, `service` gives a Service that starts `count` pods."""

    def __init__(self, stack: Stack, openbao: Image) -> None:
        self._stack = stack
        self._openbao = openbao
        self._passwords = {variant.key: secrets.token_urlsafe(12) for variant in VARIANTS}

    def prepare(self) -> None:
        """Namespaces, a secret each, and Kubernetes authentication for `bao agent`."""
        stack = self._stack
        stack.namespace(PLAIN_NAMESPACE)
        stack.namespace(NAMESPACE, {"morphisms.dev/mode": "inject"})
        for variant in VARIANTS:
            stack.morphisms.write_secret(f"knative/cluster/{variant.place}/db", password=self._passwords[variant.key])
        self._allow_agent()

    def service(self, variant: Variant, count: int) -> Object:
        """Its Revision begins with `count` pods, and each ends a second after it was told to."""
        annotations = {
            **variant.annotations,
            "autoscaling.knative.dev/initial-scale": str(count),
            "autoscaling.knative.dev/max-scale": str(count),
        }
        container: dict[str, Any] = {"command": list(variant.command)} if variant.command else {}
        pod: dict[str, Any] = {"timeoutSeconds": 1}
        if variant.agent == "bao-agent":
            container["volumeMounts"] = [{"name": "rendered", "mountPath": "/rendered", "readOnly": True}]
            pod |= self._agent()
        image = self._stack.application.pinned
        return service(image, variant.place, annotations, env=variant.env, pod=pod, **container)

    def expected(self, variant: Variant) -> dict[str, dict[str, str]]:
        """What the application answers of its secret."""
        seen = digest(self._passwords[variant.key])
        files = {name: seen for name in variant.env.get("FILES", "").split(",") if name}
        return {"files": files, "variables": {"DB": seen} if "VARIABLES" in variant.env else {}}

    def _agent(self) -> dict[str, Any]:
        container = {
            "name": "bao-agent",
            "image": self._openbao.pinned,
            "command": ["/usr/bin/bao", "agent", "-config=/configuration/agent.hcl"],
            "securityContext": RESTRICTED,
            "volumeMounts": [
                {"name": "configuration", "mountPath": "/configuration", "readOnly": True},
                {"name": "rendered", "mountPath": "/rendered"},
            ],
        }
        volumes = [
            {"name": "configuration", "configMap": {"name": "bao-agent"}},
            {"name": "rendered", "emptyDir": {"medium": "Memory"}},
        ]
        return {"initContainers": [container], "volumes": volumes}

    def _allow_agent(self) -> None:
        """OpenBao asks the API server about the agent's service account token."""
        admin, vault = self._stack.admin, self._vault
        admin.kubectl("-n", KMS_NAMESPACE, "create", "serviceaccount", _REVIEWER)
        binding = ("clusterrolebinding", _REVIEWER, "--clusterrole=system:auth-delegator")
        admin.kubectl("create", *binding, f"--serviceaccount={KMS_NAMESPACE}:{_REVIEWER}")
        token = admin.kubectl("-n", KMS_NAMESPACE, "create", "token", _REVIEWER, "--duration=24h").out.strip()
        vault("POST", "sys/auth/kubernetes", {"type": "kubernetes"})
        configuration = {
            "kubernetes_host": "https://kubernetes.default.svc",
            "kubernetes_ca_cert": self._stack.cluster.control_plane.ca.read_text(),
            "token_reviewer_jwt": token,
        }
        vault("POST", "auth/kubernetes/config", configuration)
        policy = f'path "{_AGENT_SECRET}" {{ capabilities = ["read"] }}'
        vault("PUT", f"sys/policies/acl/{_AGENT_ROLE}", {"policy": policy})
        role = {
            "bound_service_account_names": ["default"],
            "bound_service_account_namespaces": [PLAIN_NAMESPACE],
            "token_policies": [_AGENT_ROLE],
            "token_ttl": "10m",
        }
        vault("POST", f"auth/kubernetes/role/{_AGENT_ROLE}", role)
        ca = (self._stack.morphisms.folder / "ca" / "ca.crt").read_text()
        metadata = {"name": "bao-agent", "namespace": PLAIN_NAMESPACE}
        data = {"agent.hcl": _AGENT, "ca.crt": ca}
        item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        admin.create(f"/api/v1/namespaces/{PLAIN_NAMESPACE}/configmaps", item)

    @property
    def _vault(self) -> Callable[[str, str, object], None]:
        def call(method: str, path: str, body: object) -> None:
            status, answer = self._stack.morphisms.vault(method, path, body)
            assert status < 300, (path, status, answer)

        return call
