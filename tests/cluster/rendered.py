"""What a rendering needs of the cluster: the sidecar's image pinned by digest, and the capture of it."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml

from cli.main import main
from tests.cluster.attacks import SIDECAR
from tests.cluster.client import Client, Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.installation import Installation
from tests.cluster.knative import APP_IMAGE, QUEUE_IMAGE
from tests.support.until import until

T = TypeVar("T")

CONFIGURATIONS: Final[dict[str, dict[str, Any]]] = {
    APP_IMAGE: {"Env": ["PATH=/bin"], "Entrypoint": ["/app"], "User": "1000:1000"},
    QUEUE_IMAGE: {"Entrypoint": ["/ko-app/queue"], "User": "65532:65532"},
    SIDECAR: {"Entrypoint": ["/usr/bin/morphisms-init"], "User": "65532:65532"},
}
SERVICE: Final = f"""\
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: payments
  annotations:
    morphisms.dev/secret-tls: ~/tls#certificate
spec:
  template:
    spec:
      containers:
        - image: {APP_IMAGE}
          command: [/app]
          env:
            - name: DB_PASSWORD
              value: vault:~/db#password
            - name: COLOUR
              value: blue
          securityContext: {{readOnlyRootFilesystem: true, capabilities: {{drop: [ALL]}}}}
          volumeMounts:
            - {{name: scratch, mountPath: /scratch}}
            - {{name: settings, mountPath: /etc/settings, readOnly: true}}
      volumes:
        - {{name: scratch, emptyDir: {{}}}}
        - {{name: settings, configMap: {{name: settings}}}}
"""
"""Files and an environment variable from Vault, and volumes; named payments."""


@contextlib.contextmanager
def pinned_sidecar(morphisms: Installation) -> Iterator[None]:
    """The sidecar's image is named by its digest."""
    settings = morphisms.configuration()
    morphisms.configure({**settings, "sidecar": {**settings.get("sidecar", {}), "image": SIDECAR}})
    morphisms.wait_for_sidecar()
    yield
    morphisms.configure(settings)


def capture(cluster: ControlPlane, user: Client | None = None) -> dict[str, Any]:
    """What `morphisms capture` finds for the user, once the pinned sidecar's template is in force."""
    return found(lambda: _captured(user or cluster.admin))


def _captured(user: Client) -> dict[str, Any] | None:
    with contextlib.redirect_stdout(io.StringIO()) as written:
        code = main(["capture", "--kubeconfig", str(user.kubeconfig), "--knative-version", "v1.23.0"])
    document = yaml.safe_load(written.getvalue()) if code == 0 else None
    return document if document and document["template"]["sidecar"]["image"] == SIDECAR else None


def write_inputs(folder: Path, captured: dict[str, Any], images: dict[str, dict[str, Any]] | None = None) -> list[str]:
    """Write a capture, a trust.yaml that vouches for it, and the images; `morphisms render`'s options for them."""
    folder.mkdir(exist_ok=True)
    (folder / "cluster.yaml").write_text(yaml.safe_dump(captured))
    queue = captured["knative"]["configMaps"]["config-deployment"]["queue-sidecar-image"]
    trust = {"version": 1, "template": captured["template"], "queueProxy": queue, "guests": ["kata-snp"]}
    login = {"mount": "jwt", "role": "knative"}
    (folder / "trust.yaml").write_text(yaml.safe_dump({**trust, "vault": login}))
    (folder / "images.json").write_text(json.dumps(CONFIGURATIONS if images is None else images))
    files = {"--cluster": "cluster.yaml", "--trust": "trust.yaml", "--images": "images.json"}
    return [word for name, file in files.items() for word in (name, str(folder / file))]


def failures(events: list[Object], name: str) -> list[str]:
    """Why a controller could make no pod of the object of this name."""
    return [
        each["message"]
        for each in events
        if each["reason"] == "FailedCreate" and each["involvedObject"]["name"].startswith(name)
    ]


def found(look: Callable[[], T | None]) -> T:
    """What the look-up finds in the end."""
    last: list[T] = []

    def has_found() -> bool:
        if (one := look()) is not None:
            last.append(one)
        return bool(last)

    until(has_found)
    return last[0]
