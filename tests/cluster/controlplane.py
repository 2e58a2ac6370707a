"""etcd, kube-apiserver, kube-controller-manager and kube-scheduler on loopback, in a private folder."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import urllib3
import yaml

from tests.cluster import audit, pki
from tests.cluster.binaries import KUBERNETES, binary
from tests.cluster.client import Client, Credentials, Done
from tests.cluster.etcd import Etcd
from tests.cluster.keeper import Keeper
from tests.cluster.process import Process
from tests.cluster.traffic import Traffic
from tests.support.ports import free_port

_ISSUER = "https://kubernetes.default.svc"
GO_ENVIRONMENT: Final = {"GOGC": "400"}
"""Programs in Go collect garbage at five times the live heap, not at twice: less processor time, for more memory."""


@dataclass(frozen=True)
class Place:
    """Where a control plane runs: by default on this machine's loopback.

    `prefix` stands before each command; `ports` gives a port that is free there, the API server's first; `names` are
    further ones of its certificate; `options` follow those of a program, of which the last of a name counts;
    `environment` is added to each program's.
    """

    prefix: tuple[str, ...] = ()
    ports: Callable[[], int] = free_port
    names: tuple[str, ...] = ()
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(self, name: str, *arguments: str) -> list[str]:
        """The command line of a program."""
        return [*self.prefix, binary(KUBERNETES, name), *arguments, *self.options.get(name, ())]


class ControlPlane:
    """A running cluster without kubelets. `start`, and `stop` at the end.

    `admin` may do everything; `user` and `service_account` give clients of anybody else. `etcd` reads the store past
    the API server, `audit` is the API server's log. `processes` holds the four programs by name. Who makes requests
    without pause makes them through `traffic`.
    """

    def __init__(self, folder: Path, keeper: Keeper, place: Place | None = None) -> None:
        self.folder = folder
        self.keeper = keeper
        self.place = place or Place()
        self._authority = pki.Authority(folder / "pki")
        self._clients: dict[tuple[str, tuple[str, ...]], Client] = {}
        self.port = self.place.ports()
        self.url = f"https://127.0.0.1:{self.port}"
        self.ca = self._authority.certificate
        self.etcd = Etcd(f"http://127.0.0.1:{self.place.ports()}", folder / "etcd", self.place.prefix)
        self.audit = audit.AuditLog(folder / "audit.log")
        self.traffic = Traffic()
        self.admin = self.user("admin", "system:masters")
        self.processes = {
            "etcd": self._etcd(),
            "kube-apiserver": self._apiserver(),
            "kube-controller-manager": self._controller_manager(),
            "kube-scheduler": self._scheduler(),
        }

    def start(self) -> None:
        """Up in some ten seconds."""
        for process in self.processes.values():
            process.start()

    def stop(self) -> None:
        """In the opposite order, each waited for."""
        for process in reversed(self.processes.values()):
            process.stop()

    def user(self, name: str, *groups: str) -> Client:
        """A client of this user; who has its certificate is that user to the API server."""
        key = name, groups
        if key not in self._clients:
            file = re.sub("[^a-z0-9.-]+", "_", "-".join((name, *groups)))
            pair = self._authority.client(file, name, groups)
            self._clients[key] = Client(name, self.url, self.ca, Credentials(pair), self.folder)
        return self._clients[key]

    def server_certificate(self, file: str, *names: str) -> tuple[Path, Path]:
        """(certificate, key) of a server on loopback, and by these names, that the cluster's clients trust."""
        return self._authority.server(file, names)

    def node(self, name: str) -> Client:
        """A kubelet."""
        return self.user(f"system:node:{name}", "system:nodes")

    def service_account(self, namespace: str, name: str, *, seconds: int = 24 * 3600) -> Client:
        """A client with a token of that ServiceAccount, by the TokenRequest API."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
        answer = self.admin.create(path, {**request, "spec": {"expirationSeconds": seconds}})
        token = Credentials(token=answer["status"]["token"])
        user = f"system:serviceaccount:{namespace}:{name}"
        return Client(user, self.url, self.ca, token, self.folder)

    def kubectl(self, *arguments: str | Path, input: object = None, check: bool = True) -> Done:
        """kubectl as the administrator."""
        return self.admin.kubectl(*arguments, input=input, check=check)

    def _process(self, name: str, command: list[str], ready: Callable[[], bool] | None = None) -> Process:
        return Process(
            command, self.folder / f"{name}.log", self.keeper, environment=self.place.environment, ready=ready
        )

    def _etcd(self) -> Process:
        peer = f"http://127.0.0.1:{self.place.ports()}"
        command = self.place.command(
            "etcd",
            f"--data-dir={self.etcd.folder}",
            f"--listen-client-urls={self.etcd.url}",
            f"--advertise-client-urls={self.etcd.url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )
        # In another network only the API server can ask it, and waits for it.
        ready = None if self.place.prefix else lambda: _answers(f"{self.etcd.url}/readyz")
        return self._process("etcd", command, ready)

    def _apiserver(self) -> Process:
        certificate, key = self._authority.server("apiserver", self.place.names)
        signing = pki.write_signing_key(self.folder / "pki" / "serviceaccount.key")
        policy = self.folder / "audit.yaml"
        policy.write_text(yaml.safe_dump(audit.POLICY))
        command = self.place.command(
            "kube-apiserver",
            f"--etcd-servers={self.etcd.url}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            # No kubernetes Service is wanted here, and machines without a network have no other address.
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.96.0.0/16",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={self.ca}",
            f"--service-account-issuer={_ISSUER}",
            f"--service-account-key-file={signing}",
            f"--service-account-signing-key-file={signing}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self.audit.path}",
            # One file: it is read from marks in it.
            "--audit-log-maxsize=0",
            # Tests may wait for nobody's turn.
            "--enable-priority-and-fairness=false",
            "--shutdown-send-retry-after=true",
        )
        return self._process("kube-apiserver", command, self._apiserver_ready)

    def _apiserver_ready(self) -> bool:
        try:
            return self.admin.request("GET", "/readyz", seconds=20).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def _controller_manager(self) -> Process:
        user = self.user("system:kube-controller-manager")
        command = self.place.command(
            "kube-controller-manager",
            f"--kubeconfig={user.kubeconfig}",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            "--secure-port=0",
            f"--service-account-private-key-file={self.folder / 'pki' / 'serviceaccount.key'}",
            f"--root-ca-file={self.ca}",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
            "--horizontal-pod-autoscaler-sync-period=1s",
            # No kubelets here, whose heartbeats these would miss.
            "--controllers=*,-node-ipam-controller,-node-lifecycle-controller",
        )
        return self._process("kube-controller-manager", command)

    def _scheduler(self) -> Process:
        user = self.user("system:kube-scheduler")
        command = self.place.command(
            "kube-scheduler",
            f"--kubeconfig={user.kubeconfig}",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
        )
        return self._process("kube-scheduler", command)


@contextmanager
def control_plane(name: str) -> Iterator[ControlPlane]:
    """A running one; whatever happens, all of it is ended and its folder removed."""
    folder = Path(tempfile.mkdtemp(prefix=f"morphisms-{name}-"))
    keeper = Keeper(folder)
    cluster = ControlPlane(folder, keeper, Place(environment=GO_ENVIRONMENT))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        keeper.close()


def _answers(url: str) -> bool:
    try:
        return urllib3.request("GET", url, timeout=20, retries=False).status == 200
    except urllib3.exceptions.HTTPError:
        return False
