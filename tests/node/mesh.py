"""A mesh's webhook: it makes of each pod what Istio's sidecar injector does, redirected by init container or by CNI.

`python -m tests.node.mesh CERTIFICATE KEY IMAGE` serves it. IMAGE holds tests/node/application, which ends at once
without a PORT, and answers any path with one: it redirects nothing, and stands for the containers alone.
"""

from __future__ import annotations

import base64
import json
import ssl
import sys
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from tests.cluster.client import Object
from tests.node.stack import Stack

PORT: Final = 15017
REDIRECTED_BY: Final = "example.dev/redirected-by"
"""A pod's annotation: `init-container` (the default) or `cni`."""
STEALS: Final = "example.dev/steals"
"""A pod's annotation: the volume that the proxy mounts as well."""
PROXY: Final = "istio-proxy"
_ANNOTATIONS: Final = {
    "sidecar.istio.io/status": '{"initContainers":["istio-init"],"containers":["istio-proxy"],"revision":"default"}',
    "prometheus.io/port": "15020",
    "prometheus.io/scrape": "true",
    "prometheus.io/path": "/stats/prometheus",
}
_TOKEN: Final = "istio-token"
_PRIVATE: Final = {"allowPrivilegeEscalation": False, "privileged": False, "readOnlyRootFilesystem": True}


def initial_container(pod: Object) -> str:
    """The name of the init container that the mesh adds to it."""
    by_cni = pod["metadata"].get("annotations", {}).get(REDIRECTED_BY) == "cni"
    return "istio-validation" if by_cni else "istio-init"


def operations(pod: Object, image: str) -> list[Object]:
    """The JSON Patch, which is empty where the proxy is there already."""
    specification = pod["spec"]
    if any(container["name"] == PROXY for container in specification["containers"]):
        return []
    annotations = pod["metadata"].get("annotations", {})
    initial = _initial(initial_container(pod), image)
    others = specification.get("initContainers", [])
    # Istio's validation comes before the author's containers, and its redirection after them.
    initials = [initial, *others] if initial["name"] == "istio-validation" else [*others, initial]
    values = {
        "/metadata/annotations": {**annotations, **_ANNOTATIONS},
        "/spec/initContainers": initials,
        "/spec/containers": [*specification["containers"], _proxy(image, annotations.get(STEALS))],
        "/spec/volumes": [*specification.get("volumes", []), *_volumes()],
    }
    return [{"op": "add", "path": path, "value": value} for path, value in values.items()]


def register(stack: Stack, name: str, namespace: str) -> None:
    """Have the API server call it for pods of `namespace`; configurations are called in the order of their names."""
    certificate = stack.cluster.control_plane.ca.read_bytes()
    webhook = {
        "name": "sidecar-injector.istio.io",
        "clientConfig": {
            "url": f"https://127.0.0.1:{PORT}/inject",
            "caBundle": base64.b64encode(certificate).decode(),
        },
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "timeoutSeconds": 30,
    }
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration"}
    stack.apply({**kind, "metadata": {"name": name}, "webhooks": [webhook]})


def _initial(name: str, image: str) -> Object:
    capabilities: Object = {"drop": ["ALL"]}
    security: Object = {**_PRIVATE, "runAsUser": 1337, "runAsGroup": 1337, "runAsNonRoot": True}
    if name == "istio-init":
        capabilities["add"] = ["NET_ADMIN", "NET_RAW"]
        security |= {"runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": False, "readOnlyRootFilesystem": False}
    return {"name": name, "image": image, "securityContext": {**security, "capabilities": capabilities}}


def _proxy(image: str, stolen: str | None) -> Object:
    mounts = [
        {"name": "istio-envoy", "mountPath": "/etc/istio/proxy"},
        {"name": _TOKEN, "mountPath": "/var/run/secrets/tokens"},
    ]
    if stolen:
        mounts.append({"name": stolen, "mountPath": "/stolen"})
    return {
        "name": PROXY,
        "image": image,
        "env": [{"name": "PORT", "value": "15021"}],
        "ports": [{"containerPort": 15090, "name": "http-envoy-prom", "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/healthz/ready", "port": 15021}, "periodSeconds": 1},
        "securityContext": {
            **_PRIVATE,
            "runAsUser": 1337,
            "runAsGroup": 1337,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }


def _volumes() -> list[Object]:
    token = {"path": _TOKEN, "audience": "istio-ca", "expirationSeconds": 43200}
    return [
        {"name": "istio-envoy", "emptyDir": {"medium": "Memory"}},
        {"name": _TOKEN, "projected": {"sources": [{"serviceAccountToken": token}]}},
    ]


def _main(certificate: str, key: str, image: str) -> None:
    async def inject(request: web.Request) -> web.Response:
        review: dict[str, Any] = await request.json()
        asked = review["request"]
        answer = {"uid": asked["uid"], "allowed": True}
        if patch := operations(asked["object"], image):
            encoded = base64.b64encode(json.dumps(patch).encode()).decode()
            answer |= {"patchType": "JSONPatch", "patch": encoded}
        return web.json_response({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": answer})

    application = web.Application(client_max_size=8 << 20)
    application.router.add_post("/inject", inject)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(Path(certificate), Path(key))

    def say(text: str) -> None:
        print(text, flush=True)

    web.run_app(application, host="127.0.0.1", port=PORT, ssl_context=context, print=say)


if __name__ == "__main__":
    _main(*sys.argv[1:])
