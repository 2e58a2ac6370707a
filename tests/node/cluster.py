"""A control plane in a sandbox, and a node on which its pods run: containerd, kubelet and kube-proxy.

Every runtime handler is plain runc. It shows what a kubelet does with our pods, and nothing about VMs or SNP.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

import yaml

from tests.cluster.binaries import binary
from tests.cluster.client import Client
from tests.cluster.controlplane import ControlPlane, Place
from tests.cluster.nodes import KATA, KATA_LABEL, RUNTIME_CLASSES, SNP_LABEL
from tests.cluster.process import Process
from tests.node.images import Image
from tests.node.node import DOMAIN, START_SECONDS, Node, NodePlace
from tests.node.programs import NODE
from tests.node.sandbox import BRIDGE_ADDRESS, POD_NETWORK, Sandbox
from tests.support.paths import ROOT
from tests.support.until import until

NAME: Final = "snp-0"
PLAIN_NAME: Final = "plain-0"
SMALL_NAME: Final = "small-0"
SMALL_MEBIBYTES: Final = 1000
"""What all pods of the small node may take together."""
_CONNECT: Final = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).close()"
TRUSTED_LABEL: Final = "morphisms.node-restriction.kubernetes.io/snp"


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
        self.images: list[Image] = []
        self._pause = pause
        self._joined: dict[str, Node] = {}
        self.node = Node(sandbox, self.control_plane, pause, _first(sandbox))
        self.kube_proxy = self._kube_proxy()

    def start(self) -> None:
        """Up, the node ready."""
        self.node.containerd.start(wait=False)
        self.control_plane.start()
        self.kube_proxy.start(wait=False)
        self.node.start()
        self._label(self.node)
        # The overhead is that of a VM, which does not run here.
        self.admin.create(RUNTIME_CLASSES, {key: value for key, value in KATA.items() if key != "overhead"})

    def join_plain(self) -> Node:
        """A second node, ready, that hosts no SNP guests and has the images of the first.

        Its bridge is in the same network namespace as the first's: that routes between both, and one kube-proxy
        serves both.
        """
        return self._join(PLAIN_NAME, 1)

    def join_small(self) -> Node:
        """As `join_plain`, with the labels of the first and a bound on the memory of its pods, by their cgroup."""
        node = self._join(SMALL_NAME, 2, SMALL_MEBIBYTES)
        self._label(node)
        return node

    def _join(self, name: str, number: int, mebibytes: int = 0) -> Node:
        if name not in self._joined:
            place = _further(self.sandbox, name, number, mebibytes)
            self._joined[name] = Node(self.sandbox, self.control_plane, self._pause, place)
        node = self._joined[name]
        node.start()
        node.load(self.images)
        return node

    def _label(self, node: Node) -> None:
        """What the feature discovery and Kata's installer do, and an operator."""
        labels = {SNP_LABEL: "true", KATA_LABEL: "true", TRUSTED_LABEL: "true"}
        self.admin.patch(node.path, {"metadata": {"labels": labels}})

    def load(self, images: Sequence[Image]) -> None:
        """Give images to the first node, and to others that join."""
        self.images += images
        self.node.load(images)

    def reach(self, name: str, port: int) -> None:
        """Wait until the Service of this name takes connections: kube-proxy and CoreDNS come after its pods."""
        command = (sys.executable, "-c", _CONNECT, name, str(port))
        until(lambda: self.sandbox.run(*command, check=False).returncode == 0, START_SECONDS)

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


def _first(sandbox: Sandbox) -> NodePlace:
    cgroup = f"/{sandbox.cgroup.name}"
    return NodePlace(NAME, BRIDGE_ADDRESS, POD_NETWORK, "10.123.1.1", "cni0", 10250, cgroup, "/run/containerd")


def _further(sandbox: Sandbox, name: str, number: int, mebibytes: int) -> NodePlace:
    bridge, network = f"cni{number}", f"10.{123 + number}"
    sandbox.run("ip", "link", "add", bridge, "type", "bridge")
    sandbox.run("ip", "address", "add", f"{network}.0.1/16", "dev", bridge)
    sandbox.run("ip", "link", "set", bridge, "up")
    return NodePlace(
        name,
        f"{network}.0.1",
        f"{network}.0.0/16",
        f"{network}.1.1",
        bridge,
        10250 + 10 * number,
        sandbox.cgroup.add(name),
        f"/run/containerd-{name}",
        mebibytes,
    )
