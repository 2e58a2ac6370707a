"""Morphisms on the node, installed as docs/install.md says: an overlay over openbao-dev, Secrets, kubectl apply.

Evidence is simulated: a machine beside the pods plays the SNP device, and every verdict and claim says `simulated`.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import ssl
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.cluster.knative import NAMESPACE as KNATIVE_NAMESPACE
from tests.cluster.nodes import MANIFESTS, SNP_LABEL
from tests.cluster.process import Process
from tests.node import images
from tests.node.cluster import TRUSTED_LABEL, NodeCluster
from tests.node.images import Image
from tests.node.sandbox import BRIDGE_ADDRESS
from tests.support.openbao import binary as openbao_binary
from tests.support.paths import ROOT
from tests.support.processes import morphisms
from tests.support.until import until

WEBHOOK_NAMESPACE: Final = "morphisms-system"
KMS_NAMESPACE: Final = "morphisms-kms"
CLUSTER: Final = "cluster"
_HARDWARE_PORT: Final = 8007
_REREAD_SECONDS: Final = 5
_MOUNT: Final = "jwt-cluster"
_OPENBAO: Final = f"openbao.{KMS_NAMESPACE}.svc"
_VERIFIER: Final = f"morphisms-verifier.{KMS_NAMESPACE}.svc"
_BASE: Final = MANIFESTS / "overlays" / "openbao-dev"


def make_openbao_image(folder: Path) -> Image:
    return images.of_programs("openbao", {"/usr/bin/bao": Path(openbao_binary())}, folder / "openbao.tar")


class Morphisms:
    """`install` applies everything. `vault` is OpenBao's API as root."""

    def __init__(self, cluster: NodeCluster, project: Mapping[str, Image], openbao: Image) -> None:
        self.cluster = cluster
        self.folder = cluster.sandbox.folder / "morphisms"
        self.folder.mkdir()
        self._images = {**project, "openbao": openbao}
        self._root_token = secrets.token_urlsafe(24)
        prefix, keeper = cluster.sandbox.prefix, cluster.sandbox.keeper
        hardware = morphisms("simulated-hardware", "--dir", self.folder / "hardware", "--listen")
        self._hardware_log = self.folder / "hardware.log"
        self.hardware = Process(
            [*prefix, *hardware, f"127.0.0.1:{_HARDWARE_PORT}"],
            self._hardware_log,
            keeper,
            ready=lambda: "measurement" in self._hardware_log.read_text(),
        )
        relay = [sys.executable, "-m", "tests.node.relay", BRIDGE_ADDRESS, str(_HARDWARE_PORT), str(_HARDWARE_PORT)]
        self._relay = Process([*prefix, *relay], self.folder / "relay.log", keeper)

    def install(self, services: Iterable[str]) -> None:
        """As a user would, with appraisal policies for these NAMESPACE/SERVICE."""
        self.hardware.start()
        self._relay.start(wait=False)
        ca, admin = self._certificates(), self.cluster.admin
        admin.kubectl("create", "namespace", KMS_NAMESPACE)
        tls = self.folder / "verifier-tls"
        secret = ("-n", KMS_NAMESPACE, "create", "secret")
        admin.kubectl(*secret, "tls", "morphisms-verifier-tls", f"--cert={tls}/tls.crt", f"--key={tls}/tls.key")
        bao = self.folder / "openbao-tls"
        files = [f"--from-file={bao}/tls.crt", f"--from-file={bao}/tls.key", f"--from-file=ca.crt={ca}"]
        admin.kubectl(*secret, "generic", "openbao-tls", *files)
        root = self.folder / "root-token"
        root.write_text(self._root_token)
        admin.kubectl(*secret, "generic", "openbao-root", f"--from-file=token={root}")
        crls = sorted((self.folder / "hardware" / "crls").iterdir())
        certificates = [f"--from-file={path}" for path in (self.folder / "hardware" / "root.pem", *crls)]
        admin.kubectl("-n", KMS_NAMESPACE, "create", "configmap", "morphisms-verifier-certificates", *certificates)
        self._write_overlay(ca.read_text(), [path.name for path in crls], services)
        admin.kubectl("apply", "--server-side", "-k", self.folder / "overlay")

    def wait(self, seconds: float = 600) -> None:
        """Until all is rolled out and answers; then what Vault needs is made by `morphisms vault setup`."""
        for namespace, count in ((KMS_NAMESPACE, 2), (WEBHOOK_NAMESPACE, 2)):
            self.cluster.admin.until(
                f"/apis/apps/v1/namespaces/{namespace}/deployments",
                lambda items, count=count: (
                    len(items) >= count and all(item.get("status", {}).get("availableReplicas") for item in items)
                ),
                seconds=seconds,
            )
        self.cluster.reach(_OPENBAO, 8200)
        self.cluster.reach(_VERIFIER, 443)
        self.wait_for_webhook(seconds)
        ca = self.folder / "ca" / "ca.crt"
        words = ["vault", "setup", "--config", self.folder / "overlay" / "verifier.yaml", "--mount", _MOUNT]
        words += ["--vault-url", f"https://{_OPENBAO}:8200", "--vault-ca", ca]
        words += ["--jwks-url", f"https://{_VERIFIER}/.well-known/jwks.json", "--jwks-ca", ca]
        done = subprocess.run(
            [*self.cluster.sandbox.prefix, *morphisms(*words)],
            env={**os.environ, "VAULT_TOKEN": self._root_token},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def wait_for_webhook(self, seconds: float = 600) -> None:
        """Until the API server gets an answer of the webhook's: a pod that says `maybe` is refused in any namespace."""
        metadata = {"name": "probe", "annotations": {"morphisms.dev/inject": "maybe"}}
        container = {"name": "probe", "image": self._images["openbao"].pinned}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}

        def is_refused() -> bool:
            answer = self.cluster.admin.request("POST", "/api/v1/namespaces/default/pods", pod, query={"dryRun": "All"})
            return "denied the request" in answer.message

        until(is_refused, seconds)

    def write_secret(self, path: str, **values: str) -> None:
        """Write a secret of KV version 2 at its logical path below `secret/`."""
        status, answer = self.vault("POST", f"secret/data/{path}", {"data": values})
        assert status < 300, (status, answer)

    def vault(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """(status, answer) of one call to OpenBao by its Service, as root."""
        service = self.cluster.admin.get(f"/api/v1/namespaces/{KMS_NAMESPACE}/services/openbao")
        context = ssl.create_default_context(cafile=str(self.folder / "ca" / "ca.crt"))
        with self.cluster.sandbox.connect(service["spec"]["clusterIP"], 8200) as plain:
            connection = http.client.HTTPConnection(_OPENBAO)
            connection.sock = context.wrap_socket(plain, server_hostname=_OPENBAO)
            content = None if body is None else json.dumps(body)
            connection.request(method, f"/v1/{path}", content, {"X-Vault-Token": self._root_token})
            answer = connection.getresponse()
            data = answer.read()
            connection.close()
        return answer.status, json.loads(data) if data else None

    def unseal_key(self) -> str:
        """Which OpenBao in development mode prints."""
        log = self.cluster.admin.kubectl("-n", KMS_NAMESPACE, "logs", "deployment/openbao").out
        found = re.search(r"Unseal Key: (\S+)", log)
        assert found is not None
        return found[1]

    def _certificates(self) -> Path:
        for name, folder in ((_VERIFIER, "verifier-tls"), (_OPENBAO, "openbao-tls")):
            words = morphisms("certificates", "issue", "--ca-dir", self.folder / "ca", "--name", name)
            subprocess.run([*words, "--out", str(self.folder / folder)], cwd=ROOT, check=True, capture_output=True)
        return self.folder / "ca" / "ca.crt"

    def _write_overlay(self, ca: str, crls: Iterable[str], services: Iterable[str]) -> None:
        overlay = self.folder / "overlay"
        overlay.mkdir()
        (overlay / "configuration.yaml").write_text(yaml.safe_dump(self._configuration(ca)))
        # The guards list profiles by namespace.
        guards = subprocess.run(
            morphisms("guards", "--config", overlay / "configuration.yaml"), cwd=ROOT, check=True, capture_output=True
        )
        (overlay / "guards.yaml").write_bytes(guards.stdout)
        (overlay / "verifier.yaml").write_text(yaml.safe_dump(_verifier(crls)))
        (overlay / "simulated.yaml").write_text(yaml.safe_dump({"simulated-guest": self._guest()}))
        policies = []
        for service in services:
            namespace, _, name = service.partition("/")
            file = f"{CLUSTER}.{namespace}.{name}.yaml"
            (overlay / file).write_text(yaml.safe_dump(_policy(namespace, name)))
            policies.append(file)
        pins = [
            {"name": name, "newName": self._images[key].name, "digest": self._images[key].digest}
            for name, key in (
                ("morphisms/webhook", "webhook"),
                ("morphisms/verifier", "verifier"),
                ("openbao/openbao", "openbao"),
            )
        ]
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(_BASE, overlay)],
            "components": [
                os.path.relpath(MANIFESTS / "components" / name, overlay) for name in ("cluster-guards", "scanner")
            ],
            "configMapGenerator": [
                _merged("morphisms-webhook", WEBHOOK_NAMESPACE, ["configuration.yaml"]),
                _merged("morphisms-verifier", KMS_NAMESPACE, ["verifier.yaml"]),
                _merged("morphisms-verifier-guests", KMS_NAMESPACE, ["simulated.yaml"]),
                _merged("morphisms-verifier-policies", KMS_NAMESPACE, policies),
            ],
            "patches": [{"path": "guards.yaml"}],
            "generatorOptions": {"disableNameSuffixHash": True},
            "images": pins,
        }
        (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))

    def _configuration(self, ca: str) -> dict[str, Any]:
        configuration: dict[str, Any] = yaml.safe_load((_BASE / "configuration.yaml").read_text())
        configuration["sidecar"]["image"] = self._images["sidecar"].pinned
        configuration["sidecar"]["rereadSeconds"] = _REREAD_SECONDS
        configuration["verifier"]["ca"] = configuration["vault"]["ca"] = ca
        # In force once the namespace has a mode.
        configuration["namespaces"] = {KNATIVE_NAMESPACE: {"profile": "system"}}
        # The preset with a label that no kubelet sets, and but for its evidence: no guest's agent answers here.
        configuration["profiles"] = [
            {
                "name": "kata-snp",
                "isolation": "pod-vm",
                "runtimeClasses": ["kata-qemu-snp"],
                "handlers": ["kata-qemu-snp"],
                "nodeSelector": [{"key": SNP_LABEL, "operator": "In", "values": ["true"]}],
                "trustedLabel": TRUSTED_LABEL,
                "evidence": [{"source": "simulated", "address": f"http://{BRIDGE_ADDRESS}:{_HARDWARE_PORT}"}],
            }
        ]
        return configuration

    def _guest(self) -> dict[str, Any]:
        lines = dict(line.split(maxsplit=1) for line in self._hardware_log.read_text().splitlines() if "  " in line)
        floors = {"bootloader": 1, "tee": 0, "snp": 1, "microcode": 1}
        return {"product": "Simulated", "measurements": [lines["measurement"]], "minTcb": floors}


def _verifier(crls: Iterable[str]) -> dict[str, Any]:
    configuration: dict[str, Any] = yaml.safe_load((_BASE / "verifier.yaml").read_text())
    configuration["clusters"][0]["issuer"] = "https://kubernetes.default.svc"
    folder = "/etc/morphisms-certificates"
    configuration["certificates"] = {
        "simulatedRoot": f"{folder}/root.pem",
        "crls": [f"{folder}/{name}" for name in crls],
        "keyService": None,
    }
    return configuration


def _policy(namespace: str, service: str) -> dict[str, Any]:
    workload = {"cluster": CLUSTER, "namespace": namespace, "service": service, "serviceAccount": "default"}
    vault = {"mount": _MOUNT, "role": "knative"}
    return {"workload": workload, "assurance": "vm", "guests": ["simulated-guest"], "vault": vault}


def _merged(name: str, namespace: str, files: list[str]) -> dict[str, Any]:
    return {"name": name, "namespace": namespace, "behavior": "merge", "files": files}
