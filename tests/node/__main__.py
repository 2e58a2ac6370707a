"""`python -m tests.node build|up|down`: what `make test`, `make demo-cluster` and `make demo-cluster-down` call."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

from tests.cluster.binaries import KUBERNETES, binary
from tests.node import probe, programs, sandbox, stack
from tests.node.records import records


def main(command: str) -> int:
    """The exit code. A machine that cannot carry a node is told why, and that is no failure."""
    if command == "down":
        return _down()
    if (why := probe.why_not()) is not None:
        print(f"node tier left out: {why}")
        return 0
    if missing := programs.missing_packages():
        print(f"the node tier needs Debian's packages {' '.join(missing)}: `make packages`, as root", file=sys.stderr)
        return 1
    if command == "build":
        stack.prepare(_report)
        return 0
    if any(record.stays for record in records()):
        print("a demo cluster runs already; make demo-cluster-down removes it", file=sys.stderr)
        return 1
    print("bringing up a node with Knative, OpenBao, the verifier and Morphisms", flush=True)
    made = stack.up(_report, stays=True)
    print(_instructions(made))
    return 0


def _instructions(made: stack.Stack) -> str:
    """What to do with it; a namespace and a secret are made for that."""
    made.namespace("shop", {"morphisms.dev/mode": "inject"})
    made.morphisms.write_secret("knative/cluster/shop/payments/db", password=secrets.token_urlsafe(12))
    service = made.sandbox.folder / "payments.yaml"
    service.write_text(_SERVICE.format(application=made.application.pinned))
    return _INSTRUCTIONS.format(
        kubeconfig=made.admin.kubeconfig,
        programs=Path(binary(KUBERNETES, "kubectl")).parent,  # Debian has no package of it
        service=service,
        enter=f"nsenter --net=/proc/{made.sandbox.record.holder}/ns/net",
        activator=made.activator(),
    )


def _down() -> int:
    left = []
    for record in records():
        if record.stays:
            sandbox.remove(record)
            left += sandbox.traces(record)
            print(f"{record.name}: removed")
    sandbox.remove_leftovers()
    for trace in left:
        print(f"left: {trace}", file=sys.stderr)
    return 1 if left else 0


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


_SERVICE = """\
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {{name: payments, namespace: shop}}
spec:
  template:
    metadata:
      annotations:
        morphisms.dev/secret-db: "~/db#password"
    spec:
      containers:
        - image: {application}
          env:
            - {{name: FILES, value: /morphisms/secrets/db}}
          securityContext:  # without it Knative warns
            runAsNonRoot: true
            allowPrivilegeEscalation: false
            capabilities: {{drop: [ALL]}}
            seccompProfile: {{type: RuntimeDefault}}
"""
_INSTRUCTIONS = """\

A cluster of one node runs in namespaces of its own. Its evidence is SIMULATED and its runtime class `kata-qemu-snp` is
plain runc: nothing here is confidential.

  export KUBECONFIG={kubeconfig} PATH="$PATH:{programs}"
  kubectl get pods --all-namespaces

Namespace `shop` is in mode `inject`, and OpenBao has a secret for its Service `payments`. The application answers with
a digest of it; the request goes to Knative's activator, because no ingress is installed:

  kubectl apply -f {service}
  kubectl --namespace shop get pods --watch
  {enter} python3 -c 'from urllib.request import *; print(urlopen(Request("http://{activator}", headers={{
    "Host": "payments-00001.shop.svc.cluster.local", "Knative-Serving-Namespace": "shop",
    "Knative-Serving-Revision": "payments-00001"}})).read().decode())'

make demo-cluster-down removes every trace."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
