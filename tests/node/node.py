"""A node on which pods run: containerd and kubelet, with folders, sockets, ports, cgroup and pod network of its own.

Every runtime handler is plain runc. It shows what a kubelet does with our pods, and nothing about VMs or SNP.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.cluster.binaries import binary
from tests.cluster.client import JSON_PATCH, Client, Object
from tests.cluster.conditions import holds
from tests.cluster.controlplane import ControlPlane
from tests.cluster.nodes import NODES
from tests.cluster.process import Process
from tests.node.images import Image
from tests.node.programs import NODE
from tests.node.sandbox import Sandbox
from tests.support.until import until

DNS_ADDRESS: Final = "10.96.0.10"
DOMAIN: Final = "cluster.local"
START_SECONDS: Final = 600.0
_CRI: Final = 'plugins."io.containerd.grpc.v1.cri"'


@dataclass(frozen=True)
class NodePlace:
    """What is a node's own in a sandbox that several share. `first` is the first address of its pods.

    `mebibytes` bounds the memory of all its pods together, by the cgroup above theirs; 0 is no bound.
    """

    name: str
    address: str
    network: str
    first: str
    bridge: str
    port: int
    cgroup: str
    state: str
    mebibytes: int = 0


class Node:
    """Of a control plane that runs in the same sandbox. The sandbox's removal ends it."""

    def __init__(self, sandbox: Sandbox, control_plane: ControlPlane, pause: Image, place: NodePlace) -> None:
        self.sandbox = sandbox
        self.control_plane = control_plane
        self.place = place
        self.name = place.name
        self.folder = sandbox.folder / place.name
        self.folder.mkdir()
        self.state = place.state
        self._socket = f"{self.state}/containerd.sock"
        self.logs = self.folder / "pod-logs"
        self.containerd = self._containerd(pause)
        self.kubelet = self._kubelet()

    @property
    def admin(self) -> Client:
        return self.control_plane.admin

    @property
    def path(self) -> str:
        """Of its object."""
        return f"{NODES}/{self.name}"

    def start(self) -> None:
        """Up and ready, once the control plane answers; without the taint that no lifecycle controller takes away."""
        if not self.containerd.running:
            self.containerd.start(wait=False)
        self.start_kubelet()
        self.admin.until(NODES, lambda nodes: any(map(self._is_ready, nodes)), seconds=START_SECONDS)
        taints = [
            taint for taint in self.admin.get(self.path)["spec"].get("taints", ()) if "not-ready" not in taint["key"]
        ]
        self.admin.patch(self.path, [{"op": "add", "path": "/spec/taints", "value": taints}], JSON_PATCH)

    def restart_daemons(self) -> None:
        """Stop kubelet and containerd, and start both again."""
        for daemon in (self.kubelet, self.containerd):
            daemon.stop()
        self.containerd.start(wait=False)
        self.start_kubelet()

    def start_kubelet(self) -> None:
        """As its service manager does, again where it has ended: the CRI comes up a moment after containerd does."""
        before = self._renewed()

        def is_up() -> bool:
            if not self.kubelet.running:
                self.kubelet.stop()
                self.kubelet.start(wait=False)
            return self._renewed() != before

        until(self._is_containerd_ready, START_SECONDS)
        until(is_up, START_SECONDS)

    def load(self, images: Sequence[Image]) -> None:
        """Give images to containerd."""

        def load(image: Image) -> None:
            self.ctr("images", "import", "--no-unpack", str(image.archive))

        until(self._is_containerd_ready, START_SECONDS)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(load, images))

    def leave(self) -> None:
        """End its pods and its daemons, and forget it."""
        self.admin.patch(self.path, {"spec": {"unschedulable": True}})

        def is_empty() -> bool:
            pods = self.admin.items("/api/v1/pods", fieldSelector=f"spec.nodeName={self.name}")
            for pod in pods:
                here = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
                self.admin.request("DELETE", here, query={"gracePeriodSeconds": "1"})
            return not pods

        until(is_empty, START_SECONDS)
        self.kubelet.stop()
        self.containerd.stop()
        self.admin.delete(self.path)

    def ctr(self, *arguments: str) -> str:
        """containerd's own client; what it printed."""
        done = self.sandbox.run("ctr", "--address", self._socket, "--namespace", "k8s.io", *arguments)
        return done.stdout.decode()

    def _renewed(self) -> str | None:
        """When the kubelet last renewed the node's Lease; None before it first did."""
        lease = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{self.name}"
        answer = self.admin.request("GET", lease)
        return str(answer.body["spec"]["renewTime"]) if answer.status == 200 else None

    def _is_containerd_ready(self) -> bool:
        return self.sandbox.run("ctr", "--address", self._socket, "version", check=False).returncode == 0

    def _is_ready(self, node: Object) -> bool:
        return node["metadata"]["name"] == self.name and holds(node)

    def _containerd(self, pause: Image) -> Process:
        folder = self.folder
        network = {
            "cniVersion": "1.0.0",
            "name": f"pods-{self.name}",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": self.place.bridge,
                    "isDefaultGateway": True,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(folder / "addresses"),
                        "ranges": [[{"subnet": self.place.network, "rangeStart": self.place.first}]],
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
state = "{self.state}"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "{self._socket}"
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
      [{_CRI}.containerd.runtimes.runc.options]
        Root = "{self.state}/runc"
    [{_CRI}.containerd.runtimes.kata-qemu-snp]
      runtime_type = "io.containerd.runc.v2"
      pod_annotations = ["io.katacontainers.*"]
      privileged_without_host_devices = true
      [{_CRI}.containerd.runtimes.kata-qemu-snp.options]
        Root = "{self.state}/runc"
""")
        command = [*self.sandbox.prefix, "containerd", "--config", str(configuration)]
        return Process(command, folder / "containerd.log", self.sandbox.keeper)

    def _kubelet(self) -> Process:
        folder = self.folder
        certificate, key = self.control_plane.server_certificate(f"kubelet-{self.name}", self.place.address, self.name)
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
            "containerRuntimeEndpoint": f"unix://{self._socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.place.cgroup,
            "failCgroupV1": False,
            "failSwapOn": False,
            "enforceNodeAllocatable": ["none"],
            "port": self.place.port,
            "healthzPort": 0,
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
            **_bounded(self.place.mebibytes),
        }
        configuration = folder / "kubelet.yaml"
        configuration.write_text(yaml.safe_dump(settings))
        command = [
            *self.sandbox.prefix,
            binary(NODE, "kubelet"),
            f"--config={configuration}",
            f"--kubeconfig={self.control_plane.node(self.name).kubeconfig}",
            f"--root-dir={folder / 'kubelet'}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.place.address}",
        ]
        return Process(command, folder / "kubelet.log", self.sandbox.keeper)


def _bounded(mebibytes: int) -> dict[str, Any]:
    """Settings of a kubelet that evicts pods when theirs have less than 30% of so much memory left.

    It reserves the rest of the machine's, so it bounds its pods' cgroup, and looks at what is left in there.
    """
    if not mebibytes:
        return {}
    found = re.search(r"^MemTotal: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert found is not None
    return {
        "enforceNodeAllocatable": ["pods"],
        "systemReserved": {"memory": f"{int(found[1]) - mebibytes * 1024}Ki"},
        "evictionHard": {
            "memory.available": f"{mebibytes * 3 // 10}Mi",
            "nodefs.available": "0%",
            "imagefs.available": "0%",
        },
        "evictionPressureTransitionPeriod": "5s",
    }
