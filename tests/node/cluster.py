"""A control plane in a sandbox, and a node on which its pods run: containerd, kubelet and kube-proxy.

Every runtime handler is plain runc. It shows what a kubelet does with our pods, and nothing about VMs or SNP.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import yaml

from tests.cluster.binaries import binary
from tests.cluster.client import JSON_PATCH, Client
from tests.cluster.controlplane import ControlPlane, Place
from tests.cluster.nodes import KATA, KATA_LABEL, NODES, RUNTIME_CLASSES, SNP_LABEL
from tests.cluster.process import Process
from tests.node.images import Image
from tests.node.programs import NODE
from tests.node.sandbox import BRIDGE_ADDRESS, POD_NETWORK, Sandbox
from tests.support.paths import ROOT
from tests.support.until import until

NAME: Final = "snp-0"
DNS_ADDRESS: Final = "10.96.0.10"
DOMAIN: Final = "cluster.local"
_START_SECONDS: Final = 600.0
_SOCKET: Final = "/run/containerd/containerd.sock"
_LEASE: Final = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{NAME}"
_CRI: Final = 'plugins."io.containerd.grpc.v1.cri"'


class NodeCluster:
    """`control_plane` with a node. `start` brings both up; the sandbox's removal ends them."""

    def __init__(self, sandbox: Sandbox, pause: Image) -> None:
        self.sandbox = sandbox
        self._relay = subprocess.Popen(
            [*sandbox.cgroup.joining(), sys.executable, "-m", "tests.node.relay", str(sandbox.record.holder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            start_new_session=True,
        )
        assert self._relay.stdout is not None
        # The API server's port is the same on both sides; others are the network's own, and all are free there.
        ports = itertools.chain([int(self._relay.stdout.readline())], itertools.count(2379))
        names = (BRIDGE_ADDRESS, "10.96.0.1", "kubernetes.default.svc", f"kubernetes.default.svc.{DOMAIN}")
        options = {"kube-apiserver": self._apiserver_options()}
        place = Place(sandbox.prefix, lambda: next(ports), names, options)
        self.control_plane = ControlPlane(sandbox.folder, sandbox.keeper, place)
        self.admin = self.control_plane.admin
        self._write_credentials()
        self.logs = sandbox.folder / "pod-logs"
        self.containerd = self._containerd(pause)
        self.kubelet = self._kubelet()
        self.kube_proxy = self._kube_proxy()

    def start(self) -> None:
        """Up, the node ready."""
        self.containerd.start(wait=False)
        self.control_plane.start()
        self._start_kubelet()
        self.kube_proxy.start(wait=False)
        self.admin.until(NODES, lambda nodes: any(_is_ready(node) for node in nodes), seconds=_START_SECONDS)
        self._label()
        # The overhead is that of a VM, which does not run here.
        self.admin.create(RUNTIME_CLASSES, {key: value for key, value in KATA.items() if key != "overhead"})

    def restart_daemons(self) -> None:
        """Stop kubelet and containerd, and start both again."""
        for daemon in (self.kubelet, self.containerd):
            daemon.stop()
        self.containerd.start(wait=False)
        self._start_kubelet()

    def _start_kubelet(self) -> None:
        """As its service manager does, again where it has ended: the CRI comes up a moment after containerd does."""
        before = self._renewed()

        def is_up() -> bool:
            if not self.kubelet.running:
                self.kubelet.stop()
                self.kubelet.start(wait=False)
            return self._renewed() != before

        until(self._is_containerd_ready, _START_SECONDS)
        until(is_up, _START_SECONDS)

    def _renewed(self) -> str | None:
        """When the kubelet last renewed the node's Lease; None before it first did."""
        answer = self.admin.request("GET", _LEASE)
        return str(answer.body["spec"]["renewTime"]) if answer.status == 200 else None

    def load(self, images: Sequence[Image]) -> None:
        """Give images to containerd."""

        def load(image: Image) -> None:
            self.ctr("images", "import", "--no-unpack", str(image.archive))

        until(self._is_containerd_ready, _START_SECONDS)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(load, images))

    def ctr(self, *arguments: str) -> str:
        """containerd's own client; what it printed."""
        done = self.sandbox.run("ctr", "--address", _SOCKET, "--namespace", "k8s.io", *arguments)
        return done.stdout.decode()

    def _is_containerd_ready(self) -> bool:
        return self.sandbox.run("ctr", "--address", _SOCKET, "version", check=False).returncode == 0

    def _label(self) -> None:
        """What the feature discovery and Kata's installer do; no lifecycle controller takes the taint away."""
        metadata = {"labels": {SNP_LABEL: "true", KATA_LABEL: "true"}}
        self.admin.patch(f"{NODES}/{NAME}", {"metadata": metadata})
        taints = [
            taint
            for taint in self.admin.get(f"{NODES}/{NAME}")["spec"].get("taints", ())
            if "not-ready" not in taint["key"]
        ]
        self.admin.patch(f"{NODES}/{NAME}", [{"op": "add", "path": "/spec/taints", "value": taints}], JSON_PATCH)

    def _apiserver_options(self) -> tuple[str, ...]:
        pki = self.sandbox.folder / "pki"
        return (
            "--bind-address=0.0.0.0",
            f"--advertise-address={BRIDGE_ADDRESS}",
            "--endpoint-reconciler-type=lease",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-certificate-authority={pki / 'ca.crt'}",
            f"--kubelet-client-certificate={pki / 'apiserver-to-kubelet-system_masters.crt'}",
            f"--kubelet-client-key={pki / 'apiserver-to-kubelet-system_masters.key'}",
        )

    def _write_credentials(self) -> None:
        self.control_plane.user("apiserver-to-kubelet", "system:masters")

    def _containerd(self, pause: Image) -> Process:
        folder = self.sandbox.folder
        network = {
            "cniVersion": "1.0.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isDefaultGateway": True,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(folder / "addresses"),
                        "ranges": [[{"subnet": POD_NETWORK, "rangeStart": "10.123.1.1"}]],
                    },
                }
            ],
        }
        (folder / "cni").mkdir()
        (folder / "cni" / "pods.conflist").write_text(json.dumps(network))
        configuration = folder / "containerd.toml"
        configuration.write_text(f"""\
version = 2
root = "{folder}/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "{_SOCKET}"
[{_CRI}]
  sandbox_image = "{pause.tagged}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [{_CRI}.cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
  [{_CRI}.containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [{_CRI}.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
    [{_CRI}.containerd.runtimes.kata-qemu-snp]
      runtime_type = "io.containerd.runc.v2"
      pod_annotations = ["io.katacontainers.*"]
      privileged_without_host_devices = true
""")
        command = [*self.sandbox.prefix, "containerd", "--config", str(configuration)]
        return Process(command, folder / "containerd.log", self.sandbox.keeper)

    def _kubelet(self) -> Process:
        folder = self.sandbox.folder
        certificate, key = self.control_plane.server_certificate("kubelet", BRIDGE_ADDRESS, NAME)
        settings = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self.control_plane.ca)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(certificate),
            "tlsPrivateKeyFile": str(key),
            "containerRuntimeEndpoint": f"unix://{_SOCKET}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.sandbox.cgroup.name}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "enforceNodeAllocatable": ["none"],
            "clusterDNS": [DNS_ADDRESS],
            "clusterDomain": DOMAIN,
            "resolvConf": "",
            "podLogsDir": str(self.logs),
            "volumePluginDir": str(folder / "volume-plugins"),
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
            # ConfigMaps reach pods soon.
            "syncFrequency": "2s",
            "registryPullQPS": 0,
            "eventRecordQPS": 0,
            "maxPods": 200,
        }
        configuration = folder / "kubelet.yaml"
        configuration.write_text(yaml.safe_dump(settings))
        command = [
            *self.sandbox.prefix,
            binary(NODE, "kubelet"),
            f"--config={configuration}",
            f"--kubeconfig={self.control_plane.node(NAME).kubeconfig}",
            f"--root-dir={folder / 'kubelet'}",
            f"--hostname-override={NAME}",
            f"--node-ip={BRIDGE_ADDRESS}",
        ]
        return Process(command, folder / "kubelet.log", self.sandbox.keeper)

    def _kube_proxy(self) -> Process:
        folder = self.sandbox.folder
        settings = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clientConnection": {"kubeconfig": str(self.control_plane.user("system:kube-proxy").kubeconfig)},
            "hostnameOverride": NAME,
            "iptables": {"masqueradeAll": True, "minSyncPeriod": "0s"},
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
        }
        configuration = folder / "kube-proxy.yaml"
        configuration.write_text(yaml.safe_dump(settings))
        command = [*self.sandbox.prefix, binary(NODE, "kube-proxy"), f"--config={configuration}"]
        return Process(command, folder / "kube-proxy.log", self.sandbox.keeper)

    def client(self, name: str, *groups: str) -> Client:
        """The API server as somebody else sees it."""
        return self.control_plane.user(name, *groups)


def _is_ready(node: dict[str, object]) -> bool:
    status = node.get("status", {})
    assert isinstance(status, dict)
    return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))
