"""Where the secrets are: OpenBao over TLS, the verifier, and the simulated SNP machine that pods prove themselves with.

The verifier trusts this API server's own token issuer, so that a pod's token is one that the API server has made.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attestation.simulator.hierarchy import Hierarchy, open_hierarchy
from plan.layout import PLAN_VARIABLE
from tests.attestation.verifier.process import Site, Verifier, policy, verifier
from tests.cluster.client import Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.keeper import Keeper
from tests.cluster.process import Process
from tests.sidecar.pod import START
from tests.support.exec_helper import build_helper
from tests.support.openbao import OpenBao, openbao
from tests.support.paths import ROOT
from tests.support.processes import morphisms
from tests.support.until import until
from webhook.configuration.profiles import PRESETS

_CLUSTER = "prod"
_PROFILE = "kata-snp-simulated"
_LISTENING = "listening on "


@dataclass
class Ended:
    """What a pod's `morphisms-init` has left: its exit code, what it said, and the pod's memory volumes."""

    code: int
    said: str
    folder: Path

    def file(self, name: str) -> str:
        """A file of the consumers' mount."""
        return (self.folder / "secrets" / name).read_text()

    def variables(self, container: str) -> dict[str, str]:
        """What the exec helper would put into that container's environment."""
        pairs = (self.folder / "run" / "env" / container).read_bytes().split(b"\0")
        return dict(pair.decode().replace("$$", "$").split("=", 1) for pair in pairs if pair)


@dataclass
class KeyServer:
    """`bao` holds secrets, `judge` judges; `folder` is for the pods that are run."""

    cluster: ControlPlane
    folder: Path
    bao: OpenBao
    judge: Verifier
    machine: str
    helper: Path

    def trust(self, namespace: str, service: str) -> None:
        """Let this Service's pods have its secrets, by an appraisal policy of assurance vm."""
        workload = {"namespace": namespace, "service": service}
        before = len(self.judge.events("file_reloaded"))
        self.judge.site.write_policy(service, _policy(workload))
        until(lambda: len(self.judge.events("file_reloaded")) > before)

    def write(self, namespace: str, service: str, name: str, **data: str) -> None:
        """Write a secret under the Service's own prefix."""
        self.bao.done("POST", f"secret/data/knative/{_CLUSTER}/{namespace}/{service}/{name}", {"data": data})

    def configuration(self, *namespaces: str) -> dict[str, Any]:
        """The webhook's, for namespaces whose pods prove themselves with the simulated machine."""
        preset = next(profile for profile in PRESETS if profile.name == "kata-snp").model_dump(exclude_defaults=True)
        evidence = [{"source": "simulated", "address": self.machine}]
        ca = (self.judge.site.folder / "ca.crt").read_text()
        return {
            "cluster": _CLUSTER,
            "profiles": [json.loads(json.dumps({**preset, "name": _PROFILE, "evidence": evidence}))],
            "namespaces": {namespace: {"profile": _PROFILE} for namespace in namespaces},
            "verifier": {"url": f"https://127.0.0.1:{self.judge.port}", "ca": ca},
            "vault": {"url": f"https://127.0.0.1:{self.bao.tls_port}", "ca": self.bao.ca},
            "sidecar": {"deadlineSeconds": 120},
        }

    def start(self, pod: Object) -> Ended:
        """Do the kubelet's part for a pod's `morphisms-init`: its volumes, its projected token, its environment."""
        folder = self.folder / pod["metadata"]["name"]
        for name in ("secrets", "run"):
            (folder / name).mkdir(parents=True)
            (folder / name).chmod(0o2777)
        (folder / "last-words").touch()
        (folder / "token").write_text(self._token(pod))
        container = next(each for each in pod["spec"]["initContainers"] if each["name"] == "morphisms-init")
        plan = next(entry["value"] for entry in container["env"] if entry["name"] == PLAN_VARIABLE)
        done = subprocess.run(
            [sys.executable, "-c", START, str(folder), str(self.helper)],
            cwd=ROOT,
            env={PLAN_VARIABLE: plan, "PATH": os.defpath},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Ended(done.returncode, done.stderr, folder)

    def _token(self, pod: Object) -> str:
        volume = next(each for each in pod["spec"]["volumes"] if each["name"] == "morphisms-token")
        projection = volume["projected"]["sources"][0]["serviceAccountToken"]
        metadata = pod["metadata"]
        account = pod["spec"]["serviceAccountName"]
        bound = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
        spec = {
            "audiences": [projection["audience"]],
            "expirationSeconds": projection["expirationSeconds"],
            "boundObjectRef": bound,
        }
        path = f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token"
        # By the kubelet of the pod's node, which is allowed to for its own pods only, soon after they were bound.
        kubelet = self.cluster.node(pod["spec"]["nodeName"])
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        until(lambda: kubelet.request("POST", path, request).status != 403)
        return str(kubelet.create(path, request)["status"]["token"])


@contextlib.contextmanager
def key_server(cluster: ControlPlane, folder: Path) -> Iterator[KeyServer]:
    """All three, running."""
    with contextlib.ExitStack() as stack:
        for name in ("openbao", "verifier", "hardware", "helper", "pods"):
            (folder / name).mkdir(parents=True)
        hierarchy = open_hierarchy(folder / "hardware")
        hardware = _hardware(cluster, folder / "hardware")
        stack.callback(hardware.stop)
        hardware.start()
        bao = stack.enter_context(openbao(folder / "openbao"))
        stack.enter_context(_kept(cluster.keeper, bao.process.pid))
        site = _site(cluster, folder / "verifier", hierarchy, bao.url)
        bao.trust(site.public_keys)
        judge = stack.enter_context(verifier(site))
        stack.enter_context(_kept(cluster.keeper, judge.process.pid))
        machine = hardware.log.read_text().partition(_LISTENING)[2].split()[0]
        yield KeyServer(cluster, folder / "pods", bao, judge, machine, build_helper(folder / "helper"))


def _hardware(cluster: ControlPlane, folder: Path) -> Process:
    words = morphisms("simulated-hardware", "--dir", folder, "--listen", "127.0.0.1:0")
    log = cluster.folder / "hardware.log"
    return Process(words, log, cluster.keeper, ready=lambda: _LISTENING in log.read_text())


@contextlib.contextmanager
def _kept(keeper: Keeper, pid: int) -> Iterator[None]:
    """Let the keeper answer for a process that others start and end."""
    keeper.started(pid)
    yield
    keeper.ended(pid)


def _site(cluster: ControlPlane, folder: Path, hierarchy: Hierarchy, vault_url: str) -> Site:
    site = Site(folder, hierarchy, vault_url)
    discovery = cluster.admin.get("/.well-known/openid-configuration")
    (folder / "prod.jwks").write_text(json.dumps(cluster.admin.get("/openid/v1/jwks")))
    # Services share account default, so the verifier looks at each pod's label.
    (folder / "api-token").write_text(_token_to_get_pods(cluster))
    back = {"url": cluster.url, "ca": str(cluster.ca), "token": "api-token"}
    entry = {"name": _CLUSTER, "issuer": discovery["issuer"], "jwks": {"file": "prod.jwks"}, "readBack": back}
    site.settings["clusters"] = [entry]
    site.write_policy("nothing", _policy({"namespace": "nobody", "service": "nothing"}))
    return site


def _token_to_get_pods(cluster: ControlPlane) -> str:
    """Of an account that may do what manifests/components/verifier-cluster-access allows the verifier."""
    account = "/api/v1/namespaces/kube-system/serviceaccounts"
    named = {"metadata": {"name": "verifier-of-a-test"}}
    cluster.admin.create(account, {"apiVersion": "v1", "kind": "ServiceAccount", **named})
    group = "rbac.authorization.k8s.io"
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
    role = {"apiVersion": f"{group}/v1", "kind": "ClusterRole", **named, "rules": rules}
    cluster.admin.create(f"/apis/{group}/v1/clusterroles", role)
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        **named,
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "verifier-of-a-test"},
        "subjects": [{"kind": "ServiceAccount", "name": "verifier-of-a-test", "namespace": "kube-system"}],
    }
    cluster.admin.create(f"/apis/{group}/v1/clusterrolebindings", binding)
    until(lambda: cluster.user("system:serviceaccount:kube-system:verifier-of-a-test").can("get", "pods"))
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 86400}}
    answer = cluster.admin.create(f"{account}/verifier-of-a-test/token", request)
    return str(answer["status"]["token"])


def _policy(workload: dict[str, str]) -> dict[str, Any]:
    record = policy(workload=workload, assurance="vm")
    del record["hostData"]
    return record
