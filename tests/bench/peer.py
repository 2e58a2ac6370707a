"""A Go webhook beside ours on the same cluster, which decodes each review and answers with our own recorded patch.

It has as many replicas on one core each, a balancer, and registration entries that are ours with another selector. Its
namespaces have no mode, so none of our guards is evaluated for its pods.
"""

from __future__ import annotations

import base64
import copy
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.bench.golang import binary
from tests.bench.served import processor_seconds
from tests.cluster.client import Object
from tests.cluster.installation import Installation
from tests.cluster.namespace import Namespace
from tests.cluster.process import Process
from tests.support.certificates import write_pair
from tests.support.ports import free_port
from webhook.configuration.model import Configuration
from webhook.decide import decide
from webhook.modes import Mode
from webhook.request import Request, User
from webhook.snapshot import RuntimeClassRecord, Snapshot

LABEL = {"bench.example/peer": "go"}
_REGISTRATIONS = "/apis/admissionregistration.k8s.io/v1"
_KINDS = {"MutatingWebhookConfiguration": "mutate", "ValidatingWebhookConfiguration": "validate"}


@dataclass
class Peer:
    """Its processes, whose processor time is measured."""

    balancer: Process
    replicas: list[subprocess.Popen[str]]

    def cpu_seconds(self) -> float:
        """Processor time that its replicas have used."""
        return sum(processor_seconds(replica.pid) for replica in self.replicas)


@contextmanager
def running(installation: Installation, pod: Object) -> Iterator[Peer]:
    """Run it and register it, until the API server asks it about such pods."""
    folder = installation.folder / "peer"
    folder.mkdir()
    write_pair(folder)
    (folder / "patch.json").write_text(json.dumps(_patch(installation, pod)))
    command = [binary("floor"), "-tls-cert", folder / "tls.crt", "-tls-key", folder / "tls.key"]
    command += ["-patch", folder / "patch.json"]
    replicas = [
        subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) for _ in installation.replicas
    ]
    port, backends = free_port(), folder / "backends"
    balancer = Process(
        [sys.executable, "-m", "tests.support.balancer", str(port), str(backends)],
        folder / "balancer.log",
        installation.cluster.keeper,
    )
    try:
        backends.write_text("".join(_first_line(replica) for replica in replicas))
        balancer.start(wait=False)
        _register(installation, port, (folder / "ca.crt").read_bytes())
        namespace = Namespace.make(installation.cluster.admin, None, LABEL)
        _until_patched(namespace, pod)
        yield Peer(balancer, replicas)
    finally:
        balancer.stop()
        for replica in replicas:
            replica.kill()
            replica.wait()


def _patch(installation: Installation, pod: Object) -> list[dict[str, Any]]:
    """What our webhook would do to the pod, as the API server completes it in a namespace without a mode."""
    namespace = Namespace.make(installation.cluster.admin, None, {})
    made = namespace.admin.create(namespace.pods(), pod)
    configuration = Configuration.model_validate(installation.configuration())
    classes = {"kata-qemu-snp": RuntimeClassRecord("kata-qemu-snp", "kata-qemu-snp")}
    request = Request(
        uid="recorded",
        path="/mutate/pod/enforce",
        kind=("", "v1", "Pod"),
        resource=("", "v1", "pods"),
        subresource="",
        operation="CREATE",
        name="",
        namespace=namespace.name,
        user=User("bench"),
        object=made,
    )
    decision = decide(request, configuration, Snapshot({namespace.name: Mode.ENFORCE}, {}, classes))
    if not decision.operations:
        raise RuntimeError(f"no patch to record: {decision.reason} {decision.denial}")
    return list(decision.operations)


def _register(installation: Installation, port: int, ca: bytes) -> None:
    for live in installation.registrations():
        path = _KINDS[live["kind"]]
        ours = next(each for each in live["webhooks"] if each["name"] == f"{path}-pod.enforce.morphisms.dev")
        entry = copy.deepcopy(ours)
        entry["name"] = f"{path}-pod.peer.example"
        entry["namespaceSelector"] = {"matchLabels": LABEL}
        url = f"https://localhost:{port}/{path}/pod"
        entry["clientConfig"] = {"url": url, "caBundle": base64.b64encode(ca).decode()}
        body = {"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": {"name": "peer"}}
        collection = f"{_REGISTRATIONS}/{live['kind'].lower()}s"
        installation.cluster.admin.create(collection, {**body, "webhooks": [entry]})


def _until_patched(namespace: Namespace, pod: Object) -> None:
    """The API server learns of an entry a moment after it was written."""
    for _ in range(100):
        answer = namespace.admin.request("POST", namespace.pods(), pod, query={"dryRun": "All"})
        if answer.status == 201 and "initContainers" in answer.body["spec"]:
            return
        time.sleep(0.1)
    raise RuntimeError(f"the Go webhook does not patch pods: {answer.status} {answer.message}")


def _first_line(replica: subprocess.Popen[str]) -> str:
    assert replica.stdout is not None
    return replica.stdout.readline()
